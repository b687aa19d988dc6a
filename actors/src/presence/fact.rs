//! A row in memory that is written when it is due.

use cql::fleet::{QueueRow, WorkerRow};
use domain::time::Timestamp;

/// Other nodes read who is here: a changed fact waits this long before it is written again; they count on 50 s.
const WRITE_EVERY_MICROS: i64 = 30_000_000;
/// On a node that is alone what is stored is read after a restart only, and the next heartbeat is soon.
const WRITE_EVERY_MICROS_ALONE: i64 = 120_000_000;

/// How long facts that changed wait before they are written again, in microseconds.
pub(super) const fn write_every(alone: bool) -> i64 {
    if alone { WRITE_EVERY_MICROS_ALONE } else { WRITE_EVERY_MICROS }
}

/// One fact and whether the store knows it.
pub(super) struct Fact<T> {
    /// Boxed, because maps keep room for more than they hold.
    row: Box<T>,
    changed: bool,
    /// The store may hold an older row, whose `created_at` counts.
    unread: bool,
    written_at: Option<Timestamp>,
}

/// A fact that is to be written.
pub(super) struct Due<T> {
    pub(super) row: T,
    pub(super) unread: bool,
}

impl<T> Fact<T> {
    /// A fact made with the stored row in hand.
    pub(super) fn known(row: T) -> Self {
        Self { row: Box::new(row), changed: true, unread: false, written_at: None }
    }

    pub(super) fn unread(row: T) -> Self {
        Self { row: Box::new(row), changed: true, unread: true, written_at: None }
    }

    pub(super) fn row(&self) -> &T {
        &self.row
    }

    pub(super) fn change(&mut self) -> &mut T {
        self.changed = true;
        &mut self.row
    }

    /// Adds what the store knew, which needs no writing.
    pub(super) fn learn(&mut self, change: impl FnOnce(&mut T)) {
        self.unread = false;
        change(&mut self.row);
    }
}

/// Takes the facts that changed and were last written so many microseconds ago, or never.
pub(super) fn due<'a, T: Clone + 'a>(
    facts: impl Iterator<Item = &'a mut Fact<T>>,
    now: Timestamp,
    after_micros: i64,
) -> Vec<Due<T>> {
    let mut taken = Vec::new();
    for fact in facts {
        let waited = fact.written_at.is_none_or(|at| now.since(at) >= after_micros);
        if fact.changed && waited {
            fact.changed = false;
            fact.written_at = Some(now);
            taken.push(Due { row: T::clone(&fact.row), unread: fact.unread });
        }
    }
    taken
}

pub(super) fn unite_worker(known: WorkerRow, new: WorkerRow) -> WorkerRow {
    WorkerRow {
        hostname: new.hostname.or(known.hostname),
        pid: new.pid.or(known.pid),
        concurrency: new.concurrency.or(known.concurrency),
        queues: if new.last_detailed.is_some() { new.queues } else { known.queues },
        load_average: new.load_average.or(known.load_average),
        active_tasks: new.active_tasks.or(known.active_tasks),
        metadata: new.metadata.or(known.metadata),
        last_heartbeat: new.last_heartbeat.max(known.last_heartbeat),
        last_detailed: new.last_detailed.max(known.last_detailed),
        process: new.process.or(known.process),
        created_at: new.created_at.min(known.created_at),
        id: new.id,
        engine: new.engine,
        name: new.name,
        agent: new.agent,
    }
}

pub(super) fn unite_queue(known: QueueRow, new: QueueRow) -> QueueRow {
    let measured = if new.measured_at >= known.measured_at {
        (new.depth, new.measured_at)
    } else {
        (known.depth, known.measured_at)
    };
    QueueRow {
        broker_type: new.broker_type.or(known.broker_type),
        depth: measured.0,
        measured_at: measured.1,
        last_seen_at: new.last_seen_at.max(known.last_seen_at),
        created_at: new.created_at.min(known.created_at),
        id: new.id,
        engine: new.engine,
        name: new.name,
        agent: new.agent,
    }
}
