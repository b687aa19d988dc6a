//! Hashes and MACs of a ledger; where a chain breaks (DESIGN sections 6 and 10).
//!
//! `hash_0 = SHA-256("thalamus-ledger-1" || project)`, `hash_n = SHA-256(hash_{n-1} || entry_n)`: anyone with an
//! export recomputes it. `mac_n = HMAC-SHA256(K, hash_n)` shows edits by whoever lacks the project's ledger key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::entry::Entry;
use crate::id::ProjectId;

/// A point of a chain.
pub type Hash = [u8; 32];

/// Keys the MACs of one project's ledger; derived from the master secret, never an agent's secret.
#[derive(Clone)]
pub struct LedgerKey(Hmac<Sha256>);

impl std::fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerKey(..)")
    }
}

impl LedgerKey {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("an HMAC key may have any length"))
    }

    pub fn mac(&self, hash: &Hash) -> Hash {
        self.0.clone().chain_update(hash).finalize().into_bytes().into()
    }
}

/// An entry in its place: what is stored and exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub seq: u64,
    pub bytes: Vec<u8>,
    pub hash: Hash,
    pub mac: Hash,
}

/// How a stored entry contradicts the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The next entry is not there, but a later one is.
    Gap,
    /// The bytes are no entry.
    Unreadable,
    /// The entry says another number than its place.
    Misplaced,
    /// Two entries have this number.
    Doubled,
    /// The entry after it follows from the one before it.
    Inserted,
    /// The hash does not follow.
    Hash,
    /// The hash follows, but was not made with our key.
    Mac,
    /// The chain is whole, but shorter than what we know was written.
    Short,
    /// The chain is whole, but another entry was signed, or stands in another copy.
    Fork,
    /// What is shown of the entry is not what it says.
    Retold,
}

impl Fault {
    /// The word that answers name it by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Unreadable => "unreadable",
            Self::Misplaced => "misplaced",
            Self::Doubled => "doubled",
            Self::Inserted => "inserted",
            Self::Hash => "hash",
            Self::Mac => "mac",
            Self::Short => "short",
            Self::Fork => "fork",
            Self::Retold => "retold",
        }
    }
}

/// Where a chain breaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("the ledger's chain breaks at seq {seq}: {kind:?}")]
pub struct Broken {
    pub seq: u64,
    pub kind: Fault,
}

/// The hash before the first entry.
pub fn genesis(project: ProjectId) -> Hash {
    Sha256::new().chain_update(b"thalamus-ledger-1").chain_update(project.bytes()).finalize().into()
}

/// The hash after an entry.
pub fn link(before: &Hash, entry: &[u8]) -> Hash {
    Sha256::new().chain_update(before).chain_update(entry).finalize().into()
}

impl Sealed {
    /// Puts an entry behind `before`.
    pub fn new(entry: &Entry, before: &Hash, key: &LedgerKey) -> Self {
        let bytes = entry.encode();
        let hash = link(before, &bytes);
        Self { seq: entry.seq, mac: key.mac(&hash), bytes, hash }
    }

    /// Checks that this is entry `seq` behind `before`, and reads it. Without a key the MAC is not checked: an
    /// outsider has none.
    pub fn verify(&self, seq: u64, before: &Hash, key: Option<&LedgerKey>) -> Result<Entry, Broken> {
        self.follows(seq, before)?;
        self.read(key)
    }

    /// Checks that this stands at `seq` and follows from `before`.
    pub(super) fn follows(&self, seq: u64, before: &Hash) -> Result<(), Broken> {
        let broken = |kind| Broken { seq, kind };
        if self.seq != seq {
            return Err(broken(if self.seq > seq { Fault::Gap } else { Fault::Misplaced }));
        }
        if bool::from(link(before, &self.bytes).ct_eq(&self.hash)) { Ok(()) } else { Err(broken(Fault::Hash)) }
    }

    /// Checks that it was made with this key.
    pub(super) fn is_by(&self, key: &LedgerKey) -> Result<(), Broken> {
        let is_ours = bool::from(key.mac(&self.hash).ct_eq(&self.mac));
        if is_ours { Ok(()) } else { Err(Broken { seq: self.seq, kind: Fault::Mac }) }
    }

    /// Reads it without knowing what stands before it.
    pub fn read(&self, key: Option<&LedgerKey>) -> Result<Entry, Broken> {
        let broken = |kind| Broken { seq: self.seq, kind };
        key.map_or(Ok(()), |key| self.is_by(key))?;
        let entry = Entry::decode(&self.bytes).map_err(|_| broken(Fault::Unreadable))?;
        if entry.seq != self.seq { Err(broken(Fault::Misplaced)) } else { Ok(entry) }
    }
}

#[cfg(test)]
mod tests;
