//! Generated documents: what agents send, what they never should, and what is not JSON at all.

use std::fmt::Write;

/// Small, seeded, the same on every machine (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// An endless series of documents.
pub(crate) struct Documents(Random);

impl Documents {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random(seed))
    }
}

impl Iterator for Documents {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let random = &mut self.0;
        let mut text = String::new();
        space(random, &mut text);
        value(random, &mut text, 0);
        space(random, &mut text);
        let mut bytes = text.into_bytes();
        if random.once_in(5) {
            corrupt(random, &mut bytes);
        }
        Some(bytes)
    }
}

fn value(random: &mut Random, text: &mut String, depth: usize) {
    match random.below(if depth > 4 { 10 } else { 16 }) {
        0 => text.push_str(random.pick(&["null", "true", "false"])),
        1..=3 => float(random, text),
        4..=5 => integer(random, text),
        6..=8 => string(random, text),
        9 => text.push_str(random.pick(&EDGES)),
        10..=12 => list(random, text, depth),
        _ => object(random, text, depth),
    }
}

/// Tokens on which implementations part ways.
const EDGES: [&str; 40] = [
    "-0",
    "-0.0",
    "0e0",
    "-0E-0",
    "0.0e999999999999999999999",
    "1e5",
    "1E+5",
    "1e15",
    "1e16",
    "999999999999999.9",
    "9999999999999998.0",
    "1e-4",
    "0.00001",
    "0.000099999999999999999",
    "1e22",
    "1e23",
    "5e-324",
    "2.4703282292062327e-324",
    "2.4703282292062328e-324",
    "2.2250738585072014e-308",
    "2.2250738585072011e-308",
    "1.7976931348623157e308",
    "1.7976931348623158e308",
    "1.7976931348623159e308",
    "123456789.123456789",
    "9007199254740993",
    "9007199254740993.0",
    "18446744073709551616",
    "1180591620717411303424",
    "0.1",
    "0.30000000000000004",
    "1e-99999999999999999999",
    "\"\"",
    "[]",
    "{}",
    "[[[[[[[[]]]]]]]]",
    // Refused ones are rare, or hardly a document would be left.
    "9.5e-7",
    "4.35",
    "1e1",
    "100000000000000000000000.0",
];

const REFUSED: [&str; 14] =
    ["1e400", "-1e309", "NaN", "Infinity", "-Infinity", "01", "-", "1.", ".5", "1e", "+1", "0x10", "nul", "'a'"];

fn float(random: &mut Random, text: &mut String) {
    let value = f64::from_bits(random.next());
    let value = if value.is_finite() { value } else { 0.5 };
    let written = match random.below(5) {
        0 => write!(text, "{value:e}"),
        1 => write!(text, "{value:E}"),
        // As some serialisers print: all digits, no exponent.
        2 => write!(text, "{:.1}", value % 1e20),
        // More digits than a double holds.
        3 => write!(text, "{value:.25e}"),
        _ => {
            let (whole, digits) = (random.next() % 100_000, random.below(12) + 1);
            write!(text, "{whole}.{:0digits$}", random.next() % 10_u64.pow(digits as u32))
        }
    };
    written.expect("a string takes any text");
}

fn integer(random: &mut Random, text: &mut String) {
    if random.once_in(2) {
        text.push('-');
    }
    let digits = match random.below(40) {
        0 => 4290 + random.below(20),
        1..=10 => 1 + random.below(60),
        _ => 1 + random.below(19),
    };
    text.push(char::from(b'1' + random.below(9) as u8));
    text.extend((1..digits).map(|_| char::from(b'0' + random.below(10) as u8)));
}

fn string(random: &mut Random, text: &mut String) {
    text.push('"');
    for _ in 0..random.below(14) {
        match random.below(12) {
            0..=4 => text.push_str(random.pick(&["a", "Z", "0", " ", "/", "~", "key", "plain text of some length"])),
            5 => text.push_str(random.pick(&[r"\n", r"\r", r"\t", r"\b", r"\f", r"\\", r#"\""#, r"\/"])),
            6 => text.push_str(random.pick(&[
                "\u{7f}",
                "\u{80}",
                "é",
                "\u{2028}",
                "\u{ffff}",
                "\u{1f600}",
                "漢",
                "\u{10ffff}",
            ])),
            7 => text.push(
                char::from_u32(random.below(0xd800) as u32 + 0x20).filter(|c| !"\"\\".contains(*c)).unwrap_or('x'),
            ),
            8..=9 => {
                let unit = [random.below(0x30), random.below(0xd800), 0xe000 + random.below(0x2000)][random.below(3)];
                let written =
                    if random.once_in(2) { write!(text, "\\u{unit:04x}") } else { write!(text, "\\u{unit:04X}") };
                written.expect("a string takes any text");
            }
            10 => {
                let (high, low) = (0xd800 + random.below(0x400), 0xdc00 + random.below(0x400));
                write!(text, "\\u{high:04x}\\u{low:04X}").expect("a string takes any text");
            }
            _ if random.once_in(40) => text.push_str(random.pick(&[
                r"\ud800",
                r"\udc00",
                r"\ud800\ud800",
                r"\udbffx",
                r"\ud83d\n",
                r"\u12",
                r"\uD83D\u00e9",
                r"\x",
                "\n",
                "\0",
                "\u{1f}",
            ])),
            _ => text.push_str("0123456789abcdef"),
        }
    }
    text.push('"');
}

fn list(random: &mut Random, text: &mut String, depth: usize) {
    text.push('[');
    space(random, text);
    for place in 0..random.below(5) {
        separate(random, text, place, ',');
        value(random, text, depth + 1);
        space(random, text);
    }
    if random.once_in(150) {
        separate(random, text, 1, ',');
        text.push_str(random.pick(&REFUSED));
    }
    text.push(']');
}

fn object(random: &mut Random, text: &mut String, depth: usize) {
    text.push('{');
    space(random, text);
    for place in 0..random.below(8) {
        separate(random, text, place, ',');
        match random.below(4) {
            0 => string(random, text),
            // Few and similar keys, so that some come twice and many share their first eight bytes.
            _ => text.push_str(random.pick(&[
                r#""a""#,
                r#""b""#,
                r#""\u0061""#,
                r#""aa""#,
                r#""aaaaaaaa""#,
                r#""aaaaaaaab""#,
                r#""aaaaaaaaa""#,
                r#""a\u0000""#,
                r#""""#,
                r#""\"""#,
                "\"\u{ffff}\"",
                "\"\u{1f600}\"",
                r#""worker_details""#,
                r#""worker""#,
            ])),
        }
        space(random, text);
        separate(random, text, 1, ':');
        value(random, text, depth + 1);
        space(random, text);
    }
    text.push('}');
}

fn separate(random: &mut Random, text: &mut String, place: usize, separator: char) {
    if place > 0 {
        text.push(separator);
        space(random, text);
    }
}

fn space(random: &mut Random, text: &mut String) {
    if random.once_in(6) {
        text.push_str(random.pick(&[" ", "\n", "\t", "\r\n", "  \t "]));
    }
}

/// Breaks a document, or only looks like it.
fn corrupt(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => {
            bytes.remove(at);
        }
        2 => bytes.insert(at, random.next() as u8),
        3 => bytes[at] ^= 1 << random.below(8),
        4 => bytes.insert(
            at,
            *random.pick(&[b"\"", b"\\", b",", b":", b"[", b"}", b"0", b"e", b"."]).first().expect("one byte"),
        ),
        _ => {
            let copy: Vec<u8> = bytes[at..].iter().copied().take(8).collect();
            bytes.extend_from_slice(&copy);
        }
    }
}
