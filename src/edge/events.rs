//! Events of a task: what was heard, once for each thing that happened.

use axum::Json;
use axum::extract::State;
use cql::accounts::Role;
use domain::cursor::CursorKind;
use domain::engine::Engine;
use domain::task::TaskEvent;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::cursor::Cursors;
use super::error::ApiResult;
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;
use super::tasks::{LIMIT_MAX, engine, limit};
use super::words;

pub const ROUTES: &[Route] = &[Route::get("/api/v1/projects/{slug}/events").member(Role::Viewer, "tasks")];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug)]
struct EventQuery {
    engine: Engine,
    task_id: String,
    cursor: Option<String>,
    limit: Option<usize>,
}

impl FromFields for EventQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let engine = fields.required("engine", engine);
        let task_id = fields.required("task_id", parse::text(1..=200));
        let cursor = fields.optional("cursor", parse::text(0..=usize::MAX));
        let limit = fields.optional("limit", limit(LIMIT_MAX));
        Some(Self { engine: engine?, task_id: task_id?, cursor, limit })
    }
}

#[derive(Debug, Serialize)]
struct Page {
    items: Vec<TaskEvent>,
    next_cursor: Option<String>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes `Page` to OpenAPI")]
struct EventPage {
    items: Vec<Event>,
    #[schema(required)]
    next_cursor: Option<String>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes `TaskEvent` to OpenAPI")]
struct Event {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = "uuid")]
    project_id: String,
    /// Null for what the server reported itself.
    #[schema(required, format = "uuid")]
    agent_id: Option<String>,
    #[schema(example = "celery")]
    engine: String,
    task_id: String,
    #[schema(example = "task.received")]
    kind: String,
    #[schema(format = "date-time")]
    occurred_at: String,
    /// The event's data, redacted.
    #[schema(value_type = Object)]
    payload: Value,
}

/// The events of one task, newest first. An unknown task has none.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/events", tag = "tasks",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("engine" = inline(words::Engine), Query),
        ("task_id" = String, Query, min_length = 1, max_length = 200),
        ("cursor" = Option<String>, Query), ("limit" = Option<u32>, Query, minimum = 1, maximum = 5000)),
    responses((status = 200, body = EventPage), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope, Query(query): Query<EventQuery>) -> ApiResult<Json<Page>> {
    let EventQuery { engine, task_id, cursor, limit } = query;
    let bound = [engine.as_str().as_bytes(), &[0], task_id.as_bytes()].concat();
    let cursors = Cursors::new(&app, scope.project_id, CursorKind::Events, &bound);
    let after = cursors.open(cursor.as_deref())?;
    let limit = limit.unwrap_or(app.config.page_size_default);
    let page = app.mesh.tasks().events(scope.project_id, engine, &task_id, after, limit).await?;
    Ok(Json(Page { items: page.events, next_cursor: page.next.map(|position| cursors.seal(position)) }))
}
