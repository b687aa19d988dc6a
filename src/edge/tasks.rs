//! Tasks: list, detail, tree, exports, deletion (contract M1 to M69).
//!
//! ```text
//! query    the list's parameters
//! column   what `fields` can name, and a row's cells
//! view     answers, and the schema of a task
//! export   csv, ndjson and xlsx, page by page, as fast as the client reads
//! delete   bulk-delete: what a request may say
//! deletion what it then does
//! ```

mod column;
mod delete;
mod deletion;
mod export;
mod query;
mod view;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use cql::accounts::Role;
use domain::cursor::CursorKind;
use domain::engine::Engine;
use domain::id::address::TaskId;
use domain::task::{Filter, TaskRow};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::cursor::Cursors;
use super::error::{ApiError, ApiResult};
use super::extract::Query;
use super::extract::path::parameter;
use super::openapi::Errors;
use super::route::Route;
use super::sheet::Workbook;
pub(super) use column::neutral;
use query::{Format, ListQuery};
pub(super) use query::{LIMIT_MAX, engine, limit};
use view::{Items, Page, TaskPage, TaskPublic, TreeView};

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/tasks").member(Role::Viewer, "tasks"),
    Route::get("/api/v1/projects/{slug}/tasks/{engine}/{task_id}").member(Role::Viewer, "tasks"),
    Route::get("/api/v1/projects/{slug}/tasks/{engine}/{task_id}/tree").member(Role::Viewer, "tasks"),
    Route::post("/api/v1/projects/{slug}/tasks/bulk-delete").member(Role::Admin, "tasks"),
];

/// Tasks looked at for a total before it is given up, or taken from the counters (contract D32).
const TOTAL_BUDGET: u64 = 50_000;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(detail))
        .routes(routes!(tree))
        .routes(routes!(delete::bulk_delete))
}

/// One task of the path. An engine that does not exist has no tasks.
struct TaskPath {
    engine: Engine,
    task_id: String,
}

const UNKNOWN: ApiError = ApiError::NotFound("task");

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let engine = parameter(parts, "engine").await?.parse().map_err(|_| UNKNOWN)?;
        Ok(Self { engine, task_id: parameter(parts, "task_id").await? })
    }
}

/// Tasks, newest first; with `format` csv, xlsx or ndjson the whole filtered result as a stream.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/tasks", tag = "tasks",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path), ListQuery),
    responses((status = 200, content(
        (TaskPage = "application/json"),
        (String = "text/csv",
            example = json!("task_id,state,worker\r\n9d2c1f6e-8a57-4a0e-b6a6-2a7c6f1f6f0e,failed,worker-1@host\r\n")),
        (String = "application/x-ndjson",
            example = json!("{\"task_id\":\"9d2c1f6e-8a57-4a0e-b6a6-2a7c6f1f6f0e\",\"state\":\"failed\"}\n")),
        (Workbook = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    )), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope, Query(query): Query<ListQuery>) -> ApiResult<Response> {
    match query.format {
        Format::Json => page(&app, &scope, query).await.map(IntoResponse::into_response),
        Format::Csv | Format::Ndjson | Format::Xlsx => export::respond(&app, &scope, query).await,
    }
}

async fn page(app: &App, scope: &ProjectScope, query: ListQuery) -> ApiResult<Json<Page>> {
    let (tasks, project, now) = (app.mesh.tasks(), scope.project_id, app.clock.now());
    let bound = query.filter.canonical();
    let cursors = Cursors::new(app, project, CursorKind::Tasks, &bound);
    let after = cursors.open(query.cursor.as_deref())?.map(TaskId::from_bytes);
    let limit = query.limit.unwrap_or(app.config.page_size_default);
    let found = tasks.list(project, &query.filter, after, limit, now).await?;
    let total_count = if query.include_total { total(app, scope, &query.filter).await? } else { None };
    let next_cursor = found.next.map(|last| cursors.seal(last.bytes()));
    let items = match query.fields {
        None => Items::Whole(found.rows),
        Some(columns) => Items::Projected(found.rows, columns),
    };
    Ok(Json(Page { items, next_cursor, total_count }))
}

/// Counted row by row as far as that is cheap; beyond it the counters, which know no other filter than none.
async fn total(app: &App, scope: &ProjectScope, filter: &Filter) -> ApiResult<Option<u64>> {
    let (tasks, project, now) = (app.mesh.tasks(), scope.project_id, app.clock.now());
    let counted = tasks.count(project, filter, TOTAL_BUDGET, now).await?;
    if counted.is_some() || !filter.is_empty() {
        return Ok(counted);
    }
    let since = now.plus_secs(-tasks.retention_secs());
    Ok(Some(super::stats::tasks_since(app.store.as_ref(), project, since, now).await?))
}

/// One task, as the list shows it.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/tasks/{engine}/{task_id}", tag = "tasks",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("engine" = String, Path), ("task_id" = String, Path)),
    responses((status = 200, body = TaskPublic), Errors))]
async fn detail(State(app): State<App>, scope: ProjectScope, path: TaskPath) -> ApiResult<Json<TaskRow>> {
    let row = app.mesh.tasks().detail(scope.project_id, path.engine, &path.task_id).await?;
    row.map(Json).ok_or(UNKNOWN)
}

/// The tree a task belongs to: every task of the project with the same root, the first 500 by time.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/tasks/{engine}/{task_id}/tree", tag = "tasks",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("engine" = String, Path), ("task_id" = String, Path)),
    responses((status = 200, body = TreeView), Errors))]
async fn tree(State(app): State<App>, scope: ProjectScope, path: TaskPath) -> ApiResult<Json<TreeView>> {
    let tree = app.mesh.tasks().tree(scope.project_id, path.engine, &path.task_id).await?;
    tree.map(|tree| Json(TreeView::from(tree))).ok_or(UNKNOWN)
}
