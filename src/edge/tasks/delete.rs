//! Bulk deletion (contract D10, D24, D31, M58 to M69): by ids, or by a filter without a limit.
//!
//! The ledger hears of it first, which also counts it against the limit; the rest is [`Deletion`]'s.

use axum::Json;
use axum::extract::State;
use domain::ledger::entry::DeleteBegun;
use domain::ledger::{Json as Stored, Kind};
use domain::task::{Filter, Priority, State as TaskState};
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::deletion::{Deletion, Doomed};
use super::query::{TEXT_MAX, priorities, state};
use crate::edge::app::App;
use crate::edge::audit::{self, Doer};
use crate::edge::auth::ProjectScope;
use crate::edge::commands::TaskName;
use crate::edge::error::{ApiError, ApiResult};
use crate::edge::extract::{Body, Fields, FromFields, parse};
use crate::edge::openapi::Errors;
use crate::edge::words;

/// Tasks that one request may name (contract M62).
const IDS_MAX: usize = 1000;

/// Either `task_ids`, or one or more filters.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body to OpenAPI")]
struct BulkDelete {
    /// Our ids or the engines'.
    #[schema(value_type = Option<Vec<TaskName>>, min_items = 1, max_items = 1000)]
    task_ids: Option<Vec<String>>,
    #[schema(inline, example = "failed")]
    filter_state: Option<words::State>,
    #[schema(inline, min_items = 1, example = json!(["low"]))]
    filter_priority: Option<Vec<words::Priority>>,
    /// Each word must occur in name, queue or worker, or be the task's id.
    #[schema(min_length = 1, max_length = 200)]
    filter_search: Option<String>,
    /// The whole name.
    #[schema(min_length = 1, max_length = 200, example = "email.send")]
    filter_name: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    filter_queue: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    filter_worker: Option<String>,
    #[schema(format = "date-time", example = "2026-04-16T00:00:00Z")]
    filter_since: Option<String>,
    #[schema(format = "date-time")]
    filter_until: Option<String>,
}

impl FromFields for Doomed {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        const FILTERS: [&str; 8] = [
            "filter_state",
            "filter_priority",
            "filter_search",
            "filter_name",
            "filter_queue",
            "filter_worker",
            "filter_since",
            "filter_until",
        ];
        let is_filtered = FILTERS.into_iter().any(|name| fields.says(name));
        let has_ids = fields.says("task_ids");
        let ids = fields.optional("task_ids", parse::list(1..=IDS_MAX, parse::name(1..=TEXT_MAX)));
        let filter = filter(fields);
        match (has_ids, is_filtered) {
            (true, true) => {
                fields.complain("value_error", "", "Give task_ids or filters, not both");
                None
            }
            (true, false) if ids.is_some() => ids.map(Self::Named),
            (false, true) if !filter.is_empty() => Some(Self::Filtered(filter)),
            // A member that is null says nothing, and no member at all must not mean everything.
            (true | false, false) | (false, true) => {
                fields.complain("value_error", "", "Give task_ids or at least one filter");
                None
            }
        }
    }
}

fn filter(fields: &mut Fields) -> Filter {
    Filter {
        state: fields.optional::<TaskState>("filter_state", state),
        priorities: fields.optional("filter_priority", priorities).unwrap_or_default(),
        engine: None,
        name: fields.optional("filter_name", parse::name(1..=TEXT_MAX)),
        name_prefix: None,
        name_contains: None,
        queue: fields.optional("filter_queue", parse::name(1..=TEXT_MAX)),
        worker: fields.optional("filter_worker", parse::name(1..=TEXT_MAX)),
        search: fields.optional("filter_search", parse::name(1..=TEXT_MAX)),
        since: fields.optional("filter_since", parse::timestamp),
        until: fields.optional("filter_until", parse::timestamp),
    }
}

impl Doomed {
    /// What the ledger keeps of it.
    fn noted(&self) -> Value {
        match self {
            Self::Named(ids) => json!({ "task_ids": ids }),
            Self::Filtered(filter) => noted_filter(filter),
        }
    }
}

fn noted_filter(filter: &Filter) -> Value {
    let mut members = Map::new();
    let mut set = |name: &str, value: Option<Value>| drop(value.map(|value| members.insert(name.to_owned(), value)));
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(domain::redact::text(text)));
    let time = |at: Option<Timestamp>| at.map(|at| json!(at));
    let priorities: Vec<Priority> = filter.priorities.iter().collect();
    set("state", filter.state.map(|state| json!(state)));
    set("priority", (!priorities.is_empty()).then(|| json!(priorities)));
    set("search", text(&filter.search));
    set("name", text(&filter.name));
    set("queue", text(&filter.queue));
    set("worker", filter.worker.as_ref().map(|worker| json!(worker)));
    set("since", time(filter.since));
    set("until", time(filter.until));
    Value::Object(members)
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DeletedView {
    /// Tasks that were visible before and are not now.
    deleted_count: u64,
}

/// Deletes tasks by id, or every task that a filter lists.
#[utoipa::path(post, path = "/api/v1/projects/{slug}/tasks/bulk-delete", tag = "tasks",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)), request_body = BulkDelete,
    responses((status = 200, body = DeletedView), Errors))]
pub(super) async fn bulk_delete(
    State(app): State<App>,
    scope: ProjectScope,
    Body(doomed): Body<Doomed>,
) -> ApiResult<Json<DeletedView>> {
    let (project, doer) = (scope.project_id, Doer::from(&scope.caller));
    let id = domain::id::uuid_v7(app.clock.now(), domain::id::random());
    let filter = Stored::from(&doomed.noted());
    let kind = Kind::DeleteBegun(DeleteBegun { deletion: id, filter: filter.clone() });
    let begun = audit::try_note(&app, project, doer.clone(), kind).await?;
    let deletion = Deletion { app, project, id, doer, filter, begun };
    // A client that goes away does not stop it half-way, nor keep its end out of the ledger.
    let work = tokio::spawn(deletion.run(doomed));
    let deleted_count = work.await.map_err(|error| ApiError::Internal(Box::new(error)))??;
    Ok(Json(DeletedView { deleted_count }))
}
