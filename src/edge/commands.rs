//! Commands: the nine verbs, list and detail (contract M70 to M131).
//!
//! ```text
//! issue     one handler for every verb: read, look up, one call, one view
//! resolve   what a body alone does not say: agent, engine, worker, the task's row, a filter's ids
//! view      answers, and the schema of a command
//! wait      requests that wait until a command has ended
//! bodies    the bodies of the verbs, for OpenAPI
//! ```

mod bodies;
mod issue;
mod resolve;
mod view;
mod wait;

use axum::Json;
use axum::extract::State;
use cql::accounts::Role;
use cql::ledger::commands;
use domain::command::{Command, Status};
use domain::cursor::CursorKind;
use domain::id::CommandId;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::cursor::Cursors;
use super::error::{ApiError, ApiResult};
use super::extract::path::PathId;
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;
use super::tasks::{LIMIT_MAX, limit};
use super::words;
pub(super) use bodies::TaskName;
use view::{CommandPage, CommandPublic, Page, Viewer};
pub(super) use wait::WAITS_PER_USER;
use wait::{WaitParameters, Waiting, ended};

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/commands").member(Role::Viewer, "commands"),
    Route::get("/api/v1/projects/{slug}/commands/{id}").member(Role::Viewer, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/retry-task").member(Role::Operator, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/cancel-task").member(Role::Operator, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/bulk-retry").member(Role::Operator, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/purge-queue").member(Role::Admin, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/restart-worker").member(Role::Admin, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/pool-resize").member(Role::Admin, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/add-consumer").member(Role::Admin, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/cancel-consumer").member(Role::Admin, "commands"),
    Route::post("/api/v1/projects/{slug}/commands/rate-limit").member(Role::Admin, "commands"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(detail))
        .routes(routes!(issue::retry_task))
        .routes(routes!(issue::cancel_task))
        .routes(routes!(issue::bulk_retry))
        .routes(routes!(issue::purge_queue))
        .routes(routes!(issue::restart_worker))
        .routes(routes!(issue::pool_resize))
        .routes(routes!(issue::add_consumer))
        .routes(routes!(issue::cancel_consumer))
        .routes(routes!(issue::rate_limit))
}

/// Which commands.
#[derive(Debug)]
struct ListQuery {
    status: Option<Status>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters to OpenAPI")]
struct ListParameters {
    /// issued, dispatched, succeeded, failed or timed_out; also pending, completed and timeout.
    #[param(inline)]
    status: Option<words::Status>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 1000)]
    cursor: Option<String>,
    /// Commands on a page.
    #[param(minimum = 1, maximum = 5000)]
    limit: Option<u32>,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let status = fields.optional(
            "status",
            parse::form("Input should be 'issued', 'dispatched', 'succeeded', 'failed' or 'timed_out'"),
        );
        Some(Self {
            status,
            cursor: fields.optional("cursor", parse::text(0..=usize::MAX)),
            limit: fields.optional("limit", limit(LIMIT_MAX)),
        })
    }
}

/// Commands, newest first.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/commands", tag = "commands",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path), ListParameters),
    responses((status = 200, body = CommandPage), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope, Query(query): Query<ListQuery>) -> ApiResult<Json<Page>> {
    let bound = query.status.map(|status| status.as_str().as_bytes().to_vec()).unwrap_or_default();
    let cursors = Cursors::new(&app, scope.project_id, CursorKind::Commands, &bound);
    let after = cursors.open(query.cursor.as_deref())?.map(CommandId::from_bytes);
    let limit = query.limit.unwrap_or(app.config.page_size_default);
    let page = commands::list(app.store.as_ref(), scope.project_id, query.status, after, limit).await?;
    let viewer = Viewer::of(&app, &scope, &page.items).await?;
    Ok(Json(Page {
        items: page.items.iter().map(|command| viewer.show(command)).collect(),
        next_cursor: page.next.map(|last| cursors.seal(last.bytes())),
    }))
}

/// One command. A bulk command that has ended lists what became of each id. With `wait` the answer comes when the
/// command has ended, or as it is after that time.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/commands/{id}", tag = "commands",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid"), WaitParameters),
    responses((status = 200, body = CommandPublic), Errors))]
async fn detail(
    State(app): State<App>,
    scope: ProjectScope,
    PathId(id): PathId<CommandId>,
    Waiting(wait): Waiting,
) -> ApiResult<Json<domain::command::CommandView>> {
    let (scope, command) = match wait {
        None => {
            let command = find(&app, &scope, id).await?;
            (scope, command)
        }
        Some(wait) => Box::pin(ended(&app, scope, id, wait)).await?,
    };
    Ok(Json(Viewer::of(&app, &scope, std::slice::from_ref(&command)).await?.show(&command)))
}

async fn find(app: &App, scope: &ProjectScope, id: CommandId) -> ApiResult<Command> {
    let command = commands::detail(app.store.as_ref(), scope.project_id, id).await?;
    command.ok_or(ApiError::NotFound("command"))
}
