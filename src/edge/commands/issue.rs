//! One way for every verb: read the body, look up what it does not say, one call, one view.

use actors::project::IssueError;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cql::ledger::{commands, projection};
use domain::command::request::{Asked, Request};
use domain::command::{Command, CommandView, Draft, Verb};
use serde_json::json;

use super::bodies;
use super::resolve::{self, Known};
use super::view::{CommandPublic, Viewer};
use super::wait::{Wait, WaitParameters, Waiting, outcome, seat};
use crate::edge::app::App;
use crate::edge::audit::Doer;
use crate::edge::auth::ProjectScope;
use crate::edge::error::{ApiError, ApiResult, Problem};
use crate::edge::extract::JsonBytes;
use crate::edge::openapi::Errors;

/// Ids that a dry run shows.
const SHOWN_MAX: usize = 100;

async fn issue(
    app: &App,
    scope: &ProjectScope,
    verb: Verb,
    body: &[u8],
    wait: Option<Box<Wait>>,
) -> ApiResult<Response> {
    let asked = Asked::parse(verb, body).map_err(problems)?;
    let known = Known::look_up(app, scope.project_id, asked.agent).await?;
    let dry_run = matches!(asked.request, Request::BulkRetry { dry_run: true, .. });
    // Before anything is done, for whoever may not wait is refused.
    let _seat = wait.as_ref().map(|_| seat(app, scope)).transpose()?;
    if !dry_run && let Some(command) = replayed(app, scope, &asked).await? {
        return Ok(accepted(app, scope, &known, &command, wait).await);
    }
    let resolved = resolve::resolve(app, scope.project_id, &asked, &known).await?;
    if matches!(asked.request, Request::BulkRetry { .. }) && (dry_run || resolved.tasks.is_empty()) {
        let ids: Vec<&str> = resolved.tasks.iter().take(SHOWN_MAX).map(|task| task.task_id.as_str()).collect();
        return Ok(Json(json!({ "count": resolved.tasks.len(), "task_ids": ids })).into_response());
    }
    let Doer { actor, source } = Doer::from(&scope.caller);
    let command = app.mesh.issue(scope.project_id, Draft::new(asked, actor, source, resolved)).await?;
    Ok(accepted(app, scope, &known, &command, wait).await)
}

/// The command that an equal request with this key made (contract D21). Asked before anything is looked up, for
/// what a filter matches, or a worker's name, may have changed since.
async fn replayed(app: &App, scope: &ProjectScope, asked: &Asked) -> ApiResult<Option<Command>> {
    let Some(key) = &asked.idempotency_key else { return Ok(None) };
    let store = app.store.as_ref();
    let Some(holder) = projection::key_holder(store, scope.project_id, key).await? else { return Ok(None) };
    if holder.request_hash != asked.hash() {
        return Err(ApiError::conflict("idempotency_key already in use for a different command"));
    }
    Ok(commands::detail(store, scope.project_id, holder.command).await?)
}

/// The command as it is, or with `wait` as it is after that.
async fn accepted(
    app: &App,
    scope: &ProjectScope,
    known: &Known,
    command: &Command,
    wait: Option<Box<Wait>>,
) -> Response {
    let waited = match wait.filter(|_| !command.status.is_terminal()) {
        Some(wait) => Box::pin(waited(app, scope, command, wait)).await,
        None => None,
    };
    let view = waited.unwrap_or_else(|| Viewer::with(app, scope, known.states()).show(command));
    (StatusCode::ACCEPTED, Json(view)).into_response()
}

async fn waited(app: &App, scope: &ProjectScope, command: &Command, wait: Box<Wait>) -> Option<CommandView> {
    let (scope, command) = outcome(app, scope, command.id, wait).await?;
    let viewer = Viewer::of(app, &scope, std::slice::from_ref(&command)).await.ok()?;
    Some(viewer.show(&command))
}

fn problems(errors: Vec<domain::command::FieldError>) -> ApiError {
    let problem = |error: domain::command::FieldError| Problem {
        loc: error.loc.into_iter().map(Into::into).collect(),
        msg: error.msg,
        kind: error.kind,
    };
    ApiError::Invalid(errors.into_iter().map(problem).collect())
}

impl From<IssueError> for ApiError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Refused(domain::ledger::Refusal::KeyConflict) => {
                Self::conflict("idempotency_key already in use for a different command")
            }
            IssueError::Refused(domain::ledger::Refusal::Limited(limited)) => limited.into(),
            IssueError::Saturated => Self::saturated(),
            IssueError::Unavailable => {
                Self::Unavailable { code: "project_unavailable", message: "the project does not answer; try again" }
            }
            IssueError::Store(error) => error.into(),
        }
    }
}

macro_rules! verbs {
    ($($(#[doc = $doc:literal])+ $name:ident, $verb:ident, $path:literal, $body:ident);+ $(;)?) => {$(
        $(#[doc = $doc])+
        #[utoipa::path(post, path = $path, tag = "commands", security(("session" = []), ("api_key" = [])),
            params(("slug" = String, Path), WaitParameters), request_body = bodies::$body,
            responses((status = 202, body = CommandPublic, description = "Durable; its outcome follows, or with `wait` is in it if it came in time"), Errors))]
        pub(super) async fn $name(
            State(app): State<App>,
            scope: ProjectScope,
            Waiting(wait): Waiting,
            JsonBytes(body): JsonBytes,
        ) -> ApiResult<Response> {
            issue(&app, &scope, Verb::$verb, &body, wait).await
        }
    )+};
}

verbs! {
    /// Runs a task again.
    retry_task, RetryTask, "/api/v1/projects/{slug}/commands/retry-task", RetryTask;
    /// Stops a task, or keeps it from starting.
    cancel_task, CancelTask, "/api/v1/projects/{slug}/commands/cancel-task", CancelTask;
    /// Empties a queue.
    purge_queue, PurgeQueue, "/api/v1/projects/{slug}/commands/purge-queue", PurgeQueue;
    /// Restarts a worker's pool, gracefully.
    restart_worker, RestartWorker, "/api/v1/projects/{slug}/commands/restart-worker", RestartWorker;
    /// Grows or shrinks a worker's pool.
    pool_resize, PoolResize, "/api/v1/projects/{slug}/commands/pool-resize", PoolResize;
    /// Lets a worker consume from a queue.
    add_consumer, AddConsumer, "/api/v1/projects/{slug}/commands/add-consumer", Consumer;
    /// Stops a worker from consuming from a queue.
    cancel_consumer, CancelConsumer, "/api/v1/projects/{slug}/commands/cancel-consumer", Consumer;
    /// Limits how often a task runs.
    rate_limit, RateLimit, "/api/v1/projects/{slug}/commands/rate-limit", RateLimit;
}

/// Retries every task that a filter matches, newest first, in chunks.
#[utoipa::path(post, path = "/api/v1/projects/{slug}/commands/bulk-retry", tag = "commands",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path), WaitParameters), request_body = bodies::BulkRetry,
    responses((status = 200, body = bodies::BulkMatch, description = "A dry run, or nothing matches: no command"),
        (status = 202, body = CommandPublic, description = "Durable; its outcome follows, or with `wait` is in it if it came in time"), Errors))]
pub(super) async fn bulk_retry(
    State(app): State<App>,
    scope: ProjectScope,
    Waiting(wait): Waiting,
    JsonBytes(body): JsonBytes,
) -> ApiResult<Response> {
    issue(&app, &scope, Verb::BulkRetry, &body, wait).await
}
