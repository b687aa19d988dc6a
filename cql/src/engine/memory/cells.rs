//! The rows: each with the stamp of its last write, so that writes may arrive in any order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::{Commit, Expect, Key, Order, Range, Row, Write, WriteOp};
use crate::table::Table;

/// Which node's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HandleId(pub(super) u32);

/// The last write of a row. A deleted row stays, for its stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    stamp: i64,
    value: Option<Bytes>,
    expires: Option<Instant>,
}

impl Cell {
    fn live(&self, now: Instant) -> Option<&Bytes> {
        self.value.as_ref().filter(|_| self.expires.is_none_or(|at| now < at))
    }

    /// Whether this write wins over `other`. Of equal stamps a delete wins, then the greater value (as on CQL).
    fn supersedes(&self, other: &Self) -> bool {
        let rank = |cell: &Self| (cell.stamp, cell.value.is_none(), cell.value.clone());
        rank(self) >= rank(other)
    }
}

/// Something that has not reached everyone yet.
enum Pending {
    Write { by: HandleId, key: Key, cell: Cell },
    Commit(Commit),
}

#[derive(Default)]
pub(super) struct Cells {
    partitions: BTreeMap<(Table, Bytes), BTreeMap<Bytes, Cell>>,
    /// By due time, then by order of arrival.
    pending: BTreeMap<(Instant, u64), Pending>,
    /// Time of writing for writes without a stamp, and order of arrival.
    ticks: u64,
}

impl Cells {
    /// Lets everything that is due happen.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Pending::Write { key, cell, .. } => self.put(key, cell),
                // Its guards no longer hold: then it never happens, which is a fate of an unknown commit too.
                Pending::Commit(commit) => drop(self.commit(&commit, now)),
            }
        }
    }

    pub(super) fn get(&self, handle: HandleId, key: &Key, now: Instant) -> Option<Bytes> {
        let stored = self.cell(key);
        let newest = self
            .own_pending(handle)
            .filter(|(own, _)| *own == key)
            .map(|(_, cell)| cell)
            .chain(stored)
            .reduce(|best, cell| if cell.supersedes(best) { cell } else { best })?;
        newest.live(now).cloned()
    }

    pub(super) fn scan(&self, handle: HandleId, range: &Range, now: Instant) -> Vec<Row> {
        if range.is_empty() {
            return Vec::new();
        }
        let partition = (range.table, range.partition.clone());
        let mut overlay: BTreeMap<Bytes, Cell> = BTreeMap::new();
        for (key, cell) in self.own_pending(handle) {
            if key.table == range.table && key.partition == range.partition {
                let newer = overlay.get(&key.clustering).is_none_or(|held| cell.supersedes(held));
                if newer {
                    overlay.insert(key.clustering.clone(), cell.clone());
                }
            }
        }
        let stored = self.partitions.get(&partition);
        if overlay.is_empty() {
            return stored.map_or_else(Vec::new, |rows| page(rows, range, now));
        }
        for (clustering, cell) in stored.into_iter().flatten() {
            let newer = overlay.get(clustering).is_none_or(|own| !own.supersedes(cell));
            if newer {
                overlay.insert(clustering.clone(), cell.clone());
            }
        }
        page(&overlay, range, now)
    }

    pub(super) fn count(&self, table: Table, now: Instant) -> usize {
        let rows = self.partitions.iter().filter(|((held, _), _)| *held == table).flat_map(|(_, rows)| rows.values());
        rows.filter(|cell| cell.live(now).is_some()).count()
    }

    /// Writes now, or, for other handles than the writer's, at `visible`.
    pub(super) fn write(&mut self, by: HandleId, writes: Vec<Write>, now: Instant, visible: Option<Instant>) {
        for Write { key, op, stamp } in writes {
            let cell = self.stamped(op, stamp, now);
            match visible {
                None => self.put(key, cell),
                Some(at) => {
                    let order = self.tick();
                    self.pending.insert((at, order), Pending::Write { by, key, cell });
                }
            }
        }
    }

    /// Guards and writes together, or the guarded rows that exist.
    pub(super) fn commit(&mut self, commit: &Commit, now: Instant) -> Result<(), Vec<Row>> {
        let at = |clustering: &Bytes| Key {
            table: commit.table,
            partition: commit.partition.clone(),
            clustering: clustering.clone(),
        };
        let held = |clustering: &Bytes| self.cell(&at(clustering)).and_then(|cell| cell.live(now));
        let holds = commit.guards.iter().all(|guard| match &guard.expect {
            Expect::Absent => held(&guard.clustering).is_none(),
            Expect::Value(value) => held(&guard.clustering) == Some(value),
        });
        if !holds {
            let mut rows: Vec<Row> = commit
                .guards
                .iter()
                .filter_map(|guard| {
                    let value = held(&guard.clustering)?.clone();
                    Some(Row { clustering: guard.clustering.clone(), value })
                })
                .collect();
            rows.sort_by(|left, right| left.clustering.cmp(&right.clustering));
            rows.dedup();
            return Err(rows);
        }
        for (clustering, op) in &commit.writes {
            let cell = self.stamped(op.clone(), None, now);
            self.put(at(clustering), cell);
        }
        Ok(())
    }

    pub(super) fn commit_later(&mut self, commit: Commit, at: Instant) {
        let order = self.tick();
        self.pending.insert((at, order), Pending::Commit(commit));
    }

    fn cell(&self, key: &Key) -> Option<&Cell> {
        self.partitions.get(&(key.table, key.partition.clone()))?.get(&key.clustering)
    }

    fn put(&mut self, key: Key, cell: Cell) {
        let partition = self.partitions.entry((key.table, key.partition)).or_default();
        let newer = partition.get(&key.clustering).is_none_or(|held| cell.supersedes(held));
        if newer {
            partition.insert(key.clustering, cell);
        }
    }

    fn stamped(&mut self, op: WriteOp, stamp: Option<i64>, now: Instant) -> Cell {
        let stamp = stamp.unwrap_or_else(|| self.tick() as i64);
        match op {
            WriteOp::Put { value, ttl } => {
                let expires = ttl.map(|seconds| now + Duration::from_secs(seconds.get().into()));
                Cell { stamp, value: Some(value), expires }
            }
            WriteOp::Delete => Cell { stamp, value: None, expires: None },
        }
    }

    fn own_pending(&self, handle: HandleId) -> impl Iterator<Item = (&Key, &Cell)> {
        self.pending.values().filter_map(move |pending| match pending {
            Pending::Write { by, key, cell } if *by == handle => Some((key, cell)),
            Pending::Write { .. } | Pending::Commit(_) => None,
        })
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

fn page(rows: &BTreeMap<Bytes, Cell>, range: &Range, now: Instant) -> Vec<Row> {
    let live = |(clustering, cell): (&Bytes, &Cell)| {
        Some(Row { clustering: clustering.clone(), value: cell.live(now)?.clone() })
    };
    let rows = rows.range((range.lower.clone(), range.upper.clone()));
    match range.order {
        Order::Ascending => rows.filter_map(live).take(range.limit).collect(),
        Order::Descending => rows.rev().filter_map(live).take(range.limit).collect(),
    }
}
