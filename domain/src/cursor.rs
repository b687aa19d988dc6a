//! Authenticated page cursors (DESIGN R3, contract D4).
//!
//! `base64url(0x01 | kind | position (16) | first 8 of SHA-256(filter) | first 16 of HMAC-SHA256(key, all before))`,
//! without padding. A cursor that is malformed, tampered with, or used with another list or other filters is
//! refused: it never silently shows the first page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Which list a cursor pages through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CursorKind {
    Tasks = 1,
    Commands = 2,
    Events = 3,
    Audit = 4,
}

/// The cursor is not ours, not for this list, or not for these filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor")]
pub struct InvalidCursor;

/// The last row a page showed.
pub type Position = [u8; 16];

const VERSION: u8 = 1;
const HEAD: usize = 26;
const LENGTH: usize = HEAD + 16;

/// The cursor key of a project seals and opens its cursors.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl CursorKey {
    pub fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The opaque text that continues after `position`.
    pub fn seal(&self, kind: CursorKind, position: Position, filter: &[u8]) -> String {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION;
        bytes[1] = kind as u8;
        bytes[2..18].copy_from_slice(&position);
        bytes[18..HEAD].copy_from_slice(&Sha256::digest(filter)[..8]);
        let mac = self.mac(&bytes[..HEAD]);
        bytes[HEAD..].copy_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position of a cursor that was sealed with this key for the same list and filter.
    pub fn open(&self, text: &str, kind: CursorKind, filter: &[u8]) -> Result<Position, InvalidCursor> {
        let mut bytes = [0; LENGTH];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(LENGTH) => {}
            Ok(_) | Err(_) => return Err(InvalidCursor),
        }
        let genuine: bool = self.mac(&bytes[..HEAD]).ct_eq(&bytes[HEAD..]).into();
        let fits = bytes[0] == VERSION && bytes[1] == kind as u8 && bytes[18..HEAD] == Sha256::digest(filter)[..8];
        if !genuine || !fits {
            return Err(InvalidCursor);
        }
        let mut position = [0; 16];
        position.copy_from_slice(&bytes[2..18]);
        Ok(position)
    }

    fn mac(&self, head: &[u8]) -> [u8; 16] {
        let full = self.0.clone().chain_update(head).finalize().into_bytes();
        let mut mac = [0; 16];
        mac.copy_from_slice(&full[..16]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = [0x2a; 16];

    #[test]
    fn the_format_is_for_ever() {
        let key = CursorKey::new(&[7; 32]);
        let text = key.seal(CursorKind::Tasks, POSITION, b"state=1");
        assert_eq!(text, "AQEqKioqKioqKioqKioqKioqv4zhn8f43vR5kQ59WyDVomi28qlYD3SM");
        assert_eq!(key.open(&text, CursorKind::Tasks, b"state=1"), Ok(POSITION));
    }

    #[test]
    fn a_foreign_or_altered_cursor_is_refused() {
        let key = CursorKey::new(&[7; 32]);
        let text = key.seal(CursorKind::Tasks, POSITION, b"f");
        assert_eq!(key.open(&text, CursorKind::Commands, b"f"), Err(InvalidCursor));
        assert_eq!(key.open(&text, CursorKind::Tasks, b"g"), Err(InvalidCursor));
        assert_eq!(CursorKey::new(&[8; 32]).open(&text, CursorKind::Tasks, b"f"), Err(InvalidCursor));
        for place in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ASCII");
            assert_eq!(key.open(&altered, CursorKind::Tasks, b"f"), Err(InvalidCursor), "{altered}");
        }
        for bad in ["", "x", &text[1..], &format!("{text}="), &format!("{text}AAAA"), "\u{1F600}"] {
            assert_eq!(key.open(bad, CursorKind::Tasks, b"f"), Err(InvalidCursor), "{bad}");
        }
    }
}
