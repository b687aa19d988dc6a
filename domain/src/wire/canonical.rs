//! Canonical JSON: the bytes both sides sign.
//!
//! The agents sign what Python's `json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False,
//! allow_nan=False)` makes of a parsed frame, while the wire text comes from another serialiser (other member
//! order, other spelling of floats), so received bytes cannot be signed as they stand. One pass over the text
//! renders the canonical form without building a tree:
//!
//! - whatever already is canonical is copied in runs, as long as possible;
//! - each object notes its members with the first eight bytes of the key; an object whose keys arrive sorted
//!   costs nothing more, any other is put in order when it closes;
//! - the walk keeps its own stack, so that nesting is bounded by [`DEPTH_MAX`] and never by the thread's stack.
//!
//! A text that cannot be signed is refused wherever the fault stands, also inside a member that a later
//! duplicate replaces.

mod number;
mod text;
mod walk;

use walk::Walk;
pub(crate) use walk::{Member, Signable};

/// Nesting that is still read; Python's own parser gives up near 1 000.
pub const DEPTH_MAX: usize = 900;

/// The longest text that is read: the protocol's largest frame (67 108 864 bytes) and some room.
pub const SIZE_MAX: usize = 80 << 20;

/// Digits of the longest integer, as in Python.
pub const INTEGER_DIGITS_MAX: usize = 4300;

/// Buffers that a large document blew up are given back above this size.
const KEEP_MAX: usize = 1 << 20;

/// Why a text has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not UTF-8")]
    Utf8,
    #[error("not JSON at byte {at}")]
    Syntax { at: usize },
    #[error("raw control character at byte {at}")]
    Control { at: usize },
    #[error("lone surrogate at byte {at}")]
    Surrogate { at: usize },
    #[error("number without a finite value at byte {at}")]
    NotFinite { at: usize },
    #[error("integer of more than {INTEGER_DIGITS_MAX} digits at byte {at}")]
    IntegerTooLong { at: usize },
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("larger than {SIZE_MAX} bytes")]
    TooLarge,
    #[error("not a JSON object")]
    NotAnObject,
}

/// Renders documents canonically, one after another, reusing its buffers.
#[derive(Default)]
pub struct Canonicaliser {
    /// Canonical text, apart from the run that was read but not copied yet.
    out: Vec<u8>,
    /// Where an object's members are put in order.
    spare: Vec<u8>,
    /// Unescaped text of keys that hold escapes.
    keys: Vec<u8>,
    /// Members of all objects that are open.
    members: Vec<Member>,
    open: Vec<walk::Open>,
}

impl Canonicaliser {
    pub fn new() -> Self {
        Self::default()
    }

    /// The canonical bytes of one document.
    pub fn canonical(&mut self, json: &[u8]) -> Result<&[u8], Refusal> {
        let text = checked(json)?;
        self.clear();
        Walk::new(text, self).document()?;
        Ok(&self.out)
    }

    /// Reads a frame: its members are canonical, but still in wire order, so that the caller can overlay some.
    pub(crate) fn frame<'w>(&mut self, json: &'w [u8]) -> Result<Signable<'w, '_>, Refusal> {
        let text = checked(json)?;
        self.clear();
        Walk::new(text, self).frame()?;
        Ok(Signable::new(text, self))
    }

    fn clear(&mut self) {
        for buffer in [&mut self.out, &mut self.spare, &mut self.keys] {
            buffer.clear();
            buffer.shrink_to(KEEP_MAX);
        }
        self.members.clear();
        self.members.shrink_to(KEEP_MAX / size_of::<Member>());
        self.open.clear();
    }
}

/// The canonical bytes of one document, for callers that render few of them.
pub fn canonical(json: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut canonicaliser = Canonicaliser::new();
    canonicaliser.canonical(json)?;
    Ok(canonicaliser.out)
}

/// Appends a text as a canonical JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut at = 0;
    loop {
        let end = text::plain(text.as_bytes(), at);
        out.extend_from_slice(&text.as_bytes()[at..end]);
        let Some(character) = text[end..].chars().next() else { break };
        text::write(character, out);
        at = end + character.len_utf8();
    }
    out.push(b'"');
}

fn checked(json: &[u8]) -> Result<&str, Refusal> {
    if json.len() > SIZE_MAX {
        return Err(Refusal::TooLarge);
    }
    std::str::from_utf8(json).map_err(|_| Refusal::Utf8)
}

#[cfg(test)]
mod tests;
