//! Which partitions of tasks exist, in the order in which a walk from the newest task has to open them.

use std::collections::VecDeque;

use domain::id::ProjectId;
use domain::id::address::TaskId;
use futures_util::future::try_join_all;

use super::key::{self, Segment};
use crate::store::{Order, Range, Result, Store};
use crate::table::Table;

/// Segments per page.
const SEGMENTS: usize = 256;
/// Days of segments read at once when the first had too few.
const DAYS_MAX: u64 = 8;

/// The segments of a project, in the order of their ends, newest first.
pub(super) struct Segments<'a> {
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
    pub(super) fn new(store: &'a dyn Store, project: ProjectId, lower: TaskId, upper: TaskId) -> Self {
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
    pub(super) async fn due(&mut self, newest_ms: Option<u64>) -> Result<Vec<Segment>> {
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
