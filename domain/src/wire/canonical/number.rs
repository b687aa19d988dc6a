//! Numbers: recognised by their token, integers kept digit by digit, floats printed as Python's `repr` does.

use super::{INTEGER_DIGITS_MAX, Refusal};

/// A number's token, classified by its text alone.
pub(super) enum Number {
    /// The token is its canonical form.
    AsIs {
        end: usize,
    },
    /// `-0`, which Python reads as an integer without a sign.
    MinusZero {
        end: usize,
    },
    Float {
        end: usize,
        value: f64,
    },
}

/// Reads the number that starts at `from`, by the grammar of JSON.
pub(super) fn read(json: &str, from: usize) -> Result<Number, Refusal> {
    let bytes = json.as_bytes();
    let first = from + usize::from(bytes[from] == b'-');
    let mut end = digits(bytes, first);
    match bytes.get(first) {
        Some(b'0') => end = first + 1,
        Some(b'1'..=b'9') => {}
        Some(_) | None => return Err(not_a_number(bytes, from, first)),
    }
    let whole = end;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(bytes, end + 1);
        if fraction > end + 1 {
            end = fraction;
        }
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(bytes, end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    if end == whole {
        return integer(&bytes[first..end], from, first, end);
    }
    match json[from..end].parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Number::Float { end, value }),
        Ok(_) | Err(_) => Err(Refusal::NotFinite { at: from }),
    }
}

fn integer(digits: &[u8], from: usize, first: usize, end: usize) -> Result<Number, Refusal> {
    if digits.len() > INTEGER_DIGITS_MAX {
        return Err(Refusal::IntegerTooLong { at: from });
    }
    Ok(if first > from && digits == b"0" { Number::MinusZero { end } } else { Number::AsIs { end } })
}

/// `-Infinity` is a token Python reads, so it is refused for what it is.
fn not_a_number(bytes: &[u8], from: usize, first: usize) -> Refusal {
    if bytes[first..].starts_with(b"Infinity") { Refusal::NotFinite { at: from } } else { Refusal::Syntax { at: from } }
}

fn digits(bytes: &[u8], from: usize) -> usize {
    let mut end = from;
    while bytes.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    end
}

/// The longest `repr` of a double is 24 characters; the shortest digits are at most 17.
pub(super) struct Repr {
    text: [u8; 32],
    len: usize,
}

impl Repr {
    /// Python's `repr` of a finite double.
    pub(super) fn new(value: f64) -> Self {
        let mut repr = Self { text: [0; 32], len: 0 };
        if value.is_sign_negative() {
            repr.push(b"-");
        }
        if value == 0.0 {
            repr.push(b"0.0");
            return repr;
        }
        let mut buffer = zmij::Buffer::new();
        let Shortest { digits, count, exponent } = Shortest::of(buffer.format_finite(value.abs()));
        let digits = &digits[..count];
        match exponent {
            0..16 => repr.above_one(digits, exponent as usize + 1),
            -4..0 => {
                repr.push(&b"0.000"[..(1 - exponent) as usize]);
                repr.push(digits);
            }
            _ => repr.scientific(digits, exponent),
        }
        repr
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    fn above_one(&mut self, digits: &[u8], point: usize) {
        if digits.len() > point {
            self.push(&digits[..point]);
            self.push(b".");
            self.push(&digits[point..]);
        } else {
            self.push(digits);
            self.push(&b"0000000000000000"[..point - digits.len()]);
            self.push(b".0");
        }
    }

    fn scientific(&mut self, digits: &[u8], exponent: i32) {
        self.push(&digits[..1]);
        if digits.len() > 1 {
            self.push(b".");
            self.push(&digits[1..]);
        }
        self.push(if exponent < 0 { b"e-" } else { b"e+" });
        let exponent = exponent.unsigned_abs();
        if exponent >= 100 {
            self.push(&[b'0' + (exponent / 100) as u8]);
        }
        self.push(&[b'0' + (exponent / 10 % 10) as u8, b'0' + (exponent % 10) as u8]);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.text[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// A positive double as d.ddd x 10^exponent, without zeros at either end.
struct Shortest {
    digits: [u8; 32],
    count: usize,
    exponent: i32,
}

impl Shortest {
    /// Takes the digits out of any decimal spelling of a positive number.
    fn of(text: &str) -> Self {
        let mut shortest = Self { digits: [0; 32], count: 0, exponent: 0 };
        let (mantissa, exponent) = match text.split_once('e') {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().expect("a printed exponent is a number")),
            None => (text, 0),
        };
        let mut point = mantissa.len();
        let mut leading = 0;
        for (place, byte) in mantissa.bytes().enumerate() {
            match byte {
                b'.' => point = place,
                b'0' if shortest.count == 0 => leading += 1,
                digit => {
                    shortest.digits[shortest.count] = digit;
                    shortest.count += 1;
                }
            }
        }
        while shortest.digits[shortest.count - 1] == b'0' {
            shortest.count -= 1;
        }
        shortest.exponent = exponent + point as i32 - leading - 1;
        shortest
    }
}
