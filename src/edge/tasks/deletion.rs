//! A deletion under way. The ledger knows of it; now the tasks go, page by page, each through its recorder, and then
//! the ledger hears how many there were.
//!
//! A store that pauses does not end it half-way: what it did not answer is tried again, and all tries have one id, so
//! that each task is counted once and the end is noted once.

use std::collections::HashSet;
use std::time::Duration;

use actors::Deletions;
use actors::project::NoteError;
use cql::StoreError;
use cql::ledger::entries;
use cql::tasks::TaskPage;
use domain::id::address::{TaskId, TaskKey};
use domain::id::{EventId, ProjectId};
use domain::ledger::entry::Deleted;
use domain::ledger::{Entry, Json as Stored, Kind, Proposal};
use domain::task::Filter;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::edge::app::App;
use crate::edge::audit::Doer;
use crate::edge::error::{ApiError, ApiResult};

/// Tasks deleted in one go by a filter.
const PAGE: usize = 500;
/// Ids looked up at once.
const LOOKUPS_MAX: usize = 16;
/// Entries read at a time.
const ENTRIES: usize = 500;
/// How long a store may not answer before the deletion ends where it is.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the second try; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// What is to be deleted.
#[derive(Debug)]
pub(super) enum Doomed {
    Named(Vec<String>),
    Filtered(Filter),
}

/// A deletion that stands in the ledger as begun.
pub(super) struct Deletion {
    pub app: App,
    pub project: ProjectId,
    pub id: Uuid,
    pub doer: Doer,
    /// What the ledger keeps of the request.
    pub filter: Stored,
    /// The entry of its begin.
    pub begun: u64,
}

impl Deletion {
    /// Deletes, notes how many there were, also where it ended half-way, and returns that.
    pub(super) async fn run(self, doomed: Doomed) -> ApiResult<u64> {
        let mut count = 0;
        let outcome = match doomed {
            Doomed::Named(ids) => self.named(&ids, &mut count).await,
            Doomed::Filtered(filter) => self.filtered(&filter, &mut count).await,
        };
        if let Err(error) = self.note_end(count).await {
            tracing::error!(project.id = %self.project, count, error = %error, "end of a deletion not noted");
        }
        outcome.map(|()| count)
    }

    fn patience(&self) -> Patience {
        Patience { until: Instant::now() + PATIENCE, pause: PAUSE_FIRST, drain: self.app.mesh.drain() }
    }

    async fn named(&self, ids: &[String], count: &mut u64) -> ApiResult<()> {
        // Both of a task's ids may be given.
        let mut keys = HashSet::new();
        for some in ids.chunks(LOOKUPS_MAX) {
            let found = self.found(some).await?;
            keys.extend(found);
        }
        self.hide(keys.into_iter().collect(), count).await
    }

    async fn filtered(&self, filter: &Filter, count: &mut u64) -> ApiResult<()> {
        let mut after = None;
        loop {
            let page = self.page(filter, after).await?;
            let keys = page.rows.iter().map(|row| TaskKey::new(row.engine, &row.task_id)).collect();
            self.hide(keys, count).await?;
            // Newer tasks stand above the walk, so it ends.
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn found(&self, ids: &[String]) -> Result<Vec<TaskKey>, StoreError> {
        let mut patience = self.patience();
        loop {
            match try_join_all(ids.iter().map(|id| self.app.mesh.tasks().named(self.project, id))).await {
                Err(StoreError::Unavailable(_)) if patience.wait().await => {}
                found => {
                    let key = |task: &domain::task::Task| TaskKey::new(task.engine(), task.task_id());
                    return Ok(found?.iter().flatten().map(key).collect());
                }
            }
        }
    }

    async fn page(&self, filter: &Filter, after: Option<TaskId>) -> Result<TaskPage, StoreError> {
        let mut patience = self.patience();
        loop {
            match self.app.mesh.tasks().list(self.project, filter, after, PAGE, self.app.clock.now()).await {
                Err(StoreError::Unavailable(_)) if patience.wait().await => {}
                page => return page,
            }
        }
    }

    async fn hide(&self, mut keys: Vec<TaskKey>, count: &mut u64) -> ApiResult<()> {
        let mut patience = self.patience();
        loop {
            let Deletions { hidden, failed } =
                self.app.mesh.delete_tasks(self.project, EventId::from_uuid(self.id), keys).await;
            *count += hidden;
            if failed.is_empty() {
                return Ok(());
            }
            if !patience.wait().await {
                let message = "some tasks may not be deleted; try again";
                return Err(ApiError::Unavailable { code: "store_unavailable", message });
            }
            keys = failed;
        }
    }

    async fn note_end(&self, count: u64) -> Result<(), NoteError> {
        let deleted = Deleted { deletion: self.id, filter: self.filter.clone(), count };
        let Doer { actor, source } = self.doer.clone();
        let proposal = Proposal { actor, source, kind: Kind::Deleted(deleted) };
        let note = || self.app.mesh.note(self.project, proposal.clone());
        let mut patience = self.patience();
        let mut noted = note().await.map(drop);
        while noted.is_err() && patience.wait().await {
            // It may be there although nobody said so.
            match self.is_end_noted().await {
                Ok(true) => noted = Ok(()),
                Ok(false) => noted = note().await.map(drop),
                Err(_) => {}
            }
        }
        noted
    }

    async fn is_end_noted(&self) -> Result<bool, StoreError> {
        let is_end = |entry: &Entry| matches!(&entry.kind, Kind::Deleted(end) if end.deletion == self.id);
        let mut next = self.begun + 1;
        loop {
            let some = entries::tail(&*self.app.store, self.project, next, ENTRIES).await?;
            if some.iter().any(|sealed| Entry::decode(&sealed.bytes).is_ok_and(|entry| is_end(&entry))) {
                return Ok(true);
            }
            if some.len() < ENTRIES {
                return Ok(false);
            }
            next += ENTRIES as u64;
        }
    }
}

/// How often something is tried that the store did not answer.
struct Patience {
    until: Instant,
    pause: Duration,
    /// The node goes down.
    drain: CancellationToken,
}

impl Patience {
    /// Waits before the next try. False, at once: it took long enough, or the node goes down.
    async fn wait(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        let is_down = self.drain.run_until_cancelled(sleep(self.pause)).await.is_none();
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        !is_down
    }
}
