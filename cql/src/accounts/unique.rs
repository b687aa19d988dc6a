//! Names that must be unique, claimed by conditional commits.
//!
//! A claim is made before the row it stands for, so a crash between the two leaves a claim without a row.
//! Whoever meets such a claim later may take it over once it is older than [`ORPHAN_AFTER_SECS`].

use bytes::{BufMut, Bytes, BytesMut};
use domain::time::Timestamp;

use super::ONLY;
use crate::store::{Commit, Committed, Key, Store, StoreError, Write};
use crate::table::Table;

/// A claim whose row did not appear within this time belongs to a writer that died.
const ORPHAN_AFTER_SECS: i64 = 60;
/// Attempts to settle a commit whose outcome is unknown or that raced.
const ATTEMPTS: usize = 8;

/// What a name is unique among. The tag is stored; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Slug = 1,
    Email = 2,
    AgentName = 3,
    Fingerprint = 4,
    Membership = 5,
}

/// The holder of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) owner: [u8; 16],
    pub(super) at: Timestamp,
}

impl Claim {
    fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(24);
        bytes.put_slice(&self.owner);
        bytes.put_i64(self.at.micros());
        bytes.freeze()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = StoreError::Corrupt { what: "uniqueness claim" };
        let Some((owner, at)) = bytes.split_first_chunk::<16>() else { return Err(corrupt) };
        let Ok(at) = <[u8; 8]>::try_from(at) else { return Err(corrupt) };
        Ok(Self { owner: *owner, at: Timestamp::from_micros(i64::from_be_bytes(at)) })
    }

    /// Whether the row that this claim announces must exist by now.
    pub(super) fn is_due(self, now: Timestamp) -> bool {
        now.since(self.at) > ORPHAN_AFTER_SECS * 1_000_000
    }
}

/// What an attempt to claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    Mine,
    /// Held by this claim.
    Held(Claim),
}

fn key(kind: Kind, scope: [u8; 16], name: &str) -> Key {
    let mut partition = BytesMut::with_capacity(17 + name.len());
    partition.put_u8(kind as u8);
    partition.put_slice(&scope);
    partition.put_slice(name.as_bytes());
    Key::new(Table::Unique, partition.freeze(), ONLY)
}

/// Who holds a name.
pub(super) async fn holder(
    store: &dyn Store,
    kind: Kind,
    scope: [u8; 16],
    name: &str,
) -> Result<Option<Claim>, StoreError> {
    store.get(&key(kind, scope, name)).await?.map(|bytes| Claim::decode(&bytes)).transpose()
}

/// Claims a free name. `follow` is written with the claim: atomically when embedded, right after it on CQL.
pub(super) async fn claim(
    store: &dyn Store,
    kind: Kind,
    scope: [u8; 16],
    name: &str,
    claim: Claim,
    follow: Vec<Write>,
) -> Result<Claimed, StoreError> {
    let key = key(kind, scope, name);
    let commit = Commit::insert(key.clone(), claim.encode()).following(follow);
    settle(store, &key, commit, claim).await
}

/// Takes a name over from a claim whose row never appeared.
pub(super) async fn take_over(
    store: &dyn Store,
    kind: Kind,
    scope: [u8; 16],
    name: &str,
    (from, to): (Claim, Claim),
    follow: Vec<Write>,
) -> Result<Claimed, StoreError> {
    let key = key(kind, scope, name);
    let commit = Commit::replace(key.clone(), from.encode(), to.encode()).following(follow);
    settle(store, &key, commit, to).await
}

/// Gives a name back if `owner` still holds it.
pub(super) async fn release(
    store: &dyn Store,
    kind: Kind,
    scope: [u8; 16],
    name: &str,
    owner: [u8; 16],
) -> Result<(), StoreError> {
    let key = key(kind, scope, name);
    for _ in 0..ATTEMPTS {
        let Some(bytes) = store.get(&key).await? else { return Ok(()) };
        if Claim::decode(&bytes)?.owner != owner {
            return Ok(());
        }
        match store.commit_one(Commit::remove(key.clone(), bytes)).await? {
            Committed::Done => return Ok(()),
            Committed::Lost(_) | Committed::Unknown => {}
        }
    }
    Err(undecided())
}

/// Repeats one conditional commit until it is certain: the same commit, so a repeat can only confirm.
async fn settle(store: &dyn Store, key: &Key, commit: Commit, mine: Claim) -> Result<Claimed, StoreError> {
    for _ in 0..ATTEMPTS {
        match store.commit_one(commit.clone()).await? {
            Committed::Done => return Ok(Claimed::Mine),
            Committed::Unknown => continue,
            Committed::Lost(_) => {}
        }
        // Released between the commit and this read: the next attempt decides.
        let Some(bytes) = store.get(key).await? else { continue };
        let found = Claim::decode(&bytes)?;
        if found != mine {
            return Ok(Claimed::Held(found));
        }
        // An earlier attempt of ours happened after all; what follows it may not have.
        if !commit.follow.is_empty() {
            store.write(commit.follow.clone()).await?;
        }
        return Ok(Claimed::Mine);
    }
    Err(undecided())
}

fn undecided() -> StoreError {
    StoreError::Unavailable("a uniqueness claim stayed undecided".into())
}
