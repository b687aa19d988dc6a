//! The engine of the tests: ordered maps in memory, with the faults of a distributed store.
//!
//! One [`Memory`] is one store; [`Memory::handle`] gives another node's view of it. Nothing here waits for a
//! wall clock: latencies, delays and times to live run on tokio time, so a paused test clock moves them.
//!
//! Two ways to get faults, both counted in [`Memory::injected`]:
//! - [`Faults`] draws them with given odds from a seed: the same seed and the same calls give the same faults;
//! - [`Memory::inject`] gives one fault to the next operation that it fits.
//!
//! And [`Memory::set_full`] leaves no space, for as long as it is said.
//!
//! What a fault may do is what CQL may do and no more: a row never goes back, a `commit` is seen by everyone
//! or by no one, an acknowledged `write` is seen by its own handle at once and by others within the delay.

mod cells;
mod dice;
mod faults;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use self::cells::{Cells, HandleId};
pub use self::dice::Dice;
use self::faults::{Fate, Injector};
pub use self::faults::{Fault, Faults, Injected};
use crate::store::{Commit, Committed, Durability, Key, Range, Result, Row, Store, StoreError, Write};
use crate::table::Table;

/// A store in memory, as one node sees it. A clone is the same node.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
    handle: HandleId,
    is_observer: bool,
}

struct Shared {
    cells: Cells,
    injector: Injector,
    /// Nothing is written.
    is_full: bool,
    calls: u64,
    handles: u32,
}

/// The error inside an injected [`StoreError::Unavailable`].
#[derive(Debug, thiserror::Error)]
#[error("injected fault")]
struct InjectedFault;

impl Memory {
    /// A store that never fails and never waits.
    pub fn new() -> Self {
        Self::with_faults(0, Faults::default())
    }

    pub fn with_faults(seed: u64, faults: Faults) -> Self {
        let injector = Injector::new(seed, faults);
        let shared = Shared { cells: Cells::default(), injector, is_full: false, calls: 0, handles: 1 };
        Self { shared: Arc::new(Mutex::new(shared)), handle: HandleId(0), is_observer: false }
    }

    /// Another node's view of the same store.
    pub fn handle(&self) -> Self {
        let mut shared = self.lock();
        let handle = HandleId(shared.handles);
        shared.handles += 1;
        Self { shared: Arc::clone(&self.shared), handle, is_observer: false }
    }

    /// Replaces the odds from now on, for every handle.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().injector.faults = faults;
    }

    /// The next operation that `fault` fits gets it, on whichever handle. Several wait in order.
    pub fn inject(&self, fault: Fault) {
        self.lock().injector.queue(fault);
    }

    /// While a store is full it answers reads, and refuses what would be written.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// How often each fault has happened so far.
    pub fn injected(&self) -> Injected {
        self.lock().injector.injected
    }

    /// Operations so far, on every handle.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The view of a node that starts now, without faults and without waiting: for who judges a test.
    pub fn observer(&self) -> Self {
        Self { is_observer: true, ..self.handle() }
    }

    /// How many rows of a table every node sees by now.
    pub fn count(&self, table: Table) -> usize {
        let mut shared = self.lock();
        let now = Instant::now();
        shared.cells.settle(now);
        shared.cells.count(table, now)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change below is whole before anything can panic, so a poisoned lock guards good data.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits half of a drawn latency, does the work, waits the other half.
    async fn after_latency<T>(&self, work: impl FnOnce(&mut Shared, Instant) -> T) -> T {
        let half = if self.is_observer { Duration::ZERO } else { self.lock().injector.latency() / 2 };
        if !half.is_zero() {
            sleep(half).await;
        }
        let done = {
            let mut shared = self.lock();
            let now = Instant::now();
            shared.calls += 1;
            shared.cells.settle(now);
            work(&mut shared, now)
        };
        if !half.is_zero() {
            sleep(half).await;
        }
        done
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn write(&mut self, handle: HandleId, mut writes: Vec<Write>, now: Instant) -> Result<()> {
        debug_assert!(writes.iter().all(Write::is_portable), "a plain write to a conditional table: {writes:?}");
        if self.is_full {
            return Err(StoreError::Full);
        }
        let failed = self.injector.strikes(Fault::WriteFailed);
        if failed {
            // Like statements sent one by one: some arrived before the failure.
            let kept = self.injector.below(writes.len() + 1);
            writes.truncate(kept);
        }
        let visible = self.injector.strikes(Fault::WriteDelayed).then(|| now + self.injector.delay());
        self.cells.write(handle, writes, now, visible);
        if failed { Err(StoreError::Unavailable(Box::new(InjectedFault))) } else { Ok(()) }
    }

    fn commit(&mut self, handle: HandleId, commit: Commit, now: Instant) -> Result<Committed> {
        debug_assert!(commit.is_portable(), "not every engine can run {commit:?}");
        if self.is_full {
            return Err(StoreError::Full);
        }
        let fate = match self.injector.fate() {
            Fate::Failed => return Err(StoreError::Unavailable(Box::new(InjectedFault))),
            Fate::UnknownNever => return Ok(Committed::Unknown),
            Fate::UnknownLater => {
                let at = now + self.injector.delay();
                self.cells.commit_later(commit, at);
                return Ok(Committed::Unknown);
            }
            fate @ (Fate::Answered | Fate::UnknownApplied) => fate,
        };
        match self.cells.commit(&commit, now) {
            Err(lost) => Ok(if fate == Fate::Answered { Committed::Lost(lost) } else { Committed::Unknown }),
            // The answer is lost, so its reader never gets to write what follows.
            Ok(()) if fate == Fate::UnknownApplied => Ok(Committed::Unknown),
            Ok(()) => {
                // An answered commit is done with all that follows: delayed to others, never failed.
                let visible = self.injector.strikes(Fault::WriteDelayed).then(|| now + self.injector.delay());
                self.cells.write(handle, commit.follow, now, visible);
                Ok(Committed::Done)
            }
        }
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.after_latency(|shared, now| {
            if !self.is_observer && shared.injector.strikes(Fault::ReadFailed) {
                return Err(StoreError::Unavailable(Box::new(InjectedFault)));
            }
            Ok(shared.cells.get(self.handle, key, now))
        })
        .await
    }

    async fn scan(&self, range: Range) -> Result<Vec<Row>> {
        self.after_latency(|shared, now| {
            if !self.is_observer && shared.injector.strikes(Fault::ReadFailed) {
                return Err(StoreError::Unavailable(Box::new(InjectedFault)));
            }
            Ok(shared.cells.scan(self.handle, &range, now))
        })
        .await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        self.after_latency(|shared, now| shared.write(self.handle, writes, now)).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed>> {
        self.after_latency(|shared, now| {
            commits.into_iter().map(|commit| shared.commit(self.handle, commit, now)).collect()
        })
        .await
    }

    fn durability(&self) -> Durability {
        Durability::None
    }
}
