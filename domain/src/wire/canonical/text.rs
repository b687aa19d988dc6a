//! Strings: plain runs found eight bytes at a time, escapes reduced to the few that canonical text has.

use super::Refusal;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The end of the run that needs no attention: up to a quote, a backslash, a control character or the end.
pub(super) fn plain(json: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = json[at..].first_chunk::<8>() {
        let stops = stops(u64::from_le_bytes(*chunk));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while json.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// The high bit of each byte that ends a plain run; bits above the lowest one may be false.
const fn stops(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

/// What an escape stands for, and whether canonical text spells it the same way.
pub(super) struct Escape {
    pub(super) end: usize,
    pub(super) character: char,
    pub(super) canonical: bool,
}

/// Reads the escape whose backslash stands at `from`.
pub(super) fn escape(json: &[u8], from: usize) -> Result<Escape, Refusal> {
    let short = |character, canonical| Ok(Escape { end: from + 2, character, canonical });
    match json.get(from + 1) {
        Some(b'"') => short('"', true),
        Some(b'\\') => short('\\', true),
        Some(b'n') => short('\n', true),
        Some(b'r') => short('\r', true),
        Some(b't') => short('\t', true),
        Some(b'b') => short('\u{8}', true),
        Some(b'f') => short('\u{c}', true),
        Some(b'/') => short('/', false),
        Some(b'u') => unicode(json, from),
        Some(_) | None => Err(Refusal::Syntax { at: from }),
    }
}

fn unicode(json: &[u8], from: usize) -> Result<Escape, Refusal> {
    let unit = hex4(json, from).ok_or(Refusal::Syntax { at: from })?;
    if let Some(character) = char::from_u32(unit) {
        return Ok(Escape { end: from + 6, character, canonical: false });
    }
    let low = if json.get(from + 6) == Some(&b'\\') && json.get(from + 7) == Some(&b'u') {
        hex4(json, from + 6).ok_or(Refusal::Syntax { at: from + 6 })?
    } else {
        0
    };
    if !(0xd800..0xdc00).contains(&unit) || !(0xdc00..0xe000).contains(&low) {
        return Err(Refusal::Surrogate { at: from });
    }
    let scalar = 0x1_0000 + ((unit - 0xd800) << 10 | (low - 0xdc00));
    let character = char::from_u32(scalar).ok_or(Refusal::Surrogate { at: from })?;
    Ok(Escape { end: from + 12, character, canonical: false })
}

/// The four hexadecimal digits of the `\u` escape at `from`.
fn hex4(json: &[u8], from: usize) -> Option<u32> {
    json.get(from + 2..from + 6)?.iter().try_fold(0, |unit, byte| Some(unit << 4 | char::from(*byte).to_digit(16)?))
}

/// Writes one character as canonical text spells it inside a string.
pub(super) fn write(character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\0'..'\u{20}' => {
            let code = character as u8;
            let digit = b"0123456789abcdef"[usize::from(code & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (code >> 4), digit]);
            return;
        }
        _ => return push(character, out),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends one character as UTF-8.
pub(super) fn push(character: char, out: &mut Vec<u8>) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends what the inside of a string, already read once, stands for.
pub(super) fn unescape(inside: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut at = 0;
    while at < inside.len() {
        let end = plain(inside, at);
        out.extend_from_slice(&inside[at..end]);
        at = end;
        if at < inside.len() {
            let escape = escape(inside, at)?;
            push(escape.character, out);
            at = escape.end;
        }
    }
    Ok(())
}
