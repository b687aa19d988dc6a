//! The tasks that marks and lists of open tasks name, newest first: what a filter asks for is among them.
//!
//! ```text
//! Marked    ids that every source names, in batches, with their rows
//! Source    ids that one condition of the filter names: a queue or a state
//! Part      the rows of one mark, or what lists of open tasks name
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::id::address::TaskId;
use domain::task::{Mark, Prepared};
use domain::time::Timestamp;
use futures_util::future::try_join_all;

use super::key::{self, Zone};
use super::rows::{READS_MAX, Stretch};
use super::segments::Segments;
use super::walk::Stored;
use super::{Tasks, mark};
use crate::store::{Order, Range, Result, Row};
use crate::table::Table;

/// Rows of marks read at once from one partition.
const MARK_ROWS: usize = 64;
/// Tasks whose rows are read at once, after the first time.
const BATCH: usize = 32;
const BATCH_MAX: usize = 128;

/// A walk over the rows of those tasks that may match, as far back as a project's tasks are marked.
pub(super) struct Marked<'a> {
    tasks: &'a Tasks,
    project: ProjectId,
    sources: Vec<Source<'a>>,
    found: VecDeque<Stored>,
    batch: usize,
    /// What has to be walked when this has ended.
    unmarked: Stretch,
}

impl<'a> Marked<'a> {
    /// `None` when the filter asks for nothing that marks name, or the project's tasks are not marked.
    pub(super) async fn find(
        tasks: &'a Tasks,
        project: ProjectId,
        filter: &Prepared<'_>,
        ids: Stretch,
        wanted: usize,
        now: Timestamp,
    ) -> Result<Option<Self>> {
        let queue = filter.queue_hash().map(Mark::Queue);
        let state = filter.state().and_then(Mark::of_state);
        let open = filter.state().filter(|state| state.is_open());
        if queue.is_none() && state.is_none() && open.is_none() {
            return Ok(None);
        }
        let Some(since) = tasks.marked_since(project).await? else { return Ok(None) };
        let marked = Stretch { lower: ids.lower.max(since.id), ..ids };
        let mut sources = Vec::with_capacity(2);
        for mark in state.or(open.map(Mark::State)).into_iter().chain(queue) {
            sources.push(Source::new(tasks, project, marked, mark));
        }
        if let (Some(open), Some(source)) = (open, sources.first_mut()) {
            // Read first: who is taken off the list meanwhile is filed by then.
            let mut listed = tasks.all_listed(project, open, now).await?;
            listed.retain(|id| marked.contains(*id));
            listed.sort_unstable_by(|older, newer| newer.cmp(older));
            listed.dedup();
            source.parts.push(Part::Listed(listed.into()));
        }
        let upper = if ids.contains(since.id) { (since.id, false) } else { ids.upper };
        // Nothing is left to walk where all ids of interest are marked.
        let lower = if since.id <= ids.lower { TaskId::MAX } else { ids.lower };
        let batch = wanted.saturating_add(1).min(BATCH_MAX);
        let unmarked = Stretch { lower, upper };
        Ok(Some(Self { tasks, project, sources, found: VecDeque::new(), batch, unmarked }))
    }

    pub(super) const fn unmarked(&self) -> Stretch {
        self.unmarked
    }

    pub(super) async fn next(&mut self) -> Result<Option<Stored>> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok(Some(found));
            }
            let mut ids = Vec::with_capacity(self.batch);
            while ids.len() < self.batch
                && let Some(id) = self.candidate().await?
            {
                ids.push(id);
            }
            if ids.is_empty() {
                return Ok(None);
            }
            self.batch = BATCH;
            for some in ids.chunks(READS_MAX) {
                let values = try_join_all(some.iter().map(|id| self.tasks.values(self.project, *id))).await?;
                let stored = some.iter().copied().zip(values);
                self.found.extend(stored.filter(|(_, values)| !values.is_empty()));
            }
        }
    }

    /// The greatest id that all sources name, taken from them.
    async fn candidate(&mut self) -> Result<Option<TaskId>> {
        let mut wanted = TaskId::MAX;
        loop {
            let mut agreed = true;
            for source in &mut self.sources {
                let Some(id) = source.at_most(wanted).await? else { return Ok(None) };
                agreed &= id == wanted;
                wanted = id;
            }
            if agreed {
                for source in &mut self.sources {
                    source.pass(wanted);
                }
                return Ok(Some(wanted));
            }
        }
    }
}

/// Ids that one condition names, and those that nobody knows what they are marked with.
struct Source<'a> {
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Listed(VecDeque<TaskId>),
    Marks(Box<Marks<'a>>),
}

impl<'a> Source<'a> {
    fn new(tasks: &'a Tasks, project: ProjectId, ids: Stretch, mark: Mark) -> Self {
        let shared = (!tasks.is_alone()).then_some(Mark::Shared);
        let part = |mark| Part::Marks(Box::new(Marks::new(tasks, project, ids, mark)));
        Self { parts: shared.into_iter().chain([mark]).map(part).collect() }
    }

    /// The greatest id that is not above `limit`.
    async fn at_most(&mut self, limit: TaskId) -> Result<Option<TaskId>> {
        let mut greatest = None;
        for part in &mut self.parts {
            greatest = greatest.max(part.at_most(limit).await?);
        }
        Ok(greatest)
    }

    fn pass(&mut self, id: TaskId) {
        for part in &mut self.parts {
            let ready = part.ready();
            if ready.front() == Some(&id) {
                ready.pop_front();
            }
        }
    }
}

impl Part<'_> {
    fn ready(&mut self) -> &mut VecDeque<TaskId> {
        match self {
            Self::Listed(ids) => ids,
            Self::Marks(marks) => &mut marks.ready,
        }
    }

    async fn at_most(&mut self, limit: TaskId) -> Result<Option<TaskId>> {
        loop {
            let ready = self.ready();
            while ready.front().is_some_and(|id| *id > limit) {
                ready.pop_front();
            }
            if let Some(id) = ready.front() {
                return Ok(Some(*id));
            }
            match self {
                Self::Listed(_) => return Ok(None),
                Self::Marks(marks) => {
                    if !marks.read_on().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// The ids of one mark, zone by zone over all partitions of a project.
struct Marks<'a> {
    tasks: &'a Tasks,
    project: ProjectId,
    ids: Stretch,
    mark: Mark,
    segments: Segments<'a>,
    open: Vec<Lane>,
    /// Ids of zones that are read whole, newest first.
    ready: VecDeque<TaskId>,
}

/// One partition, from the walk's place down.
struct Lane {
    /// Ids by zone. The oldest of them may have more in `rest`.
    zones: BTreeMap<Zone, Vec<TaskId>>,
    rest: Option<Range>,
}

impl<'a> Marks<'a> {
    fn new(tasks: &'a Tasks, project: ProjectId, ids: Stretch, mark: Mark) -> Self {
        let segments = Segments::new(&*tasks.store, project, ids.lower, ids.upper.0);
        Self { tasks, project, ids, mark, segments, open: Vec::new(), ready: VecDeque::new() }
    }

    /// Makes the next zone ready. False when there is none.
    async fn read_on(&mut self) -> Result<bool> {
        loop {
            self.refill().await?;
            let newest = self.open.iter().filter_map(|lane| lane.zones.last_key_value()).map(|(zone, _)| *zone).max();
            let due = self.segments.due(newest.map(Zone::start_ms)).await?;
            if due.is_empty() {
                let Some(newest) = newest else { return Ok(false) };
                let mut ids: Vec<TaskId> =
                    self.open.iter_mut().filter_map(|lane| lane.zones.remove(&newest)).flatten().collect();
                ids.retain(|id| self.ids.contains(*id));
                ids.sort_unstable_by(|older, newer| newer.cmp(older));
                ids.dedup();
                self.ready.extend(ids);
                return Ok(true);
            }
            for segment in due {
                let partition = key::mark_partition(self.project, segment.bucket, self.mark);
                let (newest, oldest) = (Zone::of(self.ids.upper.0).bytes(), Zone::of(self.ids.lower).bytes());
                let rest = Range {
                    table: Table::TaskMark,
                    partition,
                    lower: Bound::Included(Bytes::copy_from_slice(&newest)),
                    upper: Bound::Included(Bytes::from([&oldest[..], &[0xff; 17]].concat())),
                    order: Order::Ascending,
                    limit: MARK_ROWS,
                };
                self.open.push(Lane { zones: BTreeMap::new(), rest: Some(rest) });
            }
        }
    }

    /// Reads lanes until each has a zone that is whole, and drops those that have ended.
    async fn refill(&mut self) -> Result<()> {
        let store = &*self.tasks.store;
        let mut dry: Vec<&mut Lane> = self.open.iter_mut().filter(|lane| lane.is_dry()).collect();
        for some in dry.chunks_mut(READS_MAX) {
            try_join_all(some.iter_mut().map(|lane| async move {
                while lane.is_dry()
                    && let Some(range) = lane.rest.take()
                {
                    let rows = store.scan(range.clone()).await?;
                    lane.take(&rows, range)?;
                }
                Ok(())
            }))
            .await?;
        }
        self.open.retain(|lane| !lane.zones.is_empty());
        Ok(())
    }
}

impl Lane {
    /// Whether its newest zone may have more ids in what is not read.
    fn is_dry(&self) -> bool {
        self.rest.is_some() && self.zones.len() < 2
    }

    fn take(&mut self, rows: &[Row], range: Range) -> Result<()> {
        for row in rows {
            self.zones.entry(Zone::read(&row.clustering)?).or_default().extend(mark::decode_ids(&row.value)?);
        }
        if rows.len() >= range.limit
            && let Some(last) = rows.last()
        {
            self.rest = Some(range.after(&last.clustering));
        }
        Ok(())
    }
}
