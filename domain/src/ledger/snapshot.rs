//! A fold as bytes, to start from instead of the first entry (`ledger_head`).
//!
//! Byte 0x01 and MessagePack. Older idempotency keys are left out: whoever writes a head has written the
//! projections of every entry below it, keys among them.

use super::fold::{Fold, Parts};

const VERSION: u8 = 1;

/// Larger heads are not written: reading on from an older one is cheaper.
pub const BYTES_MAX: usize = 256 * 1024;

impl Fold {
    /// The fold as bytes; `None` if it is not worth writing.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write_named(&mut bytes, &self.parts()).ok()?;
        (bytes.len() <= BYTES_MAX).then_some(bytes)
    }

    /// Reads a snapshot; bytes of another version are no snapshot, and the fold starts at the first entry.
    pub fn from_snapshot(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, body) = bytes.split_first()? else { return None };
        Self::from_parts(rmp_serde::from_slice::<Parts>(body).ok()?)
    }
}
