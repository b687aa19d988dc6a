//! What waits for the writer: two lines, bounded together by their bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::layout::{Encoded, Space};
use crate::store::{Committed, Expect, Result};

/// A guard with its key encoded.
pub(super) struct Guarded {
    pub(super) space: Space,
    pub(super) key: Bytes,
    pub(super) clustering: Bytes,
    pub(super) expect: Expect,
}

/// A commit with everything encoded.
pub(super) struct EncodedCommit {
    pub(super) guards: Vec<Guarded>,
    /// Writes, then what follows: here they are one.
    pub(super) writes: Vec<Encoded>,
}

pub(super) enum Work {
    Write {
        rows: Vec<Encoded>,
        reply: oneshot::Sender<Result<()>>,
    },
    Commit {
        commits: Vec<EncodedCommit>,
        reply: oneshot::Sender<Vec<Result<Committed>>>,
    },
    /// Removes those of the keys whose rows are still expired.
    Sweep {
        space: Space,
        keys: Vec<Bytes>,
        reply: std::sync::mpsc::SyncSender<()>,
    },
}

pub(super) struct Job {
    pub(super) work: Work,
    pub(super) bytes: usize,
    /// Gives the room in the queue back when the job is answered.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Which line a job waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Commands and accounts: few and small, someone waits for each.
    First,
    /// Groups of events, and the sweep.
    Second,
}

#[derive(Default)]
struct Lines {
    first: VecDeque<Job>,
    second: VecDeque<Job>,
    closed: bool,
    /// The writer has nothing to do and wants to be woken.
    idle: bool,
}

/// Both lines, the bell that wakes the writer, and the one that ends rests.
#[derive(Default)]
pub(super) struct Queue {
    lines: Mutex<Lines>,
    bell: Condvar,
    end: Condvar,
}

impl Queue {
    /// Queues a job, or gives it back when the queue is closed.
    pub(super) fn push(&self, line: Line, job: Job) -> Result<(), Job> {
        let mut lines = self.lock();
        if lines.closed {
            return Err(job);
        }
        match line {
            Line::First => lines.first.push_back(job),
            Line::Second => lines.second.push_back(job),
        }
        let idle = lines.idle;
        drop(lines);
        // A bell that nobody waits for costs a system call as well.
        if idle {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes whatever waits, the first line first, up to `bytes` and at least one job. Sleeps while nothing
    /// waits; `None` once the queue is closed and empty.
    pub(super) fn take(&self, bytes: usize, group: &mut Vec<Job>) -> Option<()> {
        let mut lines = self.lock();
        while lines.first.is_empty() && lines.second.is_empty() {
            if lines.closed {
                return None;
            }
            lines.idle = true;
            lines = self.bell.wait(lines).unwrap_or_else(PoisonError::into_inner);
            lines.idle = false;
        }
        let mut taken = 0;
        while taken < bytes {
            let Some(job) = lines.first.pop_front().or_else(|| lines.second.pop_front()) else { break };
            taken += job.bytes;
            group.push(job);
        }
        Some(())
    }

    /// No more jobs; the writer finishes those that wait.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ring();
    }

    /// No more jobs, and nobody will answer those that wait: dropping them tells their callers.
    pub(super) fn abandon(&self) {
        let mut lines = self.lock();
        *lines = Lines { closed: true, ..Lines::default() };
        drop(lines);
        self.ring();
    }

    fn ring(&self) {
        self.bell.notify_all();
        self.end.notify_all();
    }

    /// Sleeps up to `rest` and says whether the queue is still open.
    pub(super) fn rest(&self, rest: Duration) -> bool {
        let lines = self.lock();
        let (lines, _) =
            self.end.wait_timeout_while(lines, rest, |lines| !lines.closed).unwrap_or_else(PoisonError::into_inner);
        !lines.closed
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Pushing and popping leave both lines whole whatever panics elsewhere.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
