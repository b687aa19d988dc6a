//! Memtables that are full, replaced, and those whose rows are in tables by now, freed where nobody waits for it.
//!
//! fjall asks its worker for another memtable with each commit to one that is full, in a bounded queue that only the
//! worker empties. While it merges tables the queue fills, and then it waits for ever: to write the one it replaced it puts a message
//! there itself. From then on memtables and journals grow without end. So they are replaced here, before fjall asks.
//!
//! fjall lets go of a memtable under the lock that every read and write of its keyspace takes, and to free the 64 MB of
//! rows in it takes 30 to 70 ms. With another reference held here that is a count that goes down; the last one is dropped
//! by a thread of its own. What is retired is being written to tables, so that thread looks after large files, too.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use fjall::{AbstractTree as _, Keyspace};

/// How often it is looked whether memtables are held by nobody else.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same while large files are written or freed.
const STEP_EVERY: Duration = Duration::from_millis(10);

type Memtable = Arc<dyn Any + Send + Sync>;

/// The memtables that are written to, one for each keyspace, as of the last look.
pub(super) struct Active {
    held: Vec<Held>,
    retired: Sender<Memtable>,
}

struct Held {
    keyspace: Keyspace,
    /// Bytes of rows after which a memtable is replaced.
    full: u64,
    memtable: Memtable,
}

impl Active {
    /// Of each keyspace, and the bytes after which its memtable is full.
    pub(super) fn new(keyspaces: impl IntoIterator<Item = (Keyspace, u64)>, retired: Sender<Memtable>) -> Self {
        let hold = |(keyspace, full): (Keyspace, u64)| {
            let memtable: Memtable = keyspace.tree.active_memtable();
            Held { keyspace, full, memtable }
        };
        Self { held: keyspaces.into_iter().map(hold).collect(), retired }
    }

    /// To be called after each commit, long before the memtable it filled can be in a table.
    pub(super) fn look(&mut self) -> fjall::Result<()> {
        for Held { keyspace, full, memtable } in &mut self.held {
            if keyspace.tree.active_memtable().size() > *full {
                keyspace.rotate_memtable()?;
            }
            let active: Memtable = keyspace.tree.active_memtable();
            if !Arc::ptr_eq(memtable, &active) {
                // Nobody there to free it elsewhere: then it is freed here.
                drop(self.retired.send(std::mem::replace(memtable, active)));
            }
        }
        Ok(())
    }

    /// Memtables of one keyspace that wait to be written to tables, of the keyspace that has most.
    pub(super) fn behind(&self) -> usize {
        self.held.iter().map(|held| held.keyspace.tree.sealed_memtable_count()).max().unwrap_or(0)
    }
}

/// Frees each memtable once nobody else holds it; all that are left when the sender is gone. Meanwhile it takes steps
/// with what is written of them and removed after that, often while `step` says that there are more.
pub(super) fn free(retired: &Receiver<Memtable>, mut step: impl FnMut() -> bool) {
    let mut waiting = Vec::new();
    let mut is_busy = false;
    loop {
        let next = if is_busy {
            retired.recv_timeout(STEP_EVERY)
        } else if waiting.is_empty() {
            retired.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            retired.recv_timeout(LOOK_EVERY)
        };
        match next {
            Ok(memtable) => waiting.push(memtable),
            Err(RecvTimeoutError::Timeout) => waiting.retain(|memtable| Arc::strong_count(memtable) > 1),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        is_busy = step();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use fjall::{Database, KeyspaceCreateOptions};

    use super::*;

    #[test]
    fn a_memtable_is_handed_over_once_another_one_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::builder(&folder).open().unwrap();
        let keyspace = db.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        let (retire, retired) = channel();
        let mut active = Active::new([(keyspace.clone(), u64::MAX)], retire);
        keyspace.insert("key", "value").unwrap();
        active.look().unwrap();
        assert!(retired.try_recv().is_err(), "it is written to");
        keyspace.rotate_memtable_and_wait().unwrap();
        active.look().unwrap();
        let memtable = retired.try_recv().unwrap();
        assert!(retired.try_recv().is_err());
        // fjall lets go of it with the next memtable.
        for _ in 0..3 {
            keyspace.insert("key", "value").unwrap();
            keyspace.rotate_memtable_and_wait().unwrap();
        }
        drop(active);
        assert_eq!(Arc::strong_count(&memtable), 1, "it would be freed by fjall");
    }

    /// Left to fjall, its worker waits for ever after some thousand of these.
    #[test]
    fn full_memtables_are_written_however_fast_they_are_filled() {
        const FULL: u64 = 4 << 10;
        let folder = tempfile::tempdir().unwrap();
        let db = Database::builder(&folder).worker_threads(1).open().unwrap();
        let options = || KeyspaceCreateOptions::default().max_memtable_size(2 * FULL);
        let keyspace = db.keyspace("rows", options).unwrap();
        let (retire, _retired) = channel();
        let mut active = Active::new([(keyspace.clone(), FULL)], retire);
        for number in 0..8_000_u32 {
            keyspace.insert(number.to_be_bytes(), [0; 100]).unwrap();
            active.look().unwrap();
        }
        let is_written = || keyspace.tree.sealed_memtable_count() == 0;
        for _ in 0..500 {
            if is_written() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(is_written() && keyspace.tree.active_memtable().size() <= FULL);
    }

    #[test]
    fn a_memtable_is_freed_when_nobody_else_holds_it() {
        let (retire, retired) = channel();
        let freeing = std::thread::spawn(move || free(&retired, || false));
        let read: Memtable = Arc::new([0_u8; 64]);
        let held = Arc::downgrade(&read);
        retire.send(Arc::clone(&read)).unwrap();
        std::thread::sleep(LOOK_EVERY * 3);
        assert_eq!(Arc::strong_count(&read), 2, "somebody reads it");
        drop(read);
        for _ in 0..100 {
            if held.upgrade().is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(held.upgrade().is_none());
        drop(retire);
        freeing.join().unwrap();
    }
}
