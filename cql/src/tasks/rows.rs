//! Stored rows of a project by id, newest first, whatever is in them.
//!
//! Segments say which partitions exist. They come in the order of their ends, so a partition need not be opened
//! before the walk has come down to its end; partitions that overlap in time are merged by id. Rows of equal id
//! lie side by side in one partition and are handed on together.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::id::address::TaskId;
use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture, try_join_all};

use super::key::{self, Segment};
use super::segments::Segments;
use crate::store::{Order, Range, Result, Row, Store};
use crate::table::Table;

/// Partitions read at once.
pub(super) const READS_MAX: usize = 32;
/// Open partitions up to which one is read ahead; more are enough to wait for at once.
const AHEAD_MAX: usize = 4;

/// A stretch of ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Smallest id of interest.
    pub(super) lower: TaskId,
    /// Greatest id of interest, and whether it is itself.
    pub(super) upper: (TaskId, bool),
}

impl Stretch {
    pub(super) fn contains(&self, id: TaskId) -> bool {
        let (upper, is_included) = self.upper;
        self.lower <= id && if is_included { id <= upper } else { id < upper }
    }
}

/// A walk over all stored rows of a stretch.
pub(super) struct Rows<'a> {
    store: &'a dyn Store,
    project: ProjectId,
    ids: Stretch,
    segments: Segments<'a>,
    open: Vec<Partition<'a>>,
    /// Rows read from a partition at once.
    page: usize,
    /// Whether the next page is on its way while one is looked at.
    reads_ahead: bool,
}

/// One partition, from the walk's place down.
struct Partition<'a> {
    rows: VecDeque<Row>,
    /// What is not read yet.
    rest: Option<Range>,
    /// The first page of it, when that is on its way already.
    ahead: Option<BoxFuture<'a, Result<Vec<Row>>>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(store: &'a dyn Store, project: ProjectId, ids: Stretch, page: usize, reads_ahead: bool) -> Self {
        let segments = Segments::new(store, project, ids.lower, ids.upper.0);
        Self { store, project, ids, segments, open: Vec::new(), page, reads_ahead }
    }

    /// The values of the next id, one for each of its writers.
    pub(super) async fn next(&mut self) -> Result<Option<(TaskId, Vec<Bytes>)>> {
        loop {
            self.refill().await?;
            let head = self.newest()?;
            let due = self.segments.due(head.map(|(_, id)| key::millis(id))).await?;
            if !due.is_empty() {
                for segment in due {
                    let rest = self.range(&segment);
                    self.open.push(Partition { rows: VecDeque::new(), rest: Some(rest), ahead: None });
                }
                continue;
            }
            let Some((place, id)) = head else { return Ok(None) };
            return Ok(Some((id, self.take(place, id).await?)));
        }
    }

    /// Reads a page of every open partition that has run out, and drops those that have ended.
    async fn refill(&mut self) -> Result<()> {
        let (store, reads_ahead) = (self.store, self.reads_ahead && self.open.len() <= AHEAD_MAX);
        let mut dry: Vec<&mut Partition<'a>> =
            self.open.iter_mut().filter(|partition| partition.rows.is_empty() && partition.rest.is_some()).collect();
        for some in dry.chunks_mut(READS_MAX) {
            try_join_all(some.iter_mut().map(|partition| partition.read(store, reads_ahead))).await?;
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
            partition.read(self.store, self.reads_ahead).await?;
        }
    }

    fn range(&self, segment: &Segment) -> Range {
        let Stretch { lower, upper: (upper, is_included) } = self.ids;
        let bytes = |id: TaskId, tail: &[u8]| Bytes::from([&id.bytes(), tail].concat());
        Range {
            table: Table::Task,
            partition: key::partition(self.project, segment.bucket),
            lower: Bound::Included(bytes(lower, &[])),
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

impl<'a> Partition<'a> {
    async fn read(&mut self, store: &'a dyn Store, reads_ahead: bool) -> Result<()> {
        let Some(range) = self.rest.take() else { return Ok(()) };
        let limit = range.limit;
        let rows = match self.ahead.take() {
            Some(reading) => reading.await?,
            None => store.scan(range.clone()).await?,
        };
        if rows.len() >= limit
            && let Some(last) = rows.last()
        {
            let rest = range.after(&last.clustering);
            if reads_ahead {
                let mut reading = store.scan(rest.clone());
                // It begins when it is asked for the first time.
                let done = (&mut reading).now_or_never();
                self.ahead = Some(done.map_or(reading, |rows| future::ready(rows).boxed()));
            }
            self.rest = Some(rest);
        }
        self.rows.extend(rows);
        Ok(())
    }
}
