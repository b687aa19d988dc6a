//! Tasks of a project by id, newest first, as far as a filter admits them.
//!
//! A walk reads all rows, or only those that marks and lists of open tasks name; either way it looks at each row
//! before it shows it, so both show the same. Where the project's rows are not marked, and where most rows
//! match anyway, it reads all of them.

use std::collections::VecDeque;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::id::address::TaskId;
use domain::task::{Header, Parts, Prepared, Task, TaskRow};
use domain::time::Timestamp;

use super::marked::Marked;
use super::rows::{Rows, Stretch};
use super::{Tasks, keep};
use crate::store::{Result, StoreError};

/// Rows of a page when a filter may refuse most of them.
const PAGE_MAX: usize = 500;
const PAGE_MIN: usize = 16;
/// Who wants more rows than this first looks at some, to see whether many match.
const PROBE_ABOVE: usize = 200;
const PROBE_ROWS: usize = 128;
/// A row that is named costs as much as so many that are walked over.
const NAMED_COST: usize = 8;

/// A walk over the visible tasks that a filter admits.
pub struct Walk<'a> {
    tasks: &'a Tasks,
    project: ProjectId,
    filter: Prepared<'a>,
    now: Timestamp,
    ids: Stretch,
    wanted: usize,
    plan: Plan<'a>,
    reads_ahead: bool,
    looked_at: u64,
}

/// A task's id, and the values of its rows, one for each of its writers.
pub(super) type Stored = (TaskId, Vec<Bytes>);

enum Plan<'a> {
    Undecided,
    /// First what was read to decide, then the rest.
    Rows(VecDeque<Stored>, Box<Rows<'a>>),
    /// As far back as rows are marked, then all.
    Marked(Box<Marked<'a>>),
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
        let ids = Stretch { lower, upper };
        let plan = Plan::Undecided;
        Walk { tasks: self, project, filter, now, ids, wanted, plan, reads_ahead: false, looked_at: 0 }
    }
}

impl<'a> Walk<'a> {
    /// The same walk, with the next page on its way while one is looked at: for a caller that wants them all.
    pub(super) fn ahead(mut self) -> Self {
        self.reads_ahead = true;
        self
    }

    /// The next visible row that the filter admits.
    pub async fn next_row(&mut self) -> Result<Option<TaskRow>> {
        while let Some((id, values)) = self.next_candidate().await? {
            if let Some(task) = admitted(&self.filter, id, &values)? {
                let row = task.row(self.project);
                if self.filter.admits(&row) {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }

    /// The next id that the filter admits; rows are derived only where a header cannot decide.
    pub async fn next_id(&mut self) -> Result<Option<TaskId>> {
        while let Some((id, values)) = self.next_candidate().await? {
            if self.filter.is_decided_by_header() && values.len() == 1 {
                return Ok(Some(id));
            }
            if let Some(task) = admitted(&self.filter, id, &values)?
                && (self.filter.is_decided_by_header() || self.filter.admits(&task.row_of(self.project, Parts::NONE)))
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The next stored task, unless its header says that no reader of this walk wants it.
    pub(super) async fn next_candidate(&mut self) -> Result<Option<Stored>> {
        while let Some((id, values)) = self.next_values().await? {
            // Another writer may know what this row does not, so only a lone row is judged by its header.
            let is_refused = match &*values {
                [one] => !self.filter.admits_header(&header(one)?),
                _ => false,
            };
            if !is_refused {
                return Ok(Some((id, values)));
            }
        }
        Ok(None)
    }

    /// The next id that a row is stored under, hidden or not.
    pub(super) async fn next_stored(&mut self) -> Result<Option<TaskId>> {
        Ok(self.next_values().await?.map(|(id, _)| id))
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

    async fn next_values(&mut self) -> Result<Option<Stored>> {
        loop {
            let next = match &mut self.plan {
                Plan::Undecided => {
                    self.plan = self.decide().await?;
                    continue;
                }
                Plan::Rows(read, rows) => match read.pop_front() {
                    Some(stored) => Some(stored),
                    None => rows.next().await?,
                },
                Plan::Marked(marked) => match marked.next().await? {
                    Some(stored) => Some(stored),
                    None => {
                        let ids = marked.unmarked();
                        self.plan = Plan::Rows(VecDeque::new(), Box::new(self.rows(ids)));
                        continue;
                    }
                },
            };
            self.looked_at += u64::from(next.is_some());
            return Ok(next);
        }
    }

    fn rows(&self, ids: Stretch) -> Rows<'a> {
        let page = if self.filter.is_everything() { self.wanted } else { self.wanted.saturating_mul(4) };
        let page = page.saturating_add(1).clamp(PAGE_MIN, PAGE_MAX);
        Rows::new(&*self.tasks.store, self.project, ids, page, self.reads_ahead)
    }

    async fn decide(&mut self) -> Result<Plan<'a>> {
        let mut rows = Box::new(self.rows(self.ids));
        let marked = Marked::find(self.tasks, self.project, &self.filter, self.ids, self.wanted, self.now).await?;
        let Some(marked) = marked else { return Ok(Plan::Rows(VecDeque::new(), rows)) };
        // On a cluster each row that is named costs a request.
        if self.wanted <= PROBE_ABOVE && self.tasks.is_alone() {
            return Ok(Plan::Marked(Box::new(marked)));
        }
        let (mut read, mut matching) = (VecDeque::with_capacity(PROBE_ROWS), 0);
        while read.len() < PROBE_ROWS {
            let Some((id, values)) = rows.next().await? else { return Ok(Plan::Rows(read, rows)) };
            matching += usize::from(self.admits_headers(id, &values)?);
            read.push_back((id, values));
        }
        let is_common = matching * NAMED_COST >= PROBE_ROWS;
        Ok(if is_common { Plan::Rows(read, rows) } else { Plan::Marked(Box::new(marked)) })
    }
}

/// The task of the values of its writers, unless its header says that no reader wants it.
pub(super) fn admitted(filter: &Prepared<'_>, id: TaskId, values: &[Bytes]) -> Result<Option<Task>> {
    let task = keep::unite(id, values.iter())?;
    Ok(task.filter(|task| filter.admits_header(task.header())))
}

fn header(value: &[u8]) -> Result<Header> {
    Header::read(value).map_err(|_| StoreError::Corrupt { what: "task header" })
}
