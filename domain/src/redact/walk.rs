//! Scrubs a JSON text token by token; what is not replaced is copied byte for byte, numbers included.

use std::borrow::Cow;

use super::pattern::{self, Emails};
use super::{REDACTED, Shape, is_marker, is_secret_key};

/// Values nested deeper are dropped: no client reads them and many break on them.
const DEPTH_MAX: usize = 64;

/// An open object or array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Array,
    /// The next string is a member's name.
    Name,
    /// The next value is a member's.
    Value,
}

struct Walk<'a> {
    json: &'a str,
    /// Everything before it stands in `out`.
    copied: usize,
    out: String,
}

/// Scrubs a JSON text; what is a worker's name in its shape may look like an e-mail address.
pub(super) fn scrub(json: &str, shape: Shape) -> Cow<'_, str> {
    let mut walk = Walk { json, copied: 0, out: String::new() };
    walk.run(shape);
    if walk.copied == 0 {
        return Cow::Borrowed(json);
    }
    walk.out.push_str(&json[walk.copied..]);
    Cow::Owned(walk.out)
}

impl Walk<'_> {
    fn run(&mut self, shape: Shape) {
        let bytes = self.json.as_bytes();
        let mut stack: Vec<Open> = Vec::new();
        let (mut at, mut is_secret, mut is_worker) = (0, false, false);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'{' | b'[' if is_secret || stack.len() >= DEPTH_MAX => {
                    let end = value_end(bytes, at);
                    self.replace(at, end, REDACTED);
                    (at, is_secret) = (end, false);
                }
                b'{' => {
                    stack.push(Open::Name);
                    at += 1;
                }
                b'[' => {
                    stack.push(Open::Array);
                    at += 1;
                }
                b'}' | b']' => {
                    stack.pop();
                    at += 1;
                }
                b',' => {
                    (is_secret, is_worker) = (false, false);
                    if let Some(top) = stack.last_mut().filter(|top| **top == Open::Value) {
                        *top = Open::Name;
                    }
                    at += 1;
                }
                b'"' => {
                    let end = string_end(bytes, at);
                    if stack.last() == Some(&Open::Name) {
                        let name = decode(&self.json[at..end]);
                        is_secret = is_secret_key(&name);
                        is_worker = shape == Shape::Event && stack.len() == 1 && name == "worker";
                        let names_worker = shape == Shape::ByWorker && stack.len() == 1;
                        self.text(at, end, &name, if names_worker { Emails::Kept } else { Emails::Scrubbed });
                        if let Some(top) = stack.last_mut() {
                            *top = Open::Value;
                        }
                    } else {
                        let text = decode(&self.json[at..end]);
                        if !is_secret {
                            self.text(at, end, &text, if is_worker { Emails::Kept } else { Emails::Scrubbed });
                        } else if !text.is_empty() && !is_marker(&text) {
                            self.replace(at, end, REDACTED);
                        }
                    }
                    at = end;
                }
                b'-' | b'0'..=b'9' | b't' | b'f' if is_secret => {
                    let end = value_end(bytes, at);
                    self.replace(at, end, REDACTED);
                    at = end;
                }
                _ => at += 1,
            }
        }
    }

    fn text(&mut self, start: usize, end: usize, text: &str, emails: Emails) {
        if let Cow::Owned(clean) = pattern::scrub(text, emails) {
            self.replace(start, end, &clean);
        }
    }

    /// Puts a string in place of a value.
    fn replace(&mut self, start: usize, end: usize, text: &str) {
        self.out.push_str(&self.json[self.copied..start]);
        self.out.push_str(&serde_json::Value::from(text).to_string());
        self.copied = end;
    }
}

/// The text of a string token; one that cannot be decoded is looked at as it stands.
fn decode(token: &str) -> Cow<'_, str> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or("");
    if inner.contains('\\') {
        serde_json::from_str(token).map_or(Cow::Borrowed(inner), Cow::Owned)
    } else {
        Cow::Borrowed(inner)
    }
}

/// End of the string that starts at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// End of the value that starts at `at`, however deep.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}
