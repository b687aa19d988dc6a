//! The engine of one machine: an LSM tree in a folder, one writer, one sync for everything that waits.
//!
//! ```text
//! folder      format, lock: one process at a time
//! layout      bytes of keys and values, for ever
//! queue       what waits for the writer, bounded; events in their time
//! writer      guards, groups, one sync for each group
//! recent      rows that every request asks for
//! absent      keys that were found nowhere
//! retention   expired rows give their space back
//! retired     memory of written rows is freed aside
//! spread      large files are written and freed a little at a time
//! ```
//!
//! Reads go straight to the tree on the caller's thread, except long scans. [`StoreError::Poisoned`] means
//! that this process cannot go on: wait for it with [`Fjall::poisoned`] and exit.

mod absent;
mod folder;
mod layout;
mod queue;
mod recent;
mod retention;
mod retired;
#[cfg(target_os = "linux")]
mod spread;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, KeyspaceCreateOptions, Readable as _};
use tokio::sync::{Semaphore, oneshot};

use self::absent::Absent;
use self::folder::Folder;
pub use self::folder::OpenError;
use self::layout::{Encoded, Space};
use self::queue::{EncodedCommit, Guarded, Job, Line, Queue, Work};
use self::recent::Recent;
use self::retention::{Retention, Sweep};
use self::retired::Active;
use self::writer::{Free, Pulse, Spaces, Writer, unavailable};
use crate::store::{Commit, Committed, Durability, Key, Order, Range, Result, Row, Store, StoreError, Write};
use crate::table::Table;

/// Bytes that may wait for the writer, in units of one permit.
const QUEUE_KIB: usize = 64 << 10;
/// By how much what the store does in the background steps back behind what somebody waits for. More, and memtables would
/// become full faster than they are written on a machine without a free core.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 5;
/// A scan of at most this many rows runs on the caller's thread.
const INLINE_ROWS: usize = 128;

/// Where the rows are and what the engine may use.
#[derive(Clone, Debug)]
pub struct FjallConfig {
    pub path: PathBuf,
    /// Memory for blocks read from disk.
    pub cache_bytes: u64,
    /// Free disk space below which writes are refused with [`StoreError::Full`]. Room for what is already
    /// acknowledged to move from journals into tables; 512 MB unless the disk is tiny.
    pub reserve_bytes: u64,
    /// Age at which rows of tasks end, whatever the time to live they were written with.
    pub task_retention: Option<Duration>,
}

impl FjallConfig {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 256 << 20, reserve_bytes: 512 << 20, task_retention: None }
    }
}

/// Figures for readiness and metrics; reading them waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FjallHealth {
    /// Every write fails until the process starts again.
    pub poisoned: bool,
    /// The last group was refused for lack of disk space.
    pub full: bool,
    /// Age of the commit that runs now. Not ready beyond ten seconds: the disk hangs or flushes stopped.
    pub commit_age: Option<Duration>,
    /// Bytes that wait for the writer.
    pub queued_bytes: u64,
    /// Journals on disk and memtables waiting to be written; growing figures mean compaction cannot follow.
    pub journals: usize,
    pub outstanding_flushes: usize,
}

/// The embedded store. A clone is the same store; the folder is free again when the last one is dropped.
#[derive(Clone)]
pub struct Fjall {
    inner: Arc<Inner>,
}

struct Inner {
    spaces: Spaces,
    recent: Arc<Recent>,
    absent: Arc<Absent>,
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    pulse: Arc<Pulse>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped last, after the database.
    _folder: Folder,
}

impl Fjall {
    /// Opens or creates the store. Blocks while it replays the journal: up to some seconds after a crash.
    pub fn open(config: &FjallConfig) -> Result<Self, OpenError> {
        let folder = Folder::take(&config.path)?;
        let engine = |source| OpenError::Engine { path: config.path.clone(), source };
        let io = |source| OpenError::Io { path: config.path.clone(), source };
        let retention = Retention { tasks: config.task_retention };
        let builder = Database::builder(folder.rows())
            .cache_size(config.cache_bytes)
            .max_journaling_size(256 << 20)
            .worker_threads(1)
            .with_compaction_filter_factories(Arc::new(move |_| Some(Arc::new(retention))));
        // On a thread that steps back, for fjall's own threads are as polite as the one that made them.
        let opening = spawn("store-open", || {
            step_back();
            builder.open()
        });
        let db =
            opening.map_err(io)?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(engine)?;
        let spaces = Spaces::new(db.clone(), |space| db.keyspace(space.name(), || options(space))).map_err(engine)?;
        let queue = Arc::new(Queue::default());
        let pulse = Arc::new(Pulse::new());
        let (retire, retired) = std::sync::mpsc::channel();
        let recent = Arc::new(Recent::default());
        let absent = Arc::new(Absent::default());
        let writer = Writer {
            spaces: spaces.clone(),
            recent: Arc::clone(&recent),
            absent: Arc::clone(&absent),
            queue: Arc::clone(&queue),
            pulse: Arc::clone(&pulse),
            retention,
            free: Free::new(folder.path().to_owned(), config.reserve_bytes),
            active: Active::new(spaces.keyspaces().map(|(space, of)| (of.clone(), memtable_bytes(space))), retire),
        };
        #[cfg(target_os = "linux")]
        let step = spread::steps(&folder.rows(), spaces.keyspaces().map(|(_, of)| of.path().join("tables")));
        #[cfg(not(target_os = "linux"))]
        let step = || false;
        let sweep = Sweep { spaces: spaces.clone(), queue: Arc::clone(&queue), retention };
        let writing = spawn("store-writer", move || writer.run()).map_err(io)?;
        let sweeping = spawn("store-sweep", move || sweep.run()).map_err(io)?;
        let freeing = spawn("store-free", move || {
            step_back();
            retired::free(&retired, step);
        })
        .map_err(io)?;
        let inner = Inner {
            spaces,
            recent,
            absent,
            queue,
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            pulse,
            threads: Mutex::new(vec![writing, sweeping, freeing]),
            _folder: folder,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn health(&self) -> FjallHealth {
        let inner = &self.inner;
        FjallHealth {
            poisoned: *inner.pulse.poisoned().borrow(),
            full: inner.pulse.is_full(),
            commit_age: inner.pulse.commit_age(),
            queued_bytes: (QUEUE_KIB - inner.room.available_permits().min(QUEUE_KIB)) as u64 * 1024,
            journals: inner.spaces.db.journal_count(),
            outstanding_flushes: inner.spaces.db.outstanding_flushes(),
        }
    }

    /// Resolves when the store cannot go on: the process should exit and start again.
    pub async fn poisoned(&self) {
        // An error means the sender is gone, which it cannot be while `self` holds it.
        drop(self.inner.pulse.poisoned().wait_for(|poisoned| *poisoned).await);
    }

    /// Answers everything that waits, then refuses new writes. Reads go on.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        // A panic in there was reported by the thread that panicked.
        drop(tokio::task::spawn_blocking(move || inner.stop()).await);
    }

    async fn submit<T>(&self, line: Line, bytes: usize, work: Work, answer: oneshot::Receiver<T>) -> Result<T> {
        let permits = (bytes >> 10).clamp(1, QUEUE_KIB) as u32;
        let room = Arc::clone(&self.inner.room).acquire_many_owned(permits).await.map_err(|_| StoreError::Poisoned)?;
        let job = Job { work, bytes, room: Some(room) };
        self.inner.queue.push(line, job).map_err(|_| StoreError::Unavailable(Box::new(Closed)))?;
        // No answer: the writer panicked with our rows in hand.
        answer.await.map_err(|_| StoreError::Poisoned)
    }
}

/// The store was closed before this write.
#[derive(Debug, thiserror::Error)]
#[error("store is closed")]
struct Closed;

impl Inner {
    fn stop(&self) {
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }

    fn page(&self, range: &Range, now: u32) -> Result<Vec<Row>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if range.is_empty() || range.limit == 0 {
            return Ok(Vec::new());
        }
        let prefix = layout::prefix(range.table, &range.partition)?;
        let key = |clustering: &Bytes| [&prefix[..], &clustering[..]].concat();
        let lower = match &range.lower {
            Included(clustering) => Included(key(clustering)),
            Excluded(clustering) => Excluded(key(clustering)),
            Unbounded => Included(prefix.to_vec()),
        };
        let upper = match &range.upper {
            Included(clustering) => Included(key(clustering)),
            Excluded(clustering) => Excluded(key(clustering)),
            Unbounded => Excluded(layout::successor(&prefix)),
        };
        // A snapshot, because a plain range also sees rows that arrive while it runs.
        let mut rows = self.spaces.db.snapshot().range(self.spaces.of(Space::of(range.table)), (lower, upper));
        let mut page = Vec::with_capacity(range.limit.min(INLINE_ROWS));
        while page.len() < range.limit {
            let next = match range.order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            };
            let Some(guard) = next else { break };
            let (key, stored) = guard.into_inner().map_err(unavailable)?;
            if let Some(value) = layout::live(stored.into(), now)? {
                let mut clustering = Bytes::from(key);
                clustering.advance(prefix.len());
                page.push(Row { clustering, value });
            }
        }
        Ok(page)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Store for Fjall {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let row = layout::key(key.table, &key.partition, &key.clustering)?;
        let Inner { spaces, recent, absent, .. } = &*self.inner;
        let read = || absent.look(&row, || spaces.stored(Space::of(key.table), &row));
        match recent.get(&row, read)? {
            Some(stored) => layout::live(stored, unix_seconds()),
            None => Ok(None),
        }
    }

    async fn scan(&self, range: Range) -> Result<Vec<Row>> {
        let now = unix_seconds();
        if range.limit <= INLINE_ROWS {
            return self.inner.page(&range, now);
        }
        let inner = Arc::clone(&self.inner);
        let page = tokio::task::spawn_blocking(move || inner.page(&range, now)).await;
        page.map_err(|error| StoreError::Unavailable(Box::new(error)))?
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        debug_assert!(writes.iter().all(Write::is_portable), "a plain write to a conditional table: {writes:?}");
        if writes.is_empty() {
            return Ok(());
        }
        let now = unix_seconds();
        let line = line(writes.iter().map(|write| write.key.table));
        let rows = writes.iter().map(|write| Encoded::new(write, now)).collect::<Result<Vec<_>>>()?;
        let bytes = rows.iter().map(Encoded::size).sum();
        let (reply, answer) = oneshot::channel();
        self.submit(line, bytes, Work::Write { rows, reply }, answer).await?
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed>> {
        debug_assert!(commits.iter().all(Commit::is_portable), "not every engine can run {commits:?}");
        let count = commits.len();
        if count == 0 {
            return Vec::new();
        }
        let now = unix_seconds();
        let line = line(commits.iter().map(|commit| commit.table));
        let encoded = match commits.iter().map(|commit| encode(commit, now)).collect::<Result<Vec<_>>>() {
            Ok(encoded) => encoded,
            Err(error) => return refused(&error, count),
        };
        let bytes = encoded.iter().flat_map(|commit| &commit.writes).map(Encoded::size).sum();
        let (reply, answer) = oneshot::channel();
        match self.submit(line, bytes, Work::Commit { commits: encoded, reply }, answer).await {
            Ok(results) => results,
            Err(error) => refused(&error, count),
        }
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn accounts_version(&self) -> Option<u64> {
        self.inner.recent.version()
    }
}

/// One error for every commit of a call.
fn refused(error: &StoreError, count: usize) -> Vec<Result<Committed>> {
    let each = || match error {
        StoreError::Poisoned => StoreError::Poisoned,
        StoreError::Full => StoreError::Full,
        StoreError::Corrupt { what } => StoreError::Corrupt { what },
        StoreError::Unavailable(source) => StoreError::Unavailable(source.to_string().into()),
    };
    (0..count).map(|_| Err(each())).collect()
}

fn encode(commit: &Commit, now: u32) -> Result<EncodedCommit> {
    let (table, partition) = (commit.table, &commit.partition);
    let guard = |guard: &crate::store::Guard| {
        Ok(Guarded {
            space: Space::of(table),
            key: layout::key(table, partition, &guard.clustering)?,
            clustering: guard.clustering.clone(),
            expect: guard.expect.clone(),
        })
    };
    let guards = commit.guards.iter().map(guard).collect::<Result<Vec<_>>>()?;
    let mut writes = Vec::with_capacity(commit.writes.len() + commit.follow.len());
    for (clustering, op) in &commit.writes {
        let key = layout::key(table, partition, clustering)?;
        writes.push(Encoded::row(table, key, op, None, now));
    }
    for write in &commit.follow {
        writes.push(Encoded::new(write, now)?);
    }
    Ok(EncodedCommit { guards, writes })
}

/// Events wait behind everything else: they come in crowds, and agents send them again.
fn line(mut tables: impl Iterator<Item = Table>) -> Line {
    let of_events = |table| {
        use Table::{Segment, Stat, Task, TaskAt, TaskMark, TaskOpen, TaskRoot};
        matches!(table, Task | TaskAt | TaskRoot | Segment | Stat | TaskMark | TaskOpen)
    };
    if tables.all(of_events) { Line::Second } else { Line::First }
}

/// Bytes after which a memtable is replaced. Of what is neither a task's row nor its index a thousand commands are 4 MB, and
/// with four memtables that wait to be written the writer waits too.
const fn memtable_bytes(space: Space) -> u64 {
    match space {
        Space::Task => 64 << 20,
        Space::Index | Space::Rest => 32 << 20,
    }
}

/// Rows of tasks are large and read by the thousand (exports, long lists): blocks of 4 KB hold three of them. They are fixed
/// when a store is made.
fn options(space: Space) -> KeyspaceCreateOptions {
    let block = match space {
        Space::Task => 16 << 10,
        Space::Index | Space::Rest => 4 << 10,
    };
    KeyspaceCreateOptions::default()
        .data_block_size_policy(BlockSizePolicy::all(block))
        // Memtables are replaced by the writer, long before fjall would ask for it.
        .max_memtable_size(2 * memtable_bytes(space))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Lets other threads go first: what this one does has seconds of time, and takes a whole core while it is at it.
/// Elsewhere than on Linux a priority is the whole process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(BEHIND) {
        tracing::debug!(%error, "threads of the store keep their priority");
    }
}

/// Times to live on disk outlast the process, so they run on the wall clock.
#[expect(clippy::disallowed_methods, reason = "a time to live is the engine's own and has no Clock above it")]
fn unix_seconds() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
