//! Which tasks a bulk-retry means (contract D19).

use super::field::Fields;
use crate::engine::Engine;
use crate::task::{Priority, PrioritySet, State};
use crate::time::Timestamp;

/// Most ids of one bulk command.
pub const TASKS_MAX: usize = 10_000;

/// A filter that the server resolves to concrete task ids; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BulkFilter {
    pub state: Option<State>,
    pub engine: Option<Engine>,
    pub queue: Option<String>,
    pub name: Option<String>,
    pub worker: Option<String>,
    /// Empty: any.
    pub priority: Vec<Priority>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub task_ids: Option<Vec<String>>,
}

impl BulkFilter {
    /// Takes the member `filter`; an unknown member is a mistake, never a wider filter.
    pub fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let mut inner = fields.object("filter")?;
        let state: Option<State> = inner.optional_word("state");
        let status: Option<State> = inner.optional_word("status");
        if let (Some(state), Some(status)) = (state, status)
            && state != status
        {
            inner.fail("status", "is an alias of state and says something else", "value_error");
        }
        let filter = Self {
            state: state.or(status),
            engine: inner.optional_word("engine"),
            queue: inner.optional_text("queue", 1, 200),
            name: inner.optional_text("name", 1, 500),
            worker: inner.optional_text("worker", 1, 200),
            priority: inner
                .optional_words::<PrioritySet>("priority")
                .map(|set| set.iter().collect())
                .unwrap_or_default(),
            since: inner.optional_instant("since"),
            until: inner.optional_instant("until"),
            task_ids: inner.optional_texts("task_ids", TASKS_MAX, 200),
        };
        if inner.is_clean() && filter.selects_nothing() {
            inner.fail(
                "",
                "must name at least one of state, queue, name, worker, priority, since, until, task_ids",
                "value_error",
            );
        }
        fields.adopt(inner);
        Some(filter)
    }

    /// `engine` alone says where to look, not what to retry.
    fn selects_nothing(&self) -> bool {
        let Self { state, engine: _, queue, name, worker, priority, since, until, task_ids } = self;
        state.is_none()
            && queue.is_none()
            && name.is_none()
            && worker.is_none()
            && priority.is_empty()
            && since.is_none()
            && until.is_none()
            && task_ids.is_none()
    }
}
