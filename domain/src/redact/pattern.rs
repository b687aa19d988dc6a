//! Secrets and addresses within a text, found from a few telling bytes.
//!
//! Most bytes of an event tell nothing: a table sorts those out, and only at a telling one the neighbours are
//! looked at. Everything matched is ASCII at its ends, so a match never halves a character.

use std::borrow::Cow;

use super::{EMAIL, REDACTED, is_secret_key};

/// Whether addresses are replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Emails {
    Scrubbed,
    Kept,
}

/// Opening brackets beyond this make a JSON text worth a walk that bounds its depth.
const BRACKETS_MAX: u32 = 64;

/// How far a name, a worker or the credentials of a URL are followed: text that an agent made to cost time must
/// not be looked at again from each of its bytes.
const LOOK_MAX: usize = 256;

/// Colons within the credentials of a URL; a text of more is no URL.
const CREDENTIAL_COLONS_MAX: usize = 8;

const fn telling() -> [bool; 256] {
    let mut table = [false; 256];
    let bytes = b"@:-\\[{pPkKcCuUnNbBjJAwxghS";
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
}

static TELLING: [bool; 256] = telling();

/// Whether a JSON text must be walked. It says no to one that the walk would change only when a secret name is
/// longer than 256 bytes or split in odd places (`p_assword`).
pub(super) fn is_suspicious(json: &[u8], is_event: bool) -> bool {
    let mut brackets = 0;
    for (at, byte) in json.iter().enumerate() {
        if !TELLING[usize::from(*byte)] {
            continue;
        }
        let tells = match byte {
            b'[' | b'{' => {
                brackets += 1;
                brackets > BRACKETS_MAX
            }
            // An escape can hide any letter.
            b'\\' => match json.get(at + 1) {
                Some(b'u') => !is_control_escape(&json[at..]),
                Some(b'/') => true,
                Some(_) | None => false,
            },
            b'@' if is_event && is_worker_value(json, at) => false,
            b'@' => email(json, at).is_some(),
            _ => may_tell(json, at) && (is_word(json, at) || secret(json, at).is_some()),
        };
        if tells {
            return true;
        }
    }
    false
}

/// `\u00xx` of a control character hides nothing.
fn is_control_escape(escape: &[u8]) -> bool {
    escape.starts_with(b"\\u000") || escape.starts_with(b"\\u001")
}

/// Whether the string around `at` is the value of a member `worker`.
fn is_worker_value(json: &[u8], at: usize) -> bool {
    let start = at.saturating_sub(LOOK_MAX);
    let Some(open) = json[start..at].iter().rposition(|byte| *byte == b'"').map(|open| start + open) else {
        return false;
    };
    let before = json[..open].trim_ascii_end();
    json.trim_ascii_start().starts_with(b"{")
        && before.ends_with(b"\"worker\":")
        && before.iter().filter(|byte| **byte == b'{').count() == 1
}

/// Replaces every secret and address in a text.
pub(super) fn scrub(text: &str, emails: Emails) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        if !TELLING[usize::from(bytes[at])] || !(bytes[at] == b'@' || may_tell(bytes, at)) {
            at += 1;
            continue;
        }
        let found = match bytes[at] {
            b'@' => (emails == Emails::Scrubbed).then(|| email(bytes, at)).flatten().map(|span| (span, EMAIL)),
            _ => secret(bytes, at).or_else(|| assignment(text, at)).map(|span| (span, REDACTED)),
        };
        let Some(((start, end), marker)) = found.filter(|((start, _), _)| *start >= copied) else {
            at += 1;
            continue;
        };
        out.push_str(&text[copied..start]);
        out.push_str(marker);
        (copied, at) = (end, end.max(at + 1));
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

type Span = (usize, usize);

/// Whether the bytes beside a telling one fit any word or form: most do not, and this is much cheaper than to look.
fn may_tell(bytes: &[u8], at: usize) -> bool {
    let lower = |byte: Option<&u8>| byte.map_or(0, |byte| byte | 0x20);
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    let (before, after) = (lower(before), lower(bytes.get(at + 1)));
    match bytes[at] | 0x20 {
        b'p' => matches!(after, b'a' | b'w'),
        b'k' => before == b'o' || matches!(after, b'e' | b'-' | 0x7f),
        b'c' => matches!(before, b'e' | b'o') || matches!(after, b'r' | b'a' | b'v'),
        b'u' => before == b'a' && after == b't',
        b'n' => before == b's' || (before == b'o' && matches!(after, b'i' | b'_' | b'-' | 0x7f)),
        b'b' => after == b'e',
        b'j' => before == b'y' || after == b'w',
        b'a' => matches!(after, b'k' | b's' | b'i'),
        b'w' => after == b'h',
        b'x' | b'h' => after == b'o',
        b'g' => matches!(after, b'h' | b'i' | b'l'),
        b's' => matches!(after, b'k' | b'g'),
        b':' => after == b'/',
        b'-' => after.is_ascii_digit() && before.is_ascii_digit(),
        _ => true,
    }
}

/// Whether a telling letter stands in a word that names secrets.
fn is_word(bytes: &[u8], at: usize) -> bool {
    let after = |word: &[u8]| starts_with_letters(&bytes[at..], word);
    let around = |back: usize, word: &[u8]| at >= back && starts_with_letters(&bytes[at - back..], word);
    match bytes[at].to_ascii_lowercase() {
        b'p' => after(b"pass") || after(b"pwd"),
        b'k' => around(2, b"token") || around(3, b"cookie") || (after(b"key") && follows_kind(&bytes[..at])),
        b'c' => {
            around(2, b"secret")
                || after(b"credential")
                || after(b"credit")
                || after(b"card")
                || after(b"cvv")
                || after(b"cvc")
                || around(2, b"social")
        }
        b'u' => around(1, b"auth"),
        b'n' => around(2, b"ssn") || around(6, b"sessionid"),
        b'j' => after(b"jwt"),
        _ => false,
    }
}

/// `api`, `access`, `private`, `secret`, `encryption` before `key`, with or without a separator.
fn follows_kind(before: &[u8]) -> bool {
    let letters = before.iter().rev().find(|byte| !b"_- .".contains(byte));
    letters.is_some_and(|last| matches!(last.to_ascii_lowercase(), b'i' | b's' | b'e' | b't' | b'n'))
}

/// Compares without regard to case; `word` is in lower case.
fn starts_with_letters(bytes: &[u8], word: &[u8]) -> bool {
    bytes.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

/// The value behind `password=`, `'secret': ` or `Authorization: ` when the telling letter at `at` is in the name.
fn assignment(text: &str, at: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    if !is_word(bytes, at) {
        return None;
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let back = bytes[..at].iter().rev().take(LOOK_MAX).take_while(|byte| is_name(byte)).count();
    let ahead = bytes[at..].iter().take(LOOK_MAX).take_while(|byte| is_name(byte)).count();
    let (start, end) = (at - back, at + ahead);
    if end == bytes.len() || back + ahead > LOOK_MAX {
        return None;
    }
    let name = &text[start..end];
    if !is_secret_key(name) {
        return None;
    }
    let is_quoted = matches!(bytes[end], b'"' | b'\'');
    let mut next = if is_quoted { end + 1 } else { end };
    let blank = |from: usize| from + bytes[from..].iter().take_while(|byte| **byte == b' ').count();
    next = blank(next);
    let is_header = || ["authorization", "cookie", "key"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    match bytes.get(next)? {
        b'=' if bytes.get(next + 1) != Some(&b'=') => {}
        // "invalid token: expected .." is prose; a dict's key is quoted and a header has its known name.
        b':' if is_quoted || is_header() => {}
        _ => return None,
    }
    next = blank(next + 1);
    if starts_with_marker(text[next..].trim_start_matches(['"', '\''])) {
        return None;
    }
    let span = value(bytes, next)?;
    (span.0 < span.1 && !is_literal(&text[span.0..span.1])).then_some(span)
}

fn starts_with_marker(text: &str) -> bool {
    [REDACTED, EMAIL, "[REDACTED]"].iter().any(|marker| text.starts_with(marker))
}

fn is_literal(value: &str) -> bool {
    matches!(value, "None" | "null")
}

/// A quoted value without its quotes, or a bare one up to where it must end.
fn value(bytes: &[u8], start: usize) -> Option<Span> {
    let quote = *bytes.get(start)?;
    if matches!(quote, b'"' | b'\'') {
        let mut at = start + 1;
        while at < bytes.len() && bytes[at] != quote {
            at += if bytes[at] == b'\\' && bytes.get(at + 1).is_some_and(u8::is_ascii) { 2 } else { 1 };
        }
        return Some((start + 1, at.min(bytes.len())));
    }
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",;&)]}\"'".contains(byte);
    let bare = |from: usize| from + bytes[from..].iter().position(is_end).unwrap_or(bytes.len() - from);
    let mut end = bare(start);
    let is_scheme =
        |word: &[u8]| [&b"bearer"[..], b"basic", b"token", b"digest"].iter().any(|s| word.eq_ignore_ascii_case(s));
    if is_scheme(&bytes[start..end]) && bytes.get(end) == Some(&b' ') {
        end = bare(end + 1);
    }
    Some((start, end))
}

/// The address around an `@`.
fn email(bytes: &[u8], at: usize) -> Option<Span> {
    let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte) || *byte >= 0x80;
    let start = bytes[..at].iter().rposition(|byte| !is_local(byte)).map_or(0, |before| before + 1);
    if start == at {
        return None;
    }
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    let run = bytes[at + 1..].iter().take_while(|byte| is_domain(byte)).count();
    let domain = &bytes[at + 1..at + 1 + run];
    let dots = (1..run).rev().filter(|place| domain[*place] == b'.');
    dots.map(|dot| (dot, domain[dot + 1..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count()))
        .find(|(_, letters)| *letters >= 2)
        .map(|(dot, letters)| (start, at + 1 + dot + 1 + letters))
}

/// A secret that shows by its own form, when `at` is its telling byte.
fn secret(bytes: &[u8], at: usize) -> Option<Span> {
    let rest = &bytes[at..];
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let whole = |prefix: &[u8], least: usize, is_part: &dyn Fn(&u8) -> bool| {
        let tail = rest.strip_prefix(prefix)?;
        let length = tail.iter().take_while(|byte| is_part(byte)).count();
        (length >= least && !is_inside_word(bytes, at)).then_some((at, at + prefix.len() + length))
    };
    let letters = |byte: &u8| byte.is_ascii_alphanumeric();
    match bytes[at] {
        b':' => credentials(bytes, at),
        b'-' => social_security(bytes, at),
        b'J' => jwt(bytes, at),
        b'b' | b'B' if starts_with_letters(rest, b"bearer ") => bearer(bytes, at),
        b'B' => pem(bytes, at),
        b'A' => {
            let upper = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            let key = |prefix| whole(prefix, 16, &upper);
            key(b"AKIA").or_else(|| key(b"ASIA")).or_else(|| whole(b"AIza", 35, &token))
        }
        b'k' => {
            let from = at.checked_sub(1).filter(|before| matches!(bytes[*before], b's' | b'p' | b'r'))?;
            let (prefix, least) = match rest {
                _ if rest.starts_with(b"k_live_") || rest.starts_with(b"k_test_") => (7, 16),
                _ if rest.starts_with(b"k-") && bytes[from] == b's' => (2, 20),
                _ => return None,
            };
            let length = rest[prefix..].iter().take_while(|byte| token(byte)).count();
            (length >= least && !is_inside_word(bytes, from)).then_some((from, at + prefix + length))
        }
        b'w' => whole(b"whsec_", 16, &letters),
        b'x' => [&b"xoxb-"[..], b"xoxp-", b"xoxa-", b"xoxr-", b"xoxs-"]
            .into_iter()
            .find_map(|prefix| whole(prefix, 10, &token)),
        b'g' => [&b"ghp_"[..], b"gho_", b"ghs_", b"ghu_", b"ghr_", b"github_pat_", b"glpat-"]
            .into_iter()
            .find_map(|prefix| whole(prefix, 20, &token)),
        b'h' => whole(b"hooks.slack.com/services/", 10, &|byte| letters(byte) || *byte == b'/'),
        b'S' => {
            let hex = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
            let twilio = whole(b"SK", 32, &hex).filter(|(start, end)| end - start == 34);
            twilio.or_else(|| whole(b"SG.", 60, &|byte| token(byte) || *byte == b'.'))
        }
        _ => None,
    }
}

/// Whether a match would begin in the middle of a word. A letter behind a backslash is an escape, in JSON and in
/// most texts that hold one, so a word begins after it.
fn is_inside_word(bytes: &[u8], start: usize) -> bool {
    match bytes[..start] {
        [.., b'\\', _] => false,
        [.., before] => before.is_ascii_alphanumeric(),
        [] => false,
    }
}

/// `user:password` of a URL, at the colon of `://`.
fn credentials(bytes: &[u8], at: usize) -> Option<Span> {
    let rest = bytes[at..].strip_prefix(b"://")?;
    let is_web = bytes[..at].ends_with(b"http") || bytes[..at].ends_with(b"https");
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'<>`@".contains(byte) || (is_web && *byte == b'/');
    let mut colons = 0;
    for (end, byte) in rest.iter().enumerate().take(4 * LOOK_MAX) {
        if is_end(byte) {
            return (*byte == b'@' && colons > 0).then_some((at + 3, at + 3 + end));
        }
        colons += usize::from(*byte == b':');
        if colons > CREDENTIAL_COLONS_MAX {
            return None;
        }
    }
    None
}

/// `123-45-6789`, at its first dash.
fn social_security(bytes: &[u8], at: usize) -> Option<Span> {
    let start = at.checked_sub(3)?;
    let number = bytes.get(start..at + 8)?;
    let is_shaped = number.iter().enumerate().all(|(place, byte)| match place {
        3 | 6 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let is_joined = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'_' | b'-'));
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric) || is_joined(byte);
    let before = start.checked_sub(1).and_then(|before| bytes.get(before));
    let is_free = !is_inside_word(bytes, start) && !is_joined(before) && !is_word(bytes.get(at + 8));
    (is_shaped && is_free).then_some((start, at + 8))
}

/// Three dotted segments that begin with `eyJ`, at the `J`.
fn jwt(bytes: &[u8], at: usize) -> Option<Span> {
    let start = at.checked_sub(2).filter(|start| bytes[*start..at] == *b"ey" && !is_inside_word(bytes, *start))?;
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut end = start;
    for segment in 0..3 {
        if segment > 0 {
            end = (bytes.get(end) == Some(&b'.')).then_some(end + 1)?;
        }
        let length = bytes[end..].iter().take_while(|byte| is_part(byte)).count();
        end = (length > 0).then_some(end + length)?;
    }
    Some((start, end))
}

/// The token behind `Bearer`, at the `B`.
fn bearer(bytes: &[u8], at: usize) -> Option<Span> {
    let start = at + 6 + bytes[at + 6..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-~+/=".contains(byte);
    let length = bytes[start..].iter().take_while(|byte| is_part(byte)).count();
    (length >= 16).then_some((start, start + length))
}

/// A private key from its BEGIN line to its END line or the end of the text, at the `B`.
fn pem(bytes: &[u8], at: usize) -> Option<Span> {
    let start = at.checked_sub(5).filter(|start| bytes[*start..at] == *b"-----")?;
    let rest = bytes[at..].strip_prefix(b"BEGIN ")?;
    let line = rest.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b' ').count();
    if !rest[..line].ends_with(b"PRIVATE KEY") {
        return None;
    }
    let end_line = b"PRIVATE KEY-----";
    let body = at + 6 + line;
    let end = bytes[body..].windows(end_line.len()).position(|window| window == end_line);
    Some((start, end.map_or(bytes.len(), |end| body + end + end_line.len())))
}
