//! Rows of a project by id, newest first.
//!
//! Segments say which partitions exist. They come in the order of their ends, so a partition need not be opened
//! before the walk has come down to its end; partitions that overlap in time are merged by id. Rows of equal id
//! lie side by side in one partition and are united before anyone looks at them.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::id::address::TaskId;
use domain::task::{Header, Prepared, Task, TaskRow};
use domain::time::Timestamp;
use futures_util::future::try_join_all;

use super::key::{self, Segment};
use super::{Tasks, keep};
use crate::store::{Order, Range, Result, Row, Store, StoreError};
use crate::table::Table;

/// Segments per page.
const SEGMENTS: usize = 256;
/// Days of segments read at once when the first had too few.
const DAYS_MAX: u64 = 8;
/// Partitions read at once.
const READS_MAX: usize = 32;
/// Rows of a page when a filter may refuse most of them.
const PAGE_MAX: usize = 500;
const PAGE_MIN: usize = 16;

/// A walk over the visible tasks that a filter admits.
pub struct Walk<'a> {
    store: &'a dyn Store,
    project: ProjectId,
    filter: Prepared<'a>,
    /// Smallest id of interest.
    lower: TaskId,
    /// Greatest id of interest, and whether it is itself.
    upper: (TaskId, bool),
    segments: Segments<'a>,
    open: Vec<Partition>,
    page: usize,
    looked_at: u64,
}

/// One partition, from the walk's place down.
struct Partition {
    rows: VecDeque<Row>,
    /// What is not read yet.
    rest: Option<Range>,
}

impl Tasks {
    /// A walk from `after` (exclusive) or the newest task down. `wanted` is how many rows the caller is after.
    pub fn walk<'a>(
        &'a self,
        project: ProjectId,
        filter: Prepared<'a>,
        after: Option<TaskId>,
        wanted: usize,
        now: Timestamp,
    ) -> Walk<'a> {
        let (lower, upper) = filter.ids();
        // What lies further back has expired, further ahead cannot be.
        let oldest = TaskId::floor(now.plus_secs(-self.retention_secs - 86_400));
        let newest = TaskId::ceiling(now.plus_secs(86_400));
        let (lower, upper) = (lower.max(oldest), upper.min(newest));
        let upper = after.filter(|after| *after <= upper).map_or((upper, true), |after| (after, false));
        let page = if filter.is_everything() { wanted } else { wanted.saturating_mul(4) };
        Walk {
            store: &*self.store,
            project,
            filter,
            lower,
            upper,
            segments: Segments::new(&*self.store, project, lower, upper.0),
            open: Vec::new(),
            page: page.saturating_add(1).clamp(PAGE_MIN, PAGE_MAX),
            looked_at: 0,
        }
    }
}

impl Walk<'_> {
    /// The next visible row that the filter admits.
    pub async fn next_row(&mut self) -> Result<Option<TaskRow>> {
        while let Some((id, values)) = self.next_values().await? {
            if let Some(task) = self.admitted(id, &values)? {
                let row = task.row(self.project);
                if self.filter.admits(&row) {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }

    /// The next id that the filter admits, and whether one was found; rows are derived only where a header
    /// cannot decide.
    pub async fn next_id(&mut self) -> Result<Option<TaskId>> {
        while let Some((id, values)) = self.next_values().await? {
            if self.filter.is_decided_by_header() {
                if self.admits_headers(id, &values)? {
                    return Ok(Some(id));
                }
            } else if let Some(task) = self.admitted(id, &values)?
                && self.filter.admits(&task.row(self.project))
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// How many tasks the walk has looked at, admitted or not.
    pub const fn looked_at(&self) -> u64 {
        self.looked_at
    }

    fn admits_headers(&self, id: TaskId, values: &[Bytes]) -> Result<bool> {
        match values {
            [one] => Ok(self.filter.admits_header(&header(one)?)),
            several => {
                Ok(keep::unite(id, several.iter())?.is_some_and(|task| self.filter.admits_header(task.header())))
            }
        }
    }

    /// The task, unless its header says that no reader of this walk wants it.
    fn admitted(&self, id: TaskId, values: &[Bytes]) -> Result<Option<Task>> {
        // Another writer may know what this row does not, so only a lone row is judged by its header.
        if let [one] = values
            && !self.filter.admits_header(&header(one)?)
        {
            return Ok(None);
        }
        let task = keep::unite(id, values.iter())?;
        Ok(task.filter(|task| self.filter.admits_header(task.header())))
    }

    /// The values of the next id, one for each of its writers.
    async fn next_values(&mut self) -> Result<Option<(TaskId, Vec<Bytes>)>> {
        loop {
            self.refill().await?;
            let head = self.newest()?;
            let due = self.segments.due(head.map(|(_, id)| key::millis(id))).await?;
            if !due.is_empty() {
                for segment in due {
                    let rest = self.range(&segment);
                    self.open.push(Partition { rows: VecDeque::new(), rest: Some(rest) });
                }
                continue;
            }
            let Some((place, id)) = head else { return Ok(None) };
            self.looked_at += 1;
            return Ok(Some((id, self.take(place, id).await?)));
        }
    }

    /// Reads a page of every open partition that has run out, and drops those that have ended.
    async fn refill(&mut self) -> Result<()> {
        let mut dry: Vec<&mut Partition> =
            self.open.iter_mut().filter(|partition| partition.rows.is_empty() && partition.rest.is_some()).collect();
        for some in dry.chunks_mut(READS_MAX) {
            try_join_all(some.iter_mut().map(|partition| partition.read(self.store))).await?;
        }
        self.open.retain(|partition| !partition.rows.is_empty() || partition.rest.is_some());
        Ok(())
    }

    /// The open partition with the greatest id in front.
    fn newest(&self) -> Result<Option<(usize, TaskId)>> {
        let mut newest: Option<(usize, TaskId)> = None;
        for (place, partition) in self.open.iter().enumerate() {
            let Some(row) = partition.rows.front() else { continue };
            let id = key::task_id(&row.clustering)?;
            if newest.is_none_or(|(_, best)| id > best) {
                newest = Some((place, id));
            }
        }
        Ok(newest)
    }

    async fn take(&mut self, place: usize, id: TaskId) -> Result<Vec<Bytes>> {
        let partition = &mut self.open[place];
        let mut values = Vec::with_capacity(1);
        loop {
            while let Some(row) = partition.rows.front() {
                if key::task_id(&row.clustering)? != id {
                    return Ok(values);
                }
                values.extend(partition.rows.pop_front().map(|row| row.value));
            }
            // The page may have ended between two writers' rows.
            if partition.rest.is_none() {
                return Ok(values);
            }
            partition.read(self.store).await?;
        }
    }

    fn range(&self, segment: &Segment) -> Range {
        let (upper, is_included) = self.upper;
        let bytes = |id: TaskId, tail: &[u8]| Bytes::from([&id.bytes(), tail].concat());
        Range {
            table: Table::Task,
            partition: key::partition(self.project, segment.bucket),
            lower: Bound::Included(bytes(self.lower, &[])),
            upper: if is_included {
                Bound::Included(bytes(upper, &[0xff; 8]))
            } else {
                Bound::Excluded(bytes(upper, &[]))
            },
            order: Order::Descending,
            limit: self.page,
        }
    }
}

impl Partition {
    async fn read(&mut self, store: &dyn Store) -> Result<()> {
        let Some(range) = self.rest.take() else { return Ok(()) };
        let limit = range.limit;
        let rows = store.scan(range.clone()).await?;
        if rows.len() >= limit
            && let Some(last) = rows.last()
        {
            self.rest = Some(range.after(&last.clustering));
        }
        self.rows.extend(rows);
        Ok(())
    }
}

/// The segments of a project, in the order of their ends, newest first.
struct Segments<'a> {
    store: &'a dyn Store,
    project: ProjectId,
    lower_ms: u64,
    upper_ms: u64,
    /// The newest day that is not read whole; `None` when all are.
    day: Option<u64>,
    /// The rest of that day, when a part of it is read.
    rest: Option<Range>,
    /// Days to read at once: most lists end in the first one, a quiet project has many empty ones.
    days: u64,
    next: VecDeque<Segment>,
}

impl<'a> Segments<'a> {
    fn new(store: &'a dyn Store, project: ProjectId, lower: TaskId, upper: TaskId) -> Self {
        let (lower_ms, upper_ms) = (key::millis(lower), key::millis(upper));
        let day = (lower <= upper).then(|| key::day(upper.received_at()));
        Self { store, project, lower_ms, upper_ms, day, rest: None, days: 1, next: VecDeque::new() }
    }

    fn range(&self, day: u64) -> Range {
        let mut range = Range::all(Table::Segment, key::segment_partition(self.project, day), SEGMENTS);
        range.order = Order::Descending;
        range
    }

    /// The segments that may hold an id newer than `newest_ms`, or when there is none, the next ones; empty only
    /// when no segment is left that could.
    async fn due(&mut self, newest_ms: Option<u64>) -> Result<Vec<Segment>> {
        let mut due: Vec<Segment> = Vec::new();
        loop {
            while let Some(segment) = self.next.front() {
                let is_due = match (newest_ms, due.first()) {
                    (Some(newest_ms), _) => segment.end_ms > newest_ms,
                    (None, Some(first)) => segment.end_ms == first.end_ms,
                    (None, None) => true,
                };
                if !is_due {
                    return Ok(due);
                }
                due.extend(self.next.pop_front());
            }
            // A day whose end lies behind the newest row need not be read yet.
            let is_far = match (newest_ms, self.day.map(|day| (day + 1) * key::DAY_MS)) {
                (Some(newest_ms), Some(end)) => end <= newest_ms,
                (None, Some(end)) => due.first().is_some_and(|first| end < first.end_ms),
                (_, None) => true,
            };
            if is_far {
                return Ok(due);
            }
            self.read().await?;
        }
    }

    /// The next pages of segments.
    async fn read(&mut self) -> Result<()> {
        let Some(newest) = self.day else { return Ok(()) };
        let lowest = self.lower_ms / key::DAY_MS;
        let oldest = newest.saturating_sub(self.days - 1).max(lowest);
        let ranges: Vec<Range> = match self.rest.take() {
            Some(rest) => vec![rest],
            None => (oldest..=newest).rev().map(|day| self.range(day)).collect(),
        };
        self.days = DAYS_MAX;
        let pages = try_join_all(ranges.iter().map(|range| self.store.scan(range.clone()))).await?;
        for (range, page) in ranges.into_iter().zip(pages) {
            let last = page.last().map(|row| row.clustering.clone());
            let is_full = page.len() >= range.limit;
            for row in page {
                let segment = Segment::read(&row.clustering)?;
                if segment.start_ms <= self.upper_ms && segment.end_ms > self.lower_ms {
                    self.next.push_back(segment);
                }
            }
            if let Some(last) = last.filter(|_| is_full) {
                // The days before wait until this one is read whole.
                self.rest = Some(range.after(&last));
                return Ok(());
            }
            self.day = self.day.and_then(|day| day.checked_sub(1)).filter(|day| *day >= lowest);
        }
        Ok(())
    }
}

fn header(value: &[u8]) -> Result<Header> {
    Header::read(value).map_err(|_| StoreError::Corrupt { what: "task header" })
}
