//! Counters of a project: caches of its task rows, by minute, day and engine worker.
//!
//! Partition: project, day since the epoch (u32). Clustering: kind, what is counted, recorder (u16), writer (u64).
//! Each recorder of each writer owns its cells and writes absolute values, in the same batch as the rows on the
//! embedded store; readers add them up.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};
use domain::id::ProjectId;
use domain::stats::{Minute, MinuteCounts, WorkerCounts};
use domain::time::Timestamp;

use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

const MINUTE: u8 = 0;
const WORKER: u8 = 1;
const DAY: u8 = 2;
const WHAT: &str = "counter";
const MINUTES_PER_DAY: i64 = 1440;

/// Whose cell it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    pub recorder: u16,
    pub writer: u64,
}

/// What one cell counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// One minute of the day it lies in.
    Minute(Minute),
    /// The same counts for a whole day, so that totals are cheap.
    Day(u32),
    /// One engine worker (first 8 bytes of its name's SHA-256) on one day.
    Worker(u32, u64),
}

impl Cell {
    pub fn day(self) -> u32 {
        match self {
            Self::Minute(minute) => day_of(minute),
            Self::Day(day) | Self::Worker(day, _) => day,
        }
    }
}

/// Days since the Unix epoch.
pub fn day_of(minute: Minute) -> u32 {
    u32::try_from(minute.div_euclid(MINUTES_PER_DAY)).unwrap_or(0)
}

fn partition(project: ProjectId, day: u32) -> Bytes {
    let mut partition = BytesMut::with_capacity(20);
    partition.put_slice(&project.bytes());
    partition.put_u32(day);
    partition.freeze()
}

fn key(project: ProjectId, cell: Cell, counter: Counter) -> Key {
    let mut clustering = BytesMut::with_capacity(19);
    match cell {
        Cell::Minute(minute) => {
            clustering.put_u8(MINUTE);
            clustering.put_u16(minute.rem_euclid(MINUTES_PER_DAY) as u16);
        }
        Cell::Day(_) => clustering.put_u8(DAY),
        Cell::Worker(_, worker) => {
            clustering.put_u8(WORKER);
            clustering.put_u64(worker);
        }
    }
    clustering.put_u16(counter.recorder);
    clustering.put_u64(counter.writer);
    Key::new(Table::Stat, partition(project, cell.day()), clustering)
}

/// The counts of a minute or a day.
pub async fn counts(
    store: &dyn Store,
    project: ProjectId,
    cell: Cell,
    counter: Counter,
) -> Result<MinuteCounts, StoreError> {
    Ok(record::read(store, &key(project, cell, counter), WHAT).await?.unwrap_or_default())
}

/// The counts of a worker.
pub async fn worker_counts(
    store: &dyn Store,
    project: ProjectId,
    cell: Cell,
    counter: Counter,
) -> Result<WorkerCounts, StoreError> {
    Ok(record::read(store, &key(project, cell, counter), WHAT).await?.unwrap_or_default())
}

pub fn put(project: ProjectId, cell: Cell, counter: Counter, counts: &MinuteCounts) -> Write {
    Write::put(key(project, cell, counter), record::encode(counts))
}

pub fn put_worker(project: ProjectId, cell: Cell, counter: Counter, counts: &WorkerCounts) -> Write {
    Write::put(key(project, cell, counter), record::encode(counts))
}

/// Rows of one kind in one day.
async fn rows(store: &dyn Store, project: ProjectId, day: u32, kind: u8) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let rows = record::rows_between(store, Table::Stat, partition(project, day), &[kind], &[kind + 1]).await?;
    Ok(rows.into_iter().map(|row| (row.clustering, row.value)).collect())
}

/// The counts of every minute from `since` to `until` in which something was counted.
pub async fn minutes(
    store: &dyn Store,
    project: ProjectId,
    since: Timestamp,
    until: Timestamp,
) -> Result<BTreeMap<Minute, MinuteCounts>, StoreError> {
    let (first, last) = (domain::stats::minute_of(since), domain::stats::minute_of(until));
    let mut sums = BTreeMap::<Minute, MinuteCounts>::new();
    for day in day_of(first)..=day_of(last) {
        for (clustering, value) in rows(store, project, day, MINUTE).await? {
            let Some(within) = clustering.get(1..3).map(|bytes| i64::from(u16::from_be_bytes([bytes[0], bytes[1]])))
            else {
                return Err(StoreError::Corrupt { what: WHAT });
            };
            let minute = i64::from(day) * MINUTES_PER_DAY + within;
            if (first..=last).contains(&minute) {
                sums.entry(minute).or_default().add(&record::decode(&value, WHAT)?);
            }
        }
    }
    Ok(sums)
}

/// The counts of all days from `since` to `until`, added up.
pub async fn totals(
    store: &dyn Store,
    project: ProjectId,
    since: Timestamp,
    until: Timestamp,
) -> Result<MinuteCounts, StoreError> {
    let (first, last) = (domain::stats::minute_of(since), domain::stats::minute_of(until));
    let mut sum = MinuteCounts::default();
    for day in day_of(first)..=day_of(last) {
        for (_, value) in rows(store, project, day, DAY).await? {
            sum.add(&record::decode(&value, WHAT)?);
        }
    }
    Ok(sum)
}

/// The counts of every worker over the days from `since` to `until`.
pub async fn workers(
    store: &dyn Store,
    project: ProjectId,
    since: Timestamp,
    until: Timestamp,
) -> Result<HashMap<u64, WorkerCounts>, StoreError> {
    let (first, last) = (domain::stats::minute_of(since), domain::stats::minute_of(until));
    let mut sums = HashMap::<u64, WorkerCounts>::new();
    for day in day_of(first)..=day_of(last) {
        for (clustering, value) in rows(store, project, day, WORKER).await? {
            let Some(worker) = clustering.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
            else {
                return Err(StoreError::Corrupt { what: WHAT });
            };
            sums.entry(worker).or_default().add(&record::decode(&value, WHAT)?);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_are_for_ever() {
        let (project, counter) = (ProjectId::from_bytes([7; 16]), Counter { recorder: 3, writer: 9 });
        let minute = key(project, Cell::Minute(1440 * 2 + 61), counter);
        assert_eq!(hex::encode(&minute.partition), "0707070707070707070707070707070700000002");
        assert_eq!(hex::encode(&minute.clustering), "00003d00030000000000000009");
        assert_eq!(hex::encode(key(project, Cell::Day(2), counter).clustering), "0200030000000000000009");
        let worker = key(project, Cell::Worker(2, 0x0102), counter);
        assert_eq!(hex::encode(worker.clustering), "01000000000000010200030000000000000009");
    }
}
