//! A row of a sheet as XML.
//!
//! Texts stand in their cells and not in a table of shared ones, which could only be written once all are known.

use std::borrow::Cow;

use domain::time::Timestamp;

use super::Cell;

/// Longest text a cell may hold, in UTF-16 units as the format counts.
pub(super) const UNITS_MAX: usize = 32_767;
/// The day 1970-01-01 in a spreadsheet's count.
const EPOCH_DAY: f64 = 25_569.0;
/// Places of cell formats in the workbook's styles.
pub(super) const HEADER_STYLE: &str = " s=\"1\"";
const TIME_STYLE: &str = " s=\"2\"";
const NO_STYLE: &str = "";

/// The columns of a sheet by their letters: `A`, `B`, .. `Z`, `AA`.
pub(super) fn letters(place: usize) -> String {
    let last = char::from(b'A' + (place % 26) as u8);
    match place / 26 {
        0 => last.to_string(),
        before => letters(before - 1) + &last.to_string(),
    }
}

/// Writes one row; an empty cell leaves its place out.
pub(super) fn row<'a>(out: &mut Vec<u8>, number: u32, columns: &[String], cells: impl Iterator<Item = Cell<'a>>) {
    let mut digits = itoa::Buffer::new();
    let number = digits.format(number);
    out.extend_from_slice(b"<row r=\"");
    out.extend_from_slice(number.as_bytes());
    out.extend_from_slice(b"\">");
    for (column, cell) in columns.iter().zip(cells) {
        match cell {
            Cell::Empty => {}
            Cell::Number(value) => numeric(out, (column, number), NO_STYLE, value),
            Cell::Time(at) => numeric(out, (column, number), TIME_STYLE, serial(at)),
            Cell::Text(value) => text(out, (column, number), NO_STYLE, &value),
        }
    }
    out.extend_from_slice(b"</row>");
}

/// Writes the row of the columns' names.
pub(super) fn header(out: &mut Vec<u8>, columns: &[String], names: impl Iterator<Item = &'static str>) {
    out.extend_from_slice(b"<row r=\"1\">");
    for (column, name) in columns.iter().zip(names) {
        text(out, (column, "1"), HEADER_STYLE, name);
    }
    out.extend_from_slice(b"</row>");
}

fn open(out: &mut Vec<u8>, (column, number): (&str, &str), style: &str) {
    for part in ["<c r=\"", column, number, "\"", style] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn numeric(out: &mut Vec<u8>, place: (&str, &str), style: &str, value: f64) {
    // The format has no word for what is no number.
    if !value.is_finite() {
        return;
    }
    open(out, place, style);
    out.extend_from_slice(b"><v>");
    match domain::number::whole(value) {
        Some(whole) => out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes()),
        None => out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes()),
    }
    out.extend_from_slice(b"</v></c>");
}

fn text(out: &mut Vec<u8>, place: (&str, &str), style: &str, value: &str) {
    let value = &*cut(value);
    let is_blank = |byte: &u8| matches!(byte, b'\t' | b'\n' | b' ');
    let is_padded = value.as_bytes().first().is_some_and(is_blank) || value.as_bytes().last().is_some_and(is_blank);
    open(out, place, style);
    out.extend_from_slice(b" t=\"inlineStr\"><is><t");
    out.extend_from_slice(if is_padded { b" xml:space=\"preserve\">" } else { b">" });
    escape(out, value);
    out.extend_from_slice(b"</t></is></c>");
}

/// Days of a spreadsheet, UTC; it keeps milliseconds.
fn serial(at: Timestamp) -> f64 {
    at.millis() as f64 / 86_400_000.0 + EPOCH_DAY
}

/// What fits into a cell, with a mark where it ends too early.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= UNITS_MAX || text.encode_utf16().count() <= UNITS_MAX {
        return Cow::Borrowed(text);
    }
    let mut units = 0;
    let end = text.char_indices().find_map(|(at, character)| {
        units += character.len_utf16();
        (units >= UNITS_MAX).then_some(at)
    });
    Cow::Owned(format!("{}…", &text[..end.unwrap_or(text.len())]))
}

/// Writes a text so that a spreadsheet reads it back: markup as entities, and as `_xHHHH_` the characters that XML
/// cannot hold, and the underscore of a text that already looks like that.
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let (length, instead): (usize, Cow<'static, [u8]>) = match byte {
            b'&' => (1, Cow::Borrowed(b"&amp;")),
            b'<' => (1, Cow::Borrowed(b"&lt;")),
            b'>' => (1, Cow::Borrowed(b"&gt;")),
            b'\t' | b'\n' => continue,
            0..=0x1f => (1, Cow::Owned(format!("_x{byte:04X}_").into_bytes())),
            b'_' if is_escape(&bytes[at..]) => (1, Cow::Borrowed(b"_x005F_")),
            0xef if bytes[at..].starts_with("\u{fffe}".as_bytes()) => (3, Cow::Borrowed(b"_xFFFE_")),
            0xef if bytes[at..].starts_with("\u{ffff}".as_bytes()) => (3, Cow::Borrowed(b"_xFFFF_")),
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        out.extend_from_slice(&instead);
        written = at + length;
    }
    out.extend_from_slice(&bytes[written..]);
}

fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'_', b'x', digits @ .., ] if digits.len() >= 5
        && digits[..4].iter().all(u8::is_ascii_hexdigit) && digits[4] == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cell: Cell<'_>) -> String {
        let mut out = Vec::new();
        row(&mut out, 7, &["B".to_owned()], [cell].into_iter());
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("<row r=\"7\">").and_then(|rest| rest.strip_suffix("</row>")).unwrap().to_owned()
    }

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_named_as_in_a_spreadsheet() {
        for (place, name) in [(0, "A"), (25, "Z"), (26, "AA"), (51, "AZ"), (52, "BA"), (701, "ZZ"), (702, "AAA")] {
            assert_eq!(letters(place), name);
        }
    }

    #[test]
    fn a_number_is_a_number_and_a_time_one_with_a_style() {
        assert_eq!(written(Cell::Number(1234.0)), "<c r=\"B7\"><v>1234</v></c>");
        assert_eq!(written(Cell::Number(-0.125)), "<c r=\"B7\"><v>-0.125</v></c>");
        assert_eq!(written(Cell::Number(f64::NAN)), "");
        assert_eq!(written(Cell::Empty), "");
        let noon = Timestamp::parse("2026-04-16T12:00:00.123456Z").unwrap();
        assert_eq!(written(Cell::Time(noon)), "<c r=\"B7\" s=\"2\"><v>46128.500001423614</v></c>");
    }

    #[test]
    fn a_text_stands_in_its_cell() {
        let text = |text: &str| written(Cell::Text(Cow::Owned(text.to_owned())));
        assert_eq!(text("=1+1"), "<c r=\"B7\" t=\"inlineStr\"><is><t>=1+1</t></is></c>");
        for padded in [" a", "a\n", "\ta"] {
            let expected = format!("<c r=\"B7\" t=\"inlineStr\"><is><t xml:space=\"preserve\">{padded}</t></is></c>");
            assert_eq!(text(padded), expected);
        }
    }

    #[test]
    fn what_xml_cannot_hold_is_written_otherwise() {
        for (text, expected) in [
            ("a<b>&\"c\"'", "a&lt;b&gt;&amp;\"c\"'"),
            ("\u{0}\u{8}\t\n\u{b}\r\u{1f}", "_x0000__x0008_\t\n_x000B__x000D__x001F_"),
            ("ä\u{fffe}ö\u{ffff}\u{fffd}€🎉\u{7f}", "ä_xFFFE_ö_xFFFF_\u{fffd}€🎉\u{7f}"),
            ("_x0041_ _x00g1_ _x0041 __x1aBc_", "_x005F_x0041_ _x00g1_ _x0041 __x005F_x1aBc_"),
            ("_x004ä_ _x", "_x004ä_ _x"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn a_text_is_cut_where_the_format_ends() {
        let whole = "x".repeat(UNITS_MAX);
        assert_eq!(cut(&whole), whole);
        assert_eq!(cut(&(whole.clone() + "y")), "x".repeat(UNITS_MAX - 1) + "…");
        let pairs = "🎉".repeat(UNITS_MAX);
        let cut = cut(&pairs);
        assert_eq!(cut.encode_utf16().count(), UNITS_MAX, "no pair is parted");
        assert!(cut.ends_with("🎉…"));
        let three = "€".repeat(UNITS_MAX);
        assert_eq!(super::cut(&three), three, "bytes do not count");
    }
}
