//! Keys that a reader found nowhere, so that the writer need not look for them again.
//!
//! A task's place is looked for by who hears of it, and then taken by a commit that expects nothing there. To find
//! nothing costs a search of every memtable and a filter of every table file, more of them the more tasks there are.
//!
//! Only the writer believes what stands here, and only between groups. A reader leaves its mark before it looks, and the
//! mark counts if it still stands when nothing was found; the writer wipes the marks of a group's keys after the
//! group is committed. So a mark that counts was set after the last commit of its key, and its reader saw that commit.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use dashmap::DashMap;

use crate::store::Result;
use crate::table::Table;

/// Marks set before all are wiped: of what was looked for and never written.
const MARKS_MAX: usize = 1 << 16;

/// The marks, by key.
#[derive(Default)]
pub(super) struct Absent {
    marks: DashMap<Bytes, Mark>,
    looks: AtomicU64,
    /// Marks set since all were wiped.
    set: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// A reader looks for the key; each look has a number of its own.
    Looking(u64),
    Nowhere,
}

impl Absent {
    /// Looks for a row in the tree by `read`.
    pub(super) fn look(&self, key: &Bytes, read: impl FnOnce() -> Result<Option<Bytes>>) -> Result<Option<Bytes>> {
        if !is_marked(key) {
            return read();
        }
        if self.set.fetch_add(1, Ordering::Relaxed) >= MARKS_MAX {
            self.set.store(0, Ordering::Relaxed);
            self.marks.clear();
        }
        let look = Mark::Looking(self.looks.fetch_add(1, Ordering::Relaxed));
        self.marks.insert(key.clone(), look);
        let found = read();
        if let Ok(None) = found {
            if let Some(mut mark) = self.marks.get_mut(key)
                && *mark == look
            {
                *mark = Mark::Nowhere;
            }
        } else {
            self.marks.remove_if(key, |_, mark| *mark == look);
        }
        found
    }

    /// Whether there certainly is no row. For the writer, while it commits nothing.
    pub(super) fn is_certain(&self, key: &Bytes) -> bool {
        is_marked(key) && self.marks.get(key).is_some_and(|mark| *mark == Mark::Nowhere)
    }

    /// The keys of a group that are to be wiped when it is committed.
    pub(super) fn concerned<'a>(keys: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
        keys.filter(|key| is_marked(key)).cloned().collect()
    }

    /// After a group: its rows may be there now.
    pub(super) fn wipe(&self, concerned: &[Bytes]) {
        for key in concerned {
            self.marks.remove(key);
        }
    }
}

fn is_marked(key: &[u8]) -> bool {
    key.first() == Some(&Table::TaskAt.tag())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Bytes {
        [&[Table::TaskAt.tag()], name.as_bytes()].concat().into()
    }

    fn a_row() -> Result<Option<Bytes>> {
        Ok(Some(Bytes::from_static(b"row")))
    }

    fn wiped(absent: &Absent, name: &str) {
        absent.wipe(&Absent::concerned([key(name)].iter()));
    }

    #[test]
    fn what_was_found_nowhere_is_certain_until_it_is_written() {
        let absent = Absent::default();
        assert!(!absent.is_certain(&key("a")), "nobody looked");
        assert!(absent.look(&key("a"), || Ok(None)).expect("read").is_none());
        assert!(absent.is_certain(&key("a")) && !absent.is_certain(&key("b")));
        wiped(&absent, "b");
        assert!(absent.is_certain(&key("a")));
        wiped(&absent, "a");
        assert!(!absent.is_certain(&key("a")));
        assert!(absent.look(&key("a"), a_row).expect("read").is_some());
        assert!(!absent.is_certain(&key("a")) && absent.marks.is_empty());
    }

    #[test]
    fn a_look_that_a_commit_overtook_makes_nothing_certain() {
        let absent = Absent::default();
        let found = absent.look(&key("a"), || {
            wiped(&absent, "a");
            Ok(None)
        });
        assert!(found.expect("read").is_none() && !absent.is_certain(&key("a")));
    }

    /// The later look may be from after the commit that the earlier one did not see.
    #[test]
    fn a_look_does_not_speak_for_another() {
        let absent = Absent::default();
        let outer = absent.look(&key("a"), || {
            wiped(&absent, "a");
            assert!(
                absent
                    .look(&key("a"), || {
                        assert!(!absent.is_certain(&key("a")), "nothing was found yet");
                        a_row()
                    })?
                    .is_some()
            );
            Ok(None)
        });
        assert!(outer.expect("read").is_none() && !absent.is_certain(&key("a")));
        let outer = absent.look(&key("b"), || {
            let inner = absent.look(&key("b"), || Ok(None))?;
            assert!(inner.is_none() && absent.is_certain(&key("b")));
            a_row()
        });
        assert!(outer.expect("read").is_some());
    }

    #[test]
    fn a_read_that_fails_makes_nothing_certain() {
        let absent = Absent::default();
        let failed = absent.look(&key("a"), || Err(crate::store::StoreError::Poisoned));
        assert!(failed.is_err() && !absent.is_certain(&key("a")) && absent.marks.is_empty());
    }

    #[test]
    fn only_places_of_tasks_are_marked_and_not_too_many() {
        let absent = Absent::default();
        let row: Bytes = [&[Table::Task.tag()], &b"a"[..]].concat().into();
        assert!(absent.look(&row, || Ok(None)).expect("read").is_none());
        assert!(!absent.is_certain(&row) && Absent::concerned([&row].into_iter()).is_empty());
        for number in 0..3 * MARKS_MAX {
            absent.look(&key(&number.to_string()), || Ok(None)).expect("read");
        }
        assert!(absent.marks.len() <= MARKS_MAX, "{}", absent.marks.len());
        assert!(absent.is_certain(&key(&(3 * MARKS_MAX - 1).to_string())));
    }
}
