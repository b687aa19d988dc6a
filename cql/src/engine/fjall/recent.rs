//! Rows that every request asks for, in memory: accounts, sessions, keys, agents. Many are read for one that is
//! written.
//!
//! A reader sees what the tree holds, never less. The writer takes the rows of a group out before it commits them, and
//! until they are committed nothing is put in; a reader puts in what it found only if no group began since before it
//! looked. So once a write is answered (a logout, a role, a revoked key), no row from before it is here, and none comes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::store::Result;
use crate::table::Table;

/// Bytes of keys and values put in before all are dropped and asked for anew.
const BYTES_MAX: usize = 4 << 20;

/// Whether rows of a table are kept.
const fn keeps(table: Table) -> bool {
    match table {
        Table::Project
        | Table::User
        | Table::Membership
        | Table::ApiKey
        | Table::WebSession
        | Table::Agent
        | Table::Secret
        | Table::Setting
        | Table::Unique => true,
        Table::Task
        | Table::TaskAt
        | Table::TaskRoot
        | Table::Segment
        | Table::Ledger
        | Table::LedgerHead
        | Table::Command
        | Table::CommandChunk
        | Table::Idem
        | Table::Stat
        | Table::DeadLetter
        | Table::Open
        | Table::Ownership
        | Table::Directory
        | Table::Node
        | Table::MembershipOfUser
        | Table::Worker
        | Table::Queue
        | Table::AgentWorker
        | Table::WebSessionOfUser
        | Table::AgentStatus
        | Table::TaskMark
        | Table::TaskOpen => false,
    }
}

/// By tag, for keys whose table is in their first byte.
const KEPT: [bool; 256] = {
    let mut kept = [false; 256];
    let mut place = 0;
    while place < Table::ALL.len() {
        kept[Table::ALL[place].tag() as usize] = keeps(Table::ALL[place]);
        place += 1;
    }
    kept
};

/// Stored values by key, headers included: a time to live is looked at with each read.
#[derive(Default)]
pub(super) struct Recent {
    rows: DashMap<Bytes, Bytes>,
    /// Grows when a group with rows of ours begins and when it has ended: odd in between.
    epoch: AtomicU64,
    /// Bytes put in since all were dropped; what was taken out counts on.
    bytes: AtomicUsize,
}

/// A group with rows of ours is being committed.
pub(super) struct Committing<'a>(Option<&'a Recent>);

impl Recent {
    /// The stored value of a row, from here or by `read` from the tree.
    pub(super) fn get(&self, key: &Bytes, read: impl FnOnce() -> Result<Option<Bytes>>) -> Result<Option<Bytes>> {
        if !is_kept(key) {
            return read();
        }
        // Before the tree is read, or a commit in between would go unseen.
        let epoch = self.epoch.load(Ordering::Acquire);
        if let Some(stored) = self.rows.get(key) {
            return Ok(Some(stored.clone()));
        }
        let stored = read()?;
        if let Some(stored) = &stored {
            self.put(epoch, key, stored);
        }
        Ok(stored)
    }

    /// The number of all rows that are kept as they are, `None` while some are being written.
    pub(super) fn version(&self) -> Option<u64> {
        Some(self.epoch.load(Ordering::Acquire)).filter(|epoch| epoch % 2 == 0)
    }

    fn put(&self, epoch: u64, key: &Bytes, stored: &Bytes) {
        let size = key.len() + stored.len();
        if epoch % 2 == 1 || size > BYTES_MAX / 64 {
            return;
        }
        // The entry is locked: the writer, who counts before it takes a row out, takes it out before us or after.
        if let Entry::Vacant(place) = self.rows.entry(key.clone())
            && self.epoch.load(Ordering::Acquire) == epoch
        {
            // A copy, for the tree's value may be a part of a whole block.
            place.insert(Bytes::copy_from_slice(stored));
        }
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > BYTES_MAX {
            self.bytes.store(0, Ordering::Relaxed);
            self.rows.clear();
        }
    }

    /// Takes rows out that are about to change. Until the answer is dropped none is put in. One writer at a time.
    pub(super) fn committing<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) -> Committing<'_> {
        let mut changing = None;
        for key in keys.filter(|key| is_kept(key)) {
            if changing.is_none() {
                self.epoch.fetch_add(1, Ordering::AcqRel);
                changing = Some(self);
            }
            self.rows.remove(key);
        }
        Committing(changing)
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        if let Some(recent) = self.0 {
            recent.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn is_kept(key: &[u8]) -> bool {
    key.first().is_some_and(|tag| KEPT[usize::from(*tag)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Bytes {
        [&[Table::User.tag()], name.as_bytes()].concat().into()
    }

    fn value(text: &'static str) -> Result<Option<Bytes>> {
        Ok(Some(Bytes::from_static(text.as_bytes())))
    }

    fn seen(recent: &Recent, key: &Bytes, tree: &'static str) -> Bytes {
        recent.get(key, || value(tree)).expect("read").expect("a row")
    }

    #[test]
    fn a_row_is_read_once_until_it_is_written() {
        let recent = Recent::default();
        assert_eq!(seen(&recent, &key("a"), "1"), "1");
        assert_eq!(seen(&recent, &key("a"), "not asked"), "1");
        drop(recent.committing([key("b"), key("a")].iter()));
        assert_eq!(seen(&recent, &key("a"), "2"), "2");
        assert!(recent.get(&key("c"), || Ok(None)).expect("read").is_none());
        assert_eq!(seen(&recent, &key("c"), "3"), "3", "that there is no row is not kept");
    }

    #[test]
    fn what_was_read_before_a_write_does_not_stay_after_it() {
        let recent = Recent::default();
        let read = recent.get(&key("a"), || {
            drop(recent.committing([key("a")].iter()));
            value("old")
        });
        assert_eq!(read.expect("read").expect("a row"), "old");
        assert_eq!(seen(&recent, &key("a"), "new"), "new");
    }

    #[test]
    fn while_a_row_is_written_nothing_is_put_in() {
        let recent = Recent::default();
        assert_eq!(seen(&recent, &key("a"), "1"), "1");
        let committing = recent.committing([key("a")].iter());
        assert_eq!(seen(&recent, &key("a"), "1"), "1");
        assert_eq!(seen(&recent, &key("a"), "2"), "2");
        drop(committing);
        assert_eq!(seen(&recent, &key("a"), "3"), "3");
    }

    #[test]
    fn rows_of_other_tables_are_neither_kept_nor_in_the_way() {
        let recent = Recent::default();
        let task: Bytes = [&[Table::Task.tag()], &b"a"[..]].concat().into();
        let committing = recent.committing([&task].into_iter());
        assert_eq!(seen(&recent, &key("a"), "1"), "1");
        drop(committing);
        assert_eq!(seen(&recent, &key("a"), "2"), "1");
        assert_eq!((seen(&recent, &task, "1"), seen(&recent, &task, "2")), ("1".into(), "2".into()));
    }

    #[test]
    fn a_version_ends_before_a_row_changes_and_the_next_begins_after_it() {
        let recent = Recent::default();
        let before = recent.version();
        let committing = recent.committing([key("a")].iter());
        assert_eq!(recent.version(), None);
        drop(committing);
        assert!(before.is_some() && recent.version().is_some() && recent.version() != before);
        let same = recent.version();
        drop(recent.committing([Bytes::from(vec![Table::Task.tag()])].iter()));
        assert_eq!(recent.version(), same);
    }

    #[test]
    fn it_stays_small() {
        let recent = Recent::default();
        let large = Bytes::from(vec![0; BYTES_MAX / 64 - 100]);
        for number in 0..1000 {
            recent.get(&key(&number.to_string()), || Ok(Some(large.clone()))).expect("read");
            assert!(recent.rows.len() <= 65, "{}", recent.rows.len());
        }
        assert!(recent.rows.len() > 1);
        let too_large = Bytes::from(vec![0; BYTES_MAX / 64]);
        recent.get(&key("large"), || Ok(Some(too_large))).expect("read");
        assert!(!recent.rows.contains_key(&key("large")));
    }
}
