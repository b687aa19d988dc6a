//! An export: every matching row, page by page, in constant memory.

use domain::id::ProjectId;
use domain::id::address::TaskId;
use domain::task::{Filter, TaskRow};
use domain::time::Timestamp;

use super::Tasks;
use crate::store::Result;

/// Rows per page.
const EXPORT_PAGE_ROWS: usize = 2_000;

/// A walk that owns what it needs, so that it can outlive a request's handler.
pub struct Export {
    tasks: Tasks,
    project: ProjectId,
    filter: Filter,
    now: Timestamp,
    at: Place,
}

enum Place {
    Start,
    After(TaskId),
    End,
}

impl Tasks {
    /// Every matching row of a project, newest first.
    pub fn export(&self, project: ProjectId, filter: Filter, now: Timestamp) -> Export {
        Export { tasks: self.clone(), project, filter, now, at: Place::Start }
    }
}

impl Export {
    /// The next page, a fresh view of the store; `None` after the last. The first is small, so that the first
    /// byte leaves early.
    pub async fn next_page(&mut self) -> Result<Option<Vec<TaskRow>>> {
        let (after, limit) = match self.at {
            Place::Start => (None, 100),
            Place::After(id) => (Some(id), EXPORT_PAGE_ROWS),
            Place::End => return Ok(None),
        };
        let page = self.tasks.list(self.project, &self.filter, after, limit, self.now).await?;
        self.at = page.next.map_or(Place::End, Place::After);
        Ok((!page.rows.is_empty()).then_some(page.rows))
    }
}
