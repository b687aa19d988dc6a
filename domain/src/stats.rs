//! Counters as caches of rows: what one task adds to them, and the change when its row changes (DESIGN section 5).
//!
//! Nothing is ever counted by event: a counter moves by `contribution(after) - contribution(before)`, so
//! duplicates, re-sends and deletions come out right, and counters can be recounted from rows at any time.

use serde::{Deserialize, Serialize};

use crate::id::address::TaskId;
use crate::task::{Header, State, Task};
use crate::time::Timestamp;

/// Minutes since the Unix epoch.
pub type Minute = i64;

pub fn minute_of(at: Timestamp) -> Minute {
    at.micros().div_euclid(60_000_000)
}

/// What a worker's counts stand under.
pub fn worker_key(name: &str) -> u64 {
    crate::task::hash64(name)
}

/// What is counted for one minute of one project. Signed: one of several writers may count down what another
/// counted up; only the sum over writers means anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MinuteCounts {
    /// Visible tasks received in this minute, by the state they are in now, in the order of [`State::ALL`].
    #[serde(rename = "s")]
    pub by_state: [i64; 7],
    /// Tasks finished in this minute.
    #[serde(rename = "ok")]
    pub succeeded: i64,
    #[serde(rename = "no")]
    pub failed: i64,
    #[serde(rename = "ca")]
    pub cancelled: i64,
    /// Retries in this minute.
    #[serde(rename = "re")]
    pub retried: i64,
    /// Sum and number of the run times of those that finished, milliseconds.
    #[serde(rename = "rs")]
    pub runtime_ms: i64,
    #[serde(rename = "rn")]
    pub timed: i64,
}

/// What is counted for one engine worker and day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerCounts {
    #[serde(rename = "ok")]
    pub succeeded: i64,
    #[serde(rename = "no")]
    pub failed: i64,
    #[serde(rename = "ca")]
    pub cancelled: i64,
    #[serde(rename = "re")]
    pub retried: i64,
}

/// Which counter an amount goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    State { minute: Minute, state: State, by: i64 },
    Finished { minute: Minute, state: State, runtime_ms: Option<u32>, by: i64 },
    Retried { minute: Minute, by: i64 },
    Worker { minute: Minute, worker: u64, state: State, by: i64 },
    WorkerRetried { minute: Minute, worker: u64, by: i64 },
}

impl MinuteCounts {
    pub fn add(&mut self, other: &Self) {
        for (sum, part) in self.by_state.iter_mut().zip(other.by_state) {
            *sum += part;
        }
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.retried += other.retried;
        self.runtime_ms += other.runtime_ms;
        self.timed += other.timed;
    }

    /// Applies a change that is meant for this minute.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::State { state, by, .. } => {
                let place = State::ALL.iter().position(|known| *known == state).unwrap_or_default();
                self.by_state[place] += by;
            }
            Change::Finished { state, runtime_ms, by, .. } => {
                match state {
                    State::Succeeded => self.succeeded += by,
                    State::Failed => self.failed += by,
                    State::Cancelled => self.cancelled += by,
                    State::Received | State::Started | State::Retried | State::Lost => {}
                }
                if let Some(runtime_ms) = runtime_ms {
                    self.runtime_ms += by * i64::from(runtime_ms);
                    self.timed += by;
                }
            }
            Change::Retried { by, .. } => self.retried += by,
            Change::Worker { .. } | Change::WorkerRetried { .. } => {}
        }
    }
}

impl WorkerCounts {
    pub fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.retried += other.retried;
    }

    /// Applies a change that is meant for this worker.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::Worker { state, by, .. } => match state {
                State::Succeeded => self.succeeded += by,
                State::Failed => self.failed += by,
                State::Cancelled => self.cancelled += by,
                State::Received | State::Started | State::Retried | State::Lost => {}
            },
            Change::WorkerRetried { by, .. } => self.retried += by,
            Change::State { .. } | Change::Finished { .. } | Change::Retried { .. } => {}
        }
    }
}

/// What a task adds to the counters: a pure function of its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    header: Header,
    /// When it was retried, and the worker's key, 0 = none.
    retries: Vec<(Minute, u64)>,
}

impl Contribution {
    pub fn of(task: &Task) -> Self {
        let header = *task.header();
        let retries = if header.retry_count == 0 {
            Vec::new()
        } else {
            task.retries().map(|(at, worker)| (minute_of(at), worker)).collect()
        };
        Self { header, retries }
    }

    pub const fn header(&self) -> &Header {
        &self.header
    }
}

/// How the counters move when what a task adds goes from `before` to `after`.
pub fn changes(id: TaskId, before: Option<&Contribution>, after: &Contribution) -> Vec<Change> {
    let before = before.filter(|part| !part.header.hidden);
    let after = Some(after).filter(|part| !part.header.hidden);
    let mut changes = Vec::new();
    if !matches!((before, after), (Some(before), Some(after)) if counts_alike(&before.header, &after.header)) {
        for (part, by) in [(before, -1), (after, 1)] {
            changes.extend(part.into_iter().flat_map(|part| of(id, &part.header, by)).flatten());
        }
    }
    let retries = |part: Option<&Contribution>| part.map_or(&[][..], |part| &part.retries).to_vec();
    let (before, after) = (retries(before), retries(after));
    if before != after {
        for (retries, by) in [(before, -1), (after, 1)] {
            for (minute, worker) in retries {
                changes.push(Change::Retried { minute, by });
                if worker != 0 {
                    changes.push(Change::WorkerRetried { minute, worker, by });
                }
            }
        }
    }
    changes
}

fn counts_alike(before: &Header, after: &Header) -> bool {
    before.state == after.state
        && before.finished_at == after.finished_at
        && before.runtime_ms == after.runtime_ms
        && (!before.state.is_terminal() || before.worker_hash() == after.worker_hash())
}

fn of(id: TaskId, header: &Header, by: i64) -> [Option<Change>; 3] {
    let state = header.state;
    let received = minute_of(id.received_at());
    let finished = header.finished_at.map(minute_of);
    let worker = Some(header.worker_hash()).filter(|hash| *hash != 0);
    [
        Some(Change::State { minute: received, state, by }),
        finished.map(|minute| Change::Finished { minute, state, runtime_ms: header.runtime_ms, by }),
        finished.zip(worker).map(|(minute, worker)| Change::Worker { minute, worker, state, by }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::id::address::{Layout, TaskKey};
    use crate::id::{AgentId, EventId};
    use crate::task::{EventFields, Report, Reporter, Sighting};

    const NOW: Timestamp = Timestamp::from_secs(1_776_340_800);

    fn report(id: u8, kind: &str, at: Timestamp) -> Report {
        let (id, at) = (EventId::from_bytes([id; 16]).to_string(), at.to_string());
        let event = EventFields {
            id: Some(&id),
            kind: Some(kind),
            engine: Some("celery"),
            task_id: Some("t"),
            occurred_at: Some(&at),
            data: Some(r#"{"worker":"w1@vm","runtime_ms":7}"#),
        };
        let reporter = Reporter { agent: AgentId::from_bytes([1; 16]), worker_id: None };
        Sighting::from_event(&event, &reporter, at.parse().unwrap_or(NOW)).unwrap().report
    }

    #[test]
    fn counters_follow_the_row_through_repeats_and_deletion() {
        let mut counts = MinuteCounts::default();
        let mut workers = WorkerCounts::default();
        let mut apply = |changes: Vec<Change>| {
            for change in changes {
                counts.apply(&change);
                workers.apply(&change);
            }
            (counts, workers)
        };
        let first = vec![report(1, "task.received", NOW)];
        let mut task = Task::first(Engine::Celery, "t", first, Layout::Day, 86_400, NOW).unwrap();
        apply(changes(task.id(), None, &Contribution::of(&task)));
        for (id, kind, secs) in [(2, "task.started", 1), (3, "task.succeeded", 2), (3, "task.succeeded", 2)] {
            let before = Contribution::of(&task);
            task.record(report(id, kind, NOW.plus_secs(secs)), NOW);
            apply(changes(task.id(), Some(&before), &Contribution::of(&task)));
        }
        let done = apply(Vec::new());
        assert_eq!(done.0.by_state, [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!((done.0.succeeded, done.0.runtime_ms, done.0.timed, done.1.succeeded), (1, 7, 1, 1));
        let before = Contribution::of(&task);
        task.record(Report::deleted(EventId::from_bytes([9; 16]), NOW.plus_secs(9)), NOW);
        assert!(task.is_hidden());
        let gone = apply(changes(task.id(), Some(&before), &Contribution::of(&task)));
        assert_eq!(gone, (MinuteCounts::default(), WorkerCounts::default()));
        assert!(TaskKey::new(Engine::Celery, "t") == task.key());
    }

    #[test]
    fn a_retry_counts_in_its_own_minute_and_a_deletion_takes_it_back_there() {
        let mut minutes = std::collections::BTreeMap::<Minute, MinuteCounts>::new();
        let mut worker = WorkerCounts::default();
        let mut apply = |changes: Vec<Change>| {
            for change in changes {
                if let Change::Retried { minute, .. } = change {
                    minutes.entry(minute).or_default().apply(&change);
                }
                worker.apply(&change);
            }
            let retried: Vec<_> = minutes.iter().map(|(minute, counts)| (*minute, counts.retried)).collect();
            (retried, worker.retried)
        };
        let first = vec![report(1, "task.received", NOW)];
        let mut task = Task::first(Engine::Celery, "t", first, Layout::Day, 86_400, NOW).unwrap();
        apply(changes(task.id(), None, &Contribution::of(&task)));
        let (early, late) = (NOW.plus_secs(60), NOW.plus_secs(600));
        // The later one is heard first, and both long after they happened.
        for (id, at) in [(2, late), (3, early), (3, early)] {
            let before = Contribution::of(&task);
            task.record(report(id, "task.retried", at), NOW.plus_secs(7200));
            apply(changes(task.id(), Some(&before), &Contribution::of(&task)));
        }
        assert_eq!(apply(Vec::new()), (vec![(minute_of(early), 1), (minute_of(late), 1)], 2));
        let before = Contribution::of(&task);
        task.record(Report::deleted(EventId::from_bytes([9; 16]), NOW.plus_secs(7200)), NOW.plus_secs(7200));
        let gone = apply(changes(task.id(), Some(&before), &Contribution::of(&task)));
        assert_eq!(gone, (vec![(minute_of(early), 0), (minute_of(late), 0)], 0));
    }

    #[test]
    fn the_starts_beyond_the_first_are_the_retries_of_an_engine_that_names_none() {
        let reports = (0..3).map(|n| report(n, "task.started", NOW.plus_secs(60 * i64::from(n)))).collect();
        let task = Task::first(Engine::Rq, "t", reports, Layout::Day, 86_400, NOW.plus_secs(200)).unwrap();
        let minutes: Vec<Minute> = task.retries().map(|(at, _)| minute_of(at)).collect();
        assert_eq!((task.header().retry_count, minutes), (2, vec![minute_of(NOW) + 1, minute_of(NOW) + 2]));
    }
}
