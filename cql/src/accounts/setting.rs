//! Facts about the whole installation.

use domain::time::Timestamp;

use super::unique::{self, Claim, Claimed, Kind};
use crate::store::{Store, StoreError};

/// Stores the fingerprint of the master secret, or compares it with the one the first node stored.
/// False means this node's secret is another one: nothing it signs or hashes would fit.
pub async fn agree_on_fingerprint(
    store: &dyn Store,
    fingerprint: [u8; 16],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mine = Claim { owner: fingerprint, at: now };
    match unique::claim(store, Kind::Fingerprint, [0; 16], "master-secret", mine, Vec::new()).await? {
        Claimed::Mine => Ok(true),
        Claimed::Held(first) => Ok(first.owner == fingerprint),
    }
}
