//! The one thread that writes. It takes whatever queued while the last group synced, checks guards against
//! the rows on disk and those staged by the group so far, and makes the whole group durable with one sync.
//!
//! Callers encode their rows before they queue, so while a group syncs the next one is already bytes, and the
//! thread itself only merges. A failed sync poisons the database: nobody can say what is on disk, so every
//! answer from then on is `Poisoned` and the process has to start again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode};
use tokio::sync::watch;
use tokio::time::Instant;

use super::absent::Absent;
use super::layout::{self, Encoded, Space};
use super::queue::{EncodedCommit, Job, Queue, Work};
use super::recent::Recent;
use super::retention::Retention;
use super::retired::Active;
use super::unix_seconds;
use crate::store::{Committed, Expect, Result, Row, StoreError};

/// A group ends when it has so many bytes: beyond this a longer group gains nothing and delays the first.
const GROUP_BYTES: usize = 4 << 20;
/// Free space is asked for at most this often, unless much was written meanwhile.
/// Others may fill it too: what they take between two looks is written over, half-way, and poisons the database.
const FREE_EVERY: Duration = Duration::from_millis(20);
const FREE_AFTER_BYTES: u64 = 16 << 20;
/// The longest pause between two groups.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The database and its keyspaces.
#[derive(Clone)]
pub(super) struct Spaces {
    pub(super) db: Database,
    task: Keyspace,
    index: Keyspace,
    rest: Keyspace,
}

impl Spaces {
    pub(super) fn new(db: Database, open: impl Fn(Space) -> fjall::Result<Keyspace>) -> fjall::Result<Self> {
        Ok(Self { task: open(Space::Task)?, index: open(Space::Index)?, rest: open(Space::Rest)?, db })
    }

    pub(super) fn of(&self, space: Space) -> &Keyspace {
        match space {
            Space::Task => &self.task,
            Space::Index => &self.index,
            Space::Rest => &self.rest,
        }
    }

    pub(super) fn keyspaces(&self) -> impl Iterator<Item = (Space, &Keyspace)> {
        [(Space::Task, &self.task), (Space::Index, &self.index), (Space::Rest, &self.rest)].into_iter()
    }

    /// The stored bytes of a row, header included.
    pub(super) fn stored(&self, space: Space, key: &Bytes) -> Result<Option<Bytes>> {
        Ok(self.of(space).get(key).map_err(unavailable)?.map(Bytes::from))
    }
}

pub(super) fn unavailable(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Poisoned => StoreError::Poisoned,
        error => StoreError::Unavailable(Box::new(error)),
    }
}

/// How the writer is doing, for health checks.
pub(super) struct Pulse {
    started: Instant,
    /// Microseconds from `started` to the begin of the running commit; 0 when none runs.
    commit_began: AtomicU64,
    full: AtomicBool,
    poisoned: watch::Sender<bool>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            commit_began: AtomicU64::new(0),
            full: AtomicBool::new(false),
            poisoned: watch::Sender::new(false),
        }
    }

    pub(super) fn commit_age(&self) -> Option<Duration> {
        match self.commit_began.load(Ordering::Relaxed) {
            0 => None,
            began => Some(self.started.elapsed().saturating_sub(Duration::from_micros(began))),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn poison(&self) {
        self.poisoned.send_replace(true);
    }

    pub(super) fn poisoned(&self) -> watch::Receiver<bool> {
        self.poisoned.subscribe()
    }

    fn begin(&self) {
        let began = self.started.elapsed().as_micros() as u64;
        self.commit_began.store(began.max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.commit_began.store(0, Ordering::Relaxed);
    }
}

pub(super) struct Writer {
    pub(super) spaces: Spaces,
    pub(super) recent: Arc<Recent>,
    pub(super) absent: Arc<Absent>,
    pub(super) queue: Arc<Queue>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) retention: Retention,
    pub(super) free: Free,
    pub(super) active: Active,
}

/// An answer that waits for the sync.
enum Answer {
    Write(tokio::sync::oneshot::Sender<Result<()>>, Result<()>),
    Commit(tokio::sync::oneshot::Sender<Vec<Result<Committed>>>, Vec<Result<Committed>>),
    Sweep(std::sync::mpsc::SyncSender<()>),
}

/// How a group ended.
#[derive(Clone, Copy)]
enum Ended {
    Durable,
    Full,
    Poisoned,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::new();
        while self.queue.take(GROUP_BYTES, &mut jobs).is_some() {
            let began = Instant::now();
            self.pulse.begin();
            let mut rooms = Vec::with_capacity(jobs.len());
            let (spaces, absent) = (&self.spaces, &*self.absent);
            let mut group = Group { spaces, absent, staged: HashMap::new(), now: unix_seconds() };
            let mut answers = Vec::with_capacity(jobs.len());
            for Job { work, room, .. } in jobs.drain(..) {
                rooms.push(room);
                answers.push(group.stage_work(work, self.retention));
            }
            let staged = group.staged;
            let ended = self.persist(staged);
            self.pulse.end();
            drop(rooms);
            for answer in answers {
                answer.send(ended);
            }
            std::thread::sleep(pause(began.elapsed(), self.active.behind()));
        }
    }

    fn persist(&mut self, staged: HashMap<Bytes, Staged>) -> Ended {
        if staged.is_empty() {
            return Ended::Durable;
        }
        let bytes = staged.iter().map(|(key, row)| key.len() + row.stored.as_ref().map_or(0, Bytes::len)).sum();
        let frees = staged.values().all(|row| row.stored.is_none());
        // A write that fails half-way poisons the database, so a full disk is noticed before it is touched.
        let full = !self.free.admits(bytes, frees);
        if full != self.pulse.full.swap(full, Ordering::Relaxed) {
            tracing::warn!(full, "disk space of the store");
        }
        if full {
            return Ended::Full;
        }
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.spaces.db.clone(), staged.len())
            .durability(Some(PersistMode::SyncAll));
        let _committing = self.recent.committing(staged.keys());
        let concerned = Absent::concerned(staged.keys());
        for (key, row) in staged {
            let keyspace = self.spaces.of(row.space);
            match row.stored {
                Some(stored) => batch.insert(keyspace, key, stored),
                None => batch.remove(keyspace, key),
            }
        }
        match batch.commit() {
            Ok(()) => {
                self.absent.wipe(&concerned);
                if let Err(error) = self.active.look() {
                    // The rows are durable; what fails for good fails the next commit.
                    tracing::warn!(error = &error as &dyn std::error::Error, "full memtable not replaced");
                }
                Ended::Durable
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "commit failed, the store must be reopened");
                self.pulse.poison();
                Ended::Poisoned
            }
        }
    }
}

/// How long to wait after a group that took so long, while so many memtables of a keyspace wait to be written. Merging tables
/// steps back for everything else and needs the time: with four memtables waiting fjall lets nobody write until it is done.
fn pause(took: Duration, behind: usize) -> Duration {
    let share = match behind {
        0 | 1 => 0,
        2 => 1,
        _ => 3,
    };
    (took * share).min(PAUSE_MAX)
}

/// Only ever lost by a panic: then the caller learns that nothing is known.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.pulse.poison();
            self.queue.abandon();
        }
    }
}

impl Answer {
    /// The receiver may have given up waiting; the rows are as durable without it.
    fn send(self, ended: Ended) {
        let failed = match ended {
            Ended::Durable => None,
            Ended::Full => Some((|| StoreError::Full) as fn() -> StoreError),
            Ended::Poisoned => Some((|| StoreError::Poisoned) as fn() -> StoreError),
        };
        match (self, failed) {
            (Self::Write(reply, result), None) => drop(reply.send(result)),
            (Self::Write(reply, _), Some(error)) => drop(reply.send(Err(error()))),
            (Self::Commit(reply, results), None) => drop(reply.send(results)),
            (Self::Commit(reply, results), Some(error)) => {
                drop(reply.send(results.iter().map(|_| Err(error())).collect()));
            }
            (Self::Sweep(reply), _) => drop(reply.send(())),
        }
    }
}

struct Staged {
    space: Space,
    stored: Option<Bytes>,
}

/// Rows of one group, last write of each key. Tags differ between keyspaces, so keys alone are unique.
struct Group<'a> {
    spaces: &'a Spaces,
    absent: &'a Absent,
    staged: HashMap<Bytes, Staged>,
    now: u32,
}

impl Group<'_> {
    fn stage_work(&mut self, work: Work, retention: Retention) -> Answer {
        match work {
            Work::Write { rows, reply } => Answer::Write(reply, self.stage(rows)),
            Work::Commit { commits, reply } => {
                Answer::Commit(reply, commits.into_iter().map(|commit| self.commit(commit)).collect())
            }
            Work::Sweep { space, keys, reply } => {
                for key in keys {
                    // Written again since the sweep saw it: then it stays.
                    let expired = self
                        .stored(space, &key)
                        .is_ok_and(|stored| stored.is_some_and(|stored| retention.is_expired(&key, &stored, self.now)));
                    if expired {
                        self.staged.insert(key, Staged { space, stored: None });
                    }
                }
                Answer::Sweep(reply)
            }
        }
    }

    fn commit(&mut self, commit: EncodedCommit) -> Result<Committed> {
        let mut holds = true;
        let mut rows: Vec<Row> = Vec::new();
        for guard in commit.guards {
            let value = self.live(guard.space, &guard.key)?;
            holds &= match &guard.expect {
                Expect::Absent => value.is_none(),
                Expect::Value(expected) => value.as_ref() == Some(expected),
            };
            rows.extend(value.map(|value| Row { clustering: guard.clustering, value }));
        }
        if !holds {
            rows.sort_by(|left, right| left.clustering.cmp(&right.clustering));
            rows.dedup();
            return Ok(Committed::Lost(rows));
        }
        self.stage(commit.writes)?;
        Ok(Committed::Done)
    }

    /// Stages all rows or, when one of them cannot be compared with what is there, none.
    fn stage(&mut self, rows: Vec<Encoded>) -> Result<()> {
        let mut winning = Vec::with_capacity(rows.len());
        for row in rows {
            if !row.stamped || self.supersedes(&row)? {
                winning.push(row);
            }
        }
        for Encoded { space, key, stored, stamped } in winning {
            // One call may write a stamped row twice, so the rows of this call count as well.
            let newer = match (stamped, &stored, self.staged.get(&key).and_then(|held| held.stored.as_ref())) {
                (true, Some(new), Some(held)) => layout::supersedes(new, held)?,
                (true | false, ..) => true,
            };
            if newer {
                self.staged.insert(key, Staged { space, stored });
            }
        }
        Ok(())
    }

    fn supersedes(&self, row: &Encoded) -> Result<bool> {
        match (&row.stored, self.stored(row.space, &row.key)?) {
            (Some(new), Some(old)) => layout::supersedes(new, &old),
            (Some(_) | None, _) => Ok(true),
        }
    }

    fn stored(&self, space: Space, key: &Bytes) -> Result<Option<Bytes>> {
        match self.staged.get(key) {
            Some(row) => Ok(row.stored.clone()),
            None if self.absent.is_certain(key) => Ok(None),
            None => self.spaces.stored(space, key),
        }
    }

    fn live(&self, space: Space, key: &Bytes) -> Result<Option<Bytes>> {
        match self.stored(space, key)? {
            Some(stored) => layout::live(stored, self.now),
            None => Ok(None),
        }
    }
}

/// Watches the free space of the disk.
pub(super) struct Free {
    path: PathBuf,
    reserve: u64,
    asked: Option<Instant>,
    /// Free bytes when last asked, less what was written since.
    free: u64,
    since: u64,
}

impl Free {
    pub(super) fn new(path: PathBuf, reserve: u64) -> Self {
        Self { path, reserve, asked: None, free: 0, since: 0 }
    }

    /// Whether `bytes` more leave the reserve alone. Removals may use half of it: they give space back.
    fn admits(&mut self, bytes: usize, frees: bool) -> bool {
        let stale = self.asked.is_none_or(|asked| asked.elapsed() >= FREE_EVERY) || self.since >= FREE_AFTER_BYTES;
        if stale {
            // A disk that cannot be asked is left to fail by itself.
            let stat = rustix::fs::statvfs(&self.path);
            self.free = stat.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            self.asked = Some(Instant::now());
            self.since = 0;
        }
        let reserve = if frees { self.reserve / 2 } else { self.reserve };
        let admitted = self.free.saturating_sub(self.since) >= reserve.saturating_add(bytes as u64);
        if admitted {
            self.since += bytes as u64;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_pauses_the_longer_the_more_memtables_wait_and_never_long() {
        let pauses =
            |took| (0..5).map(|behind| pause(Duration::from_millis(took), behind).as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(20), [0, 0, 20, 60, 60]);
        assert_eq!(pauses(4_000), [0, 0, 100, 100, 100]);
    }
}
