//! How rows end: by their time to live, and rows of tasks by the time in their id.
//!
//! Readers never see a row past its time to live; this module gives its space back, in two ways:
//! - the compaction filter drops expired rows that a compaction meets, which is how tables with random keys
//!   are cleaned;
//! - the sweep removes expired rows of tables in time order, whose old parts no compaction ever meets again.
//!   It looks at the start of each project, removes in small groups through the writer, and stops at live rows.
//!
//! A shorter retention of tasks takes hold of rows written before it; a longer one does not bring back or
//! prolong what had a shorter time to live.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use fjall::Readable as _;
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};

use super::layout::{self, Header, Space};
use super::queue::{Job, Line, Queue, Work};
use super::unix_seconds;
use super::writer::{Spaces, unavailable};
use crate::store::Result;
use crate::table::Table;

/// Rows removed by one group of the sweep.
const SWEEP_ROWS: usize = 1000;
/// Live rows on end after which the sweep goes on to the next project.
const LIVE_ROWS: usize = 64;
/// Rest of the sweep when it found nothing left to remove.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Rows of tasks outlive the retention by an hour, and values with a removal inside the others by one more: tasks by id
/// wait as long.
const GRACE: Duration = Duration::from_secs(7200);

/// When a row has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Age at which rows of tasks end whatever their time to live; `None` leaves it to that.
    pub(super) tasks: Option<Duration>,
}

impl Retention {
    pub(super) fn is_expired(self, key: &[u8], stored: &[u8], now: u32) -> bool {
        let by_ttl = Header::read(stored).is_ok_and(|(header, _)| header.is_expired(now));
        by_ttl || self.is_aged(key, now)
    }

    /// Whether the id in a key of `Task` is older than tasks are kept: its first six bytes are milliseconds.
    fn is_aged(self, key: &[u8], now: u32) -> bool {
        let (Some(kept), Some(&tag)) = (self.tasks, key.first()) else { return false };
        let Some(millis) = layout::split_key(key).and_then(|(_, id)| id.first_chunk::<6>()) else { return false };
        let [a, b, c, d, e, f] = *millis;
        let received = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) / 1000;
        tag == Table::Task.tag() && received.saturating_add((kept + GRACE).as_secs()) <= now.into()
    }
}

/// Gives every compaction its filter.
impl Factory for Retention {
    fn name(&self) -> &str {
        "retention"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Filter { retention: *self, now: unix_seconds() })
    }
}

struct Filter {
    retention: Retention,
    now: u32,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let expired = self.retention.is_expired(item.key(), &item.value()?, self.now);
        // Not `Destroy`: an older version of the row may lie on a deeper level and must stay hidden.
        Ok(if expired { Verdict::Remove } else { Verdict::Keep })
    }
}

/// Removes expired rows of tables in time order, for as long as the queue is open.
pub(super) struct Sweep {
    pub(super) spaces: Spaces,
    pub(super) queue: Arc<Queue>,
    pub(super) retention: Retention,
}

impl Sweep {
    pub(super) fn run(self) {
        while self.queue.rest(SWEEP_EVERY) {
            for (table, lead) in Table::ALL.into_iter().filter_map(|table| Some((table, table.lead()?))) {
                match self.table(table, lead) {
                    Ok(removed) if removed > 0 => tracing::info!(?table, removed, "removed expired rows"),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, ?table, "cannot sweep");
                    }
                }
            }
        }
    }

    /// Walks one table, skipping to the next project at live rows; counts the removed.
    fn table(&self, table: Table, lead: usize) -> Result<usize> {
        let space = Space::of(table);
        let end = layout::successor(&[table.tag()]);
        let mut from = vec![table.tag()];
        let mut removed = 0;
        loop {
            let found = self.expired(space, &from, &end)?;
            removed += found.expired.len();
            if !found.expired.is_empty() && !self.remove(space, found.expired) {
                return Ok(removed);
            }
            from = match found.ended {
                Ended::Live(key) => skip(&key, lead),
                // On behind the removed: what a scan finds before them is only their tombstones.
                Ended::More(key) => [&key[..], &[0]].concat(),
                Ended::Table => return Ok(removed),
            };
        }
    }

    fn expired(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Found> {
        let now = unix_seconds();
        let mut found = Found { expired: Vec::new(), ended: Ended::Table };
        let mut live = 0;
        for guard in self.spaces.db.snapshot().range(self.spaces.of(space), from..end) {
            let (key, stored) = guard.into_inner().map_err(unavailable)?;
            let key = Bytes::from(key);
            if self.retention.is_expired(&key, &stored, now) {
                found.expired.push(key.clone());
                live = 0;
            } else {
                live += 1;
            }
            if live == LIVE_ROWS {
                found.ended = Ended::Live(key);
                break;
            }
            if found.expired.len() == SWEEP_ROWS {
                found.ended = Ended::More(key);
                break;
            }
        }
        Ok(found)
    }

    /// Has the writer remove the rows; false once the queue is closed.
    fn remove(&self, space: Space, keys: Vec<Bytes>) -> bool {
        let (reply, done) = sync_channel(1);
        let bytes = keys.iter().map(Bytes::len).sum();
        // Takes no room: one group at a time is bound enough.
        let job = Job { work: Work::Sweep { space, keys, reply }, bytes, room: None };
        self.queue.push(Line::Second, job).is_ok() && done.recv().is_ok()
    }
}

struct Found {
    expired: Vec<Bytes>,
    ended: Ended,
}

/// Where a look for expired rows ended, and at which key.
enum Ended {
    Live(Bytes),
    More(Bytes),
    Table,
}

/// The first key behind all that share the leading `lead` bytes of this key's partition.
fn skip(key: &[u8], lead: usize) -> Vec<u8> {
    let partition = layout::split_key(key).map_or(0, |(partition, _)| partition.len());
    let shared = (3 + lead.min(partition)).min(key.len());
    layout::successor(&key[..shared])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_ends_by_the_time_in_its_id() {
        let retention = Retention { tasks: Some(Duration::from_secs(86_400)) };
        let received = 1_776_340_800_u32;
        let mut id = (u64::from(received) * 1000).to_be_bytes()[2..].to_vec();
        id.extend_from_slice(&[0; 10]);
        let key = layout::key(Table::Task, b"project", &id).unwrap();
        assert!(!retention.is_expired(&key, &[0], received + 86_400 + 7199));
        assert!(retention.is_expired(&key, &[0], received + 86_400 + 7200));
        let other = layout::key(Table::TaskRoot, b"project", &id).unwrap();
        assert!(!retention.is_expired(&other, &[0], u32::MAX));
        assert!(!Retention { tasks: None }.is_expired(&key, &[0], u32::MAX));
    }

    #[tokio::test]
    async fn a_sweep_removes_expired_rows_of_every_project_and_no_others() {
        use super::super::{Fjall, FjallConfig};
        use crate::store::{Key, Store as _, Write};

        let folder = tempfile::tempdir().unwrap();
        let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
        let partition = |project: u8, day: u8| [&[project; 16][..], &[day]].concat();
        let (brief, long) = (std::num::NonZeroU32::new(1), std::num::NonZeroU32::new(3600));
        let mut writes = Vec::new();
        for project in 1..4 {
            for (day, ttl, rows) in [(1, brief, 1500_u16), (2, long, 200), (3, long, 5)] {
                let put = |n: u16| {
                    Write::put(Key::new(Table::Command, partition(project, day), n.to_be_bytes().to_vec()), "row")
                };
                writes.extend((0..rows).map(|n| put(n).with_ttl(ttl)));
            }
        }
        store.write(writes).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let inner = &store.inner;
        let (spaces, queue) = (inner.spaces.clone(), Arc::clone(&inner.queue));
        let sweep = Sweep { spaces, queue, retention: Retention { tasks: None } };
        let removed = tokio::task::spawn_blocking(move || {
            let table = |table| sweep.table(table, 16).unwrap();
            [table(Table::Command), table(Table::Command), table(Table::Stat)]
        });
        assert_eq!(removed.await.unwrap(), [4500, 0, 0]);
        let key = |day, n: u16| layout::key(Table::Command, &partition(2, day), &n.to_be_bytes()).unwrap();
        assert_eq!(inner.spaces.stored(Space::Rest, &key(1, 1499)).unwrap(), None);
        assert!(inner.spaces.stored(Space::Rest, &key(2, 0)).unwrap().is_some());
    }

    #[test]
    fn a_skip_passes_the_project() {
        let key = layout::key(Table::Command, b"PPPPPPPPPPPPPPPPdayx", b"id").unwrap();
        assert_eq!(skip(&key, 16), layout::successor(&key[..19]));
        assert_eq!(skip(&key, usize::MAX), layout::successor(&key[..23]));
    }
}
