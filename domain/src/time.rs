//! Instants in microseconds since the Unix epoch, and their RFC 3339 text.
//!
//! Every instant in a stored value is a [`Timestamp`]; every instant in an answer is its
//! `Display`: UTC, six fraction digits, `+00:00` (contract D28).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is not an RFC 3339 instant with an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 timestamp with an offset")]
pub struct BadTimestamp;

impl Timestamp {
    pub const EPOCH: Self = Self(0);
    pub const MAX: Self = Self(i64::MAX);

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds, rounded towards the past.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Adds a signed number of microseconds, saturating.
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    pub const fn plus_secs(self, secs: i64) -> Self {
        self.plus_micros(secs.saturating_mul(1_000_000))
    }

    /// Signed microseconds from `earlier` to `self`.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Parses RFC 3339 text; a text without an offset is refused.
    pub fn parse(text: &str) -> Result<Self, BadTimestamp> {
        if let Some(instant) = Self::parse_utc(text.as_bytes()) {
            return Ok(instant);
        }
        // jiff also reads forms that RFC 3339 does not have, so the shape is checked first.
        let bytes = text.as_bytes();
        let shaped = bytes.len() >= 20
            && bytes[4] == b'-'
            && bytes[7] == b'-'
            && matches!(bytes[10], b'T' | b't' | b' ')
            && bytes[13] == b':'
            && bytes[16] == b':'
            && bytes[..4].iter().all(u8::is_ascii_digit);
        if !shaped || !has_offset(bytes) {
            return Err(BadTimestamp);
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| BadTimestamp)?;
        Ok(Self(instant.as_microsecond()))
    }
}

impl Timestamp {
    /// The two shapes every agent writes: UTC as `Z` or `+00:00`, at most six fraction digits. Two are read per
    /// event, so they do not go through the general parser, which reads whatever this one leaves.
    fn parse_utc(text: &[u8]) -> Option<Self> {
        let local = text.strip_suffix(b"Z").or_else(|| text.strip_suffix(b"+00:00"))?;
        let (clock, fraction) = local.split_at_checked(19)?;
        let shaped = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if shaped.iter().any(|(place, byte)| clock[*place] != *byte) {
            return None;
        }
        let (year, month, day) = (digits(&clock[..4])?, digits(&clock[5..7])?, digits(&clock[8..10])?);
        let (hour, minute, second) = (digits(&clock[11..13])?, digits(&clock[14..16])?, digits(&clock[17..])?);
        // Years before the epoch and leap seconds are the general parser's; that one ends a day before year 9999.
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let micros = match fraction {
            [] => 0,
            [b'.', places @ ..] if (1..=6).contains(&places.len()) => {
                digits(places)? * 10_i64.pow(6 - places.len() as u32)
            }
            _ => return None,
        };
        let secs = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Self(secs * 1_000_000 + micros))
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Whether a text ends in `Z` or in the offset of a day's length at most.
fn has_offset(text: &[u8]) -> bool {
    let Some(offset) = text.last_chunk::<6>() else { return false };
    match offset {
        [.., b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            digits(&[*h1, *h2]).is_some_and(|hours| hours < 24)
                && digits(&[*m1, *m2]).is_some_and(|minutes| minutes < 60)
        }
        _ => false,
    }
}

const fn days_of(year: i64, month: i64) -> i64 {
    let leaps = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leaps => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the Unix epoch to a day of the Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - (month <= 2) as i64;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Howard Hinnant's civil-from-days and digits in place: pages and exports are full of times, and a formatter
        // costs ten times as much.
        let (secs, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        if !(0..=9999).contains(&year) {
            return write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00");
        }
        let mut text = *b"0000-00-00T00:00:00.000000+00:00";
        let parts = [
            (0, 4, year),
            (5, 7, month),
            (8, 10, day),
            (11, 13, hour),
            (14, 16, minute),
            (17, 19, second),
            (20, 26, micros),
        ];
        for (start, end, mut number) in parts {
            for digit in text[start..end].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;
    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        Self::parse(text)
    }
}

/// In text formats RFC 3339, in binary formats the microseconds.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            Self::parse(&text).map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_six_digits_and_an_offset() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (-1, "1969-12-31T23:59:59.999999+00:00"),
            (1_776_340_800_123_456, "2026-04-16T12:00:00.123456+00:00"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000+00:00"),
            (4_102_444_799_999_999, "2099-12-31T23:59:59.999999+00:00"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000+00:00"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Timestamp::from_micros(micros)));
        }
    }

    #[test]
    fn the_short_way_reads_what_the_general_parser_reads() {
        let general =
            |text: &str| text.parse::<jiff::Timestamp>().ok().map(|instant| Timestamp(instant.as_microsecond()));
        let mut instant = 0_i64;
        while instant < 7_000_000_000_000_000 {
            let text = Timestamp(instant).to_string();
            assert_eq!(
                Timestamp::parse_utc(text.as_bytes()).or_else(|| general(&text)),
                Some(Timestamp(instant)),
                "{text}"
            );
            instant += 77_777_777_777_777 / 100;
        }
        for text in ["2026-04-16T12:00:00Z", "2026-04-16T12:00:00.5Z", "2000-02-28T23:59:59.000001+00:00"] {
            assert!(Timestamp::parse_utc(text.as_bytes()).is_some_and(|at| Some(at) == general(text)), "{text}");
        }
        for text in [
            "2026-02-30T00:00:00Z",
            "2026-04-16T24:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-04-16T12:00:00.Z",
            "2026-04-16T12:0x:00Z",
            "2026-04-16T12:00:00+24:00",
            "2026-04-16T12:00:00+05:60",
            "2026-04-16T12:00:00+05",
            "2026-04-16T12:00:00+0530",
            "2026-04-16T12:00:00+05:30:00",
            "2026-04-16T12:00:00+05:30[Asia/Kolkata]",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(BadTimestamp), "{text}");
        }
    }

    #[test]
    fn every_day_of_the_calendar_is_read() {
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59Z"), Ok(Timestamp::from_secs(253_402_300_799)));
        assert_eq!(Timestamp::parse("2000-02-29T00:00:00Z"), Ok(Timestamp::from_secs(951_782_400)));
        assert_eq!(Timestamp::parse("0001-01-01T00:00:00Z"), Ok(Timestamp::from_secs(-62_135_596_800)));
        assert_eq!(Timestamp::parse("2026-12-31t23:59:60z"), Timestamp::parse("2026-12-31T23:59:59+00:00"));
    }

    #[test]
    fn offsets_are_converted_and_texts_without_one_refused() {
        let noon = Timestamp::parse("2026-04-16T12:00:00Z").expect("valid");
        assert_eq!(Timestamp::parse("2026-04-16T14:30:00+02:30"), Ok(noon));
        for bad in ["2026-04-16T12:00:00", "2026-04-16", "1776340800", "", "20260416T120000Z", "2026-04-16T12:00Z"] {
            assert_eq!(Timestamp::parse(bad), Err(BadTimestamp), "{bad}");
        }
    }
}
