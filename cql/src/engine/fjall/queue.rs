//! What waits for the writer: two lines, bounded together by their bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::layout::{Encoded, Space};
use crate::store::{Committed, Expect, Result};

/// Events are written so long after the events before them. Each group is a synced write: what several recorders have
/// ready at about the same time is written as one, and what someone waits for is not held up by each of them.
const EVENTS_EVERY: Duration = Duration::from_millis(4);

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
    sleep: Sleep,
    /// When events were last taken.
    events_at: Option<Instant>,
}

/// What wakes the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    /// It is awake.
    #[default]
    Not,
    /// Any job: it has nothing to do.
    UntilAny,
    /// A job of the first line; it wakes by itself for those of the second that wait.
    UntilFirst,
}

/// Both lines, the bell that wakes the writer, and the one that ends rests.
#[derive(Default)]
pub(super) struct Queue {
    lines: Mutex<Lines>,
    bell: Condvar,
    end: Condvar,
}

impl Lines {
    /// How long events have to wait yet; `None`: no longer.
    fn early(&self) -> Option<Duration> {
        let early = EVENTS_EVERY.checked_sub(self.events_at?.elapsed())?;
        (!early.is_zero() && !self.closed).then_some(early)
    }

    fn next_of_events(&mut self, may: bool) -> Option<Job> {
        let job = if may { self.second.pop_front() } else { None }?;
        self.events_at = Some(Instant::now());
        Some(job)
    }
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
        let wakes = match lines.sleep {
            Sleep::Not => false,
            Sleep::UntilAny => true,
            Sleep::UntilFirst => line == Line::First,
        };
        drop(lines);
        // A bell that nobody waits for costs a system call as well.
        if wakes {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes whatever waits, the first line first, up to `bytes` and at least one job. Sleeps while nothing waits, or
    /// nothing but events so soon after others; `None` once the queue is closed and empty.
    pub(super) fn take(&self, bytes: usize, group: &mut Vec<Job>) -> Option<()> {
        let mut lines = self.lock();
        let with_events = loop {
            let early = lines.early();
            if !lines.first.is_empty() || (!lines.second.is_empty() && early.is_none()) {
                break early.is_none();
            }
            lines = if lines.second.is_empty() {
                if lines.closed {
                    return None;
                }
                lines.sleep = Sleep::UntilAny;
                self.bell.wait(lines).unwrap_or_else(PoisonError::into_inner)
            } else {
                lines.sleep = Sleep::UntilFirst;
                let slept = self.bell.wait_timeout(lines, early.unwrap_or_default());
                slept.unwrap_or_else(PoisonError::into_inner).0
            };
            lines.sleep = Sleep::Not;
        };
        let mut taken = 0;
        while taken < bytes {
            let Some(job) = lines.first.pop_front().or_else(|| lines.next_of_events(with_events)) else { break };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: usize) -> Job {
        let (reply, _) = oneshot::channel();
        Job { work: Work::Write { rows: Vec::new(), reply }, bytes, room: None }
    }

    fn push(queue: &Queue, line: Line) {
        assert!(queue.push(line, job(1)).is_ok());
    }

    fn take(queue: &Queue) -> usize {
        let mut group = Vec::new();
        queue.take(100, &mut group).map_or(0, |()| group.len())
    }

    #[test]
    fn events_wait_a_little_for_others_and_hold_up_nothing_else() {
        let queue = Queue::default();
        let begun = Instant::now();
        push(&queue, Line::Second);
        assert_eq!(take(&queue), 1, "the first events do not wait");
        push(&queue, Line::Second);
        push(&queue, Line::First);
        let group = take(&queue);
        // On a machine that is too busy to tell, both may be due by now.
        if begun.elapsed() < EVENTS_EVERY {
            assert_eq!(group, 1, "a command does not take events along before their time");
            push(&queue, Line::Second);
            assert_eq!(take(&queue), 2, "what came meanwhile is one group");
            assert!(begun.elapsed() >= EVENTS_EVERY);
        }
    }

    #[test]
    fn a_command_wakes_a_writer_that_waits_for_events_to_be_due() {
        let queue = std::sync::Arc::new(Queue::default());
        push(&queue, Line::Second);
        assert_eq!(take(&queue), 1);
        push(&queue, Line::Second);
        let writer = std::thread::spawn({
            let queue = std::sync::Arc::clone(&queue);
            move || std::iter::repeat_with(|| take(&queue)).take_while(|taken| *taken > 0).sum::<usize>()
        });
        push(&queue, Line::First);
        while !queue.lock().first.is_empty() || !queue.lock().second.is_empty() {
            std::thread::yield_now();
        }
        queue.close();
        assert_eq!(writer.join().expect("the writer"), 2, "both are written");
    }

    #[test]
    fn nothing_waits_in_a_queue_that_is_closed() {
        let queue = Queue::default();
        push(&queue, Line::Second);
        assert_eq!(take(&queue), 1);
        push(&queue, Line::Second);
        queue.close();
        assert_eq!((take(&queue), take(&queue)), (1, 0));
        assert!(queue.push(Line::First, job(1)).is_err());
    }
}
