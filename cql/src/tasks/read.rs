//! List, count, detail, events of a task, and the ids of a selection.

use domain::cursor::Position;
use domain::engine::Engine;
use domain::id::ProjectId;
use domain::id::address::{TaskId, TaskKey};
use domain::task::{Filter, Task, TaskEvent, TaskRow};
use domain::time::Timestamp;

use super::Tasks;
use crate::store::Result;

/// One page of tasks, newest first.
#[derive(Clone, Debug)]
pub struct TaskPage {
    pub rows: Vec<TaskRow>,
    /// The last row's id, when at least one more row was there to be shown.
    pub next: Option<TaskId>,
}

/// One page of a task's events, newest first.
#[derive(Clone, Debug)]
pub struct EventPage {
    pub events: Vec<TaskEvent>,
    pub next: Option<Position>,
}

impl Tasks {
    /// The page after `after`. One row more than asked for is looked for, so that a page with a cursor is never
    /// followed by an empty one, save when the rest is deleted in between.
    pub async fn list(
        &self,
        project: ProjectId,
        filter: &Filter,
        after: Option<TaskId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<TaskPage> {
        let mut walk = self.walk(project, filter.prepare(), after, limit, now);
        let mut rows: Vec<TaskRow> = Vec::with_capacity(limit.min(64));
        while let Some(row) = walk.next_row().await? {
            if rows.len() == limit {
                let next = rows.last().map(|last| last.id);
                return Ok(TaskPage { rows, next });
            }
            rows.push(row);
        }
        Ok(TaskPage { rows, next: None })
    }

    /// How many tasks match. Exact without conditions; with them `None` when more than `budget` tasks would have
    /// to be looked at (contract D32).
    pub async fn count(&self, project: ProjectId, filter: &Filter, budget: u64, now: Timestamp) -> Result<Option<u64>> {
        let mut walk = self.walk(project, filter.prepare(), None, usize::MAX, now);
        let mut count = 0;
        while walk.next_id().await?.is_some() {
            count += 1;
            if !filter.is_empty() && walk.looked_at() > budget {
                return Ok(None);
            }
        }
        Ok((filter.is_empty() || walk.looked_at() <= budget).then_some(count))
    }

    /// The visible task of an engine's id.
    pub async fn get(&self, project: ProjectId, engine: Engine, task_id: &str) -> Result<Option<Task>> {
        let Some(id) = self.locate(project, TaskKey::new(engine, task_id)).await? else { return Ok(None) };
        self.get_by_id(project, id).await
    }

    /// The visible task of one of our ids.
    pub async fn get_by_id(&self, project: ProjectId, id: TaskId) -> Result<Option<Task>> {
        Ok(self.load(project, id).await?.filter(|task| !task.is_hidden()))
    }

    /// The row of an engine's id.
    pub async fn detail(&self, project: ProjectId, engine: Engine, task_id: &str) -> Result<Option<TaskRow>> {
        Ok(self.get(project, engine, task_id).await?.map(|task| task.row(project)))
    }

    /// The events of a task after `after`; none for an unknown task.
    pub async fn events(
        &self,
        project: ProjectId,
        engine: Engine,
        task_id: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<EventPage> {
        let task = self.get(project, engine, task_id).await?;
        let events = task.map(|task| task.events(project)).unwrap_or_default();
        let mut rest = events.into_iter().filter(|event| after.is_none_or(|after| position(event) < after));
        let events: Vec<TaskEvent> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| events.last()).map(position);
        Ok(EventPage { events, next })
    }

    /// The visible tasks that a text names: one of our ids, or an engine's.
    pub async fn named(&self, project: ProjectId, text: &str) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        if let Ok(id) = text.parse() {
            tasks.extend(self.get_by_id(project, id).await?);
        }
        for engine in Engine::ALL {
            let named = self.get(project, engine, text).await?;
            tasks.extend(named.filter(|task| task.task_id() == text));
        }
        Ok(tasks)
    }

    /// Ids of matching tasks after `after`, newest first, at most `limit`; fewer only at the end.
    pub async fn select(
        &self,
        project: ProjectId,
        filter: &Filter,
        after: Option<TaskId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<TaskId>> {
        let mut walk = self.walk(project, filter.prepare(), after, limit, now);
        let mut ids = Vec::new();
        while ids.len() < limit
            && let Some(id) = walk.next_id().await?
        {
            ids.push(id);
        }
        Ok(ids)
    }
}

/// Where an event stands among those of its task: its time, and the start of its id.
fn position(event: &TaskEvent) -> Position {
    let mut position = [0; 16];
    // Flipping the sign makes the bytes order as the times do, also before 1970.
    let time = (event.occurred_at.micros() as u64) ^ (1 << 63);
    position[..8].copy_from_slice(&time.to_be_bytes());
    position[8..].copy_from_slice(&event.id.bytes()[..8]);
    position
}
