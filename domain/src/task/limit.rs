//! Bounds on what one task may weigh, and how a body that is too large is cut (DESIGN section 2).

use std::borrow::Cow;

use super::body::Body;

/// One body, in bytes of JSON.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// All bodies of one task.
pub(super) const BODIES_BYTES_MAX: usize = 256 * 1024;
/// Reports of one task that keep their body.
pub(super) const BODIES_MAX: usize = 64;
/// Reports of one task.
pub(super) const REPORTS_MAX: usize = 1_000;

/// What stands in place of a value that did not fit.
const DROPPED: &str = r#""[value too large, dropped]""#;

/// Cuts the strings of a JSON text until it fits; the result is a function of the text alone.
pub(super) fn shorten(json: &str, bytes_max: usize) -> Cow<'_, str> {
    if json.len() <= bytes_max {
        return Cow::Borrowed(json);
    }
    for string_max in [16 * 1024, 4 * 1024, 1024, 256] {
        let cut = cut_strings(json, string_max);
        if cut.len() <= bytes_max {
            return Cow::Owned(cut);
        }
    }
    Cow::Owned(outline(json, bytes_max))
}

/// Cuts every string token longer than `string_max` bytes and marks the cut.
fn cut_strings(json: &str, string_max: usize) -> String {
    let mut out = String::with_capacity(json.len() / 2);
    let mut rest = json;
    while let Some(open) = rest.find('"') {
        let token_end = open + string_end(&rest[open..]);
        let (before, token) = (&rest[..open], &rest[open..token_end]);
        out.push_str(before);
        if token.len() <= string_max {
            out.push_str(token);
        } else {
            let kept = boundary(token, string_max);
            out.push_str(&token[..kept]);
            out.push_str(&format!("[...{} more bytes truncated]\"", token.len() - 1 - kept));
        }
        rest = &rest[token_end..];
    }
    out.push_str(rest);
    out
}

/// Length of the string token that a text starts with, quotes included.
fn string_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The last place at or before `limit` where a string token may be cut: not within an escape or a character.
fn boundary(token: &str, limit: usize) -> usize {
    let bytes = token.as_bytes();
    let (mut at, mut last) = (1, 1);
    while at <= limit {
        last = at;
        at += match (bytes[at], bytes.get(at + 1)) {
            // A pair of surrogates is two escapes; both halves or none.
            (b'\\', Some(b'u'))
                if matches!(
                    bytes.get(at + 2..at + 4),
                    Some([b'd' | b'D', b'8'..=b'9' | b'a' | b'b' | b'A' | b'B'])
                ) =>
            {
                12
            }
            (b'\\', Some(b'u')) => 6,
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    while !token.is_char_boundary(last) {
        last -= 1;
    }
    last
}

/// Only the members that rows are made of, large ones dropped: what is left of a body that is one huge
/// structure rather than long strings.
fn outline(json: &str, bytes_max: usize) -> String {
    let mut out = String::from("{");
    for (member, raw) in Body::read(json).members() {
        let kept = if raw.len() <= bytes_max / 20 { raw } else { DROPPED };
        out.push_str(&format!("\"{}\":{kept},", member.name()));
    }
    out.push_str("\"truncated\":true}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_are_cut_and_marked_and_the_rest_stands() {
        let long = "é\n".repeat(30_000);
        let json = serde_json::json!({"task_name": "t", "result": long, "args": [1.0, "x"]}).to_string();
        let cut = shorten(&json, BODY_BYTES_MAX);
        assert!(cut.len() <= BODY_BYTES_MAX);
        let value: serde_json::Value = serde_json::from_str(&cut).unwrap();
        assert_eq!(value["task_name"], "t");
        assert_eq!(value["args"], serde_json::json!([1.0, "x"]));
        let result = value["result"].as_str().unwrap();
        assert!(result.ends_with(" more bytes truncated]") && result.starts_with("é\né\n"));
        assert!(matches!(shorten("{}", 2), Cow::Borrowed("{}")));
    }

    #[test]
    fn escapes_and_surrogate_pairs_are_never_halved() {
        for limit in 1..60 {
            let json = format!("\"{}\"", "a\\u00e9\\\\\\ud83d\\ude00\\\"é😀".repeat(4));
            let cut = cut_strings(&json, limit);
            assert!(serde_json::from_str::<String>(&cut).is_ok(), "{limit}: {cut}");
        }
    }

    #[test]
    fn one_huge_structure_keeps_its_names() {
        let json = format!(r#"{{"task_name":"t","worker":"w","args":[{}1]}}"#, "1,".repeat(60_000));
        let cut = shorten(&json, BODY_BYTES_MAX);
        assert_eq!(cut, r#"{"task_name":"t","worker":"w","args":"[value too large, dropped]","truncated":true}"#);
    }
}
