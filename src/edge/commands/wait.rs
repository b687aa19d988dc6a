//! A request that waits until a command has ended, so that nobody has to ask again and again: for one command, or the
//! one that issues it.
//!
//! It listens before it looks, so no end is missed, and it looks again after each word. What another node ends makes
//! no sound here, so where nodes share a store it also looks from time to time. It holds no lock and no row while it
//! waits, and goes with its connection.

use std::time::Duration;

use actors::changes::Listener;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cql::ledger::commands;
use domain::command::Command;
use domain::id::{CommandId, ProjectId};
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::find;
use crate::edge::app::App;
use crate::edge::auth::{ProjectScope, guard};
use crate::edge::error::{ApiError, ApiResult, Limited};
use crate::edge::extract::{Fields, FromFields, Query, parse};
use crate::edge::seats::Seat;

/// Requests of one user that may wait at a time; one more is refused.
pub(in crate::edge) const WAITS_PER_USER: usize = 256;

const WAIT_MAX_SECS: i64 = 30;

/// How often a command is looked at that another node may end.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A request that waits: for how long, and what it was let in by.
#[derive(Debug)]
pub(super) struct Wait {
    time: Duration,
    parts: Parts,
}

/// `wait` of a request's query; `None`: the answer comes at once.
#[derive(Debug)]
pub(super) struct Waiting(pub(super) Option<Box<Wait>>);

struct WaitQuery(Option<Duration>);

impl FromFields for WaitQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let secs = fields.optional("wait", parse::integer(0..=WAIT_MAX_SECS));
        Some(Self(secs.filter(|secs| *secs > 0).map(|secs| Duration::from_secs(secs.unsigned_abs()))))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Waiting {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Query(WaitQuery(time)) = Query::from_request_parts(parts, state).await?;
        Ok(Self(time.map(|time| Box::new(Wait { time, parts: parts.clone() }))))
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameter to OpenAPI")]
pub(super) struct WaitParameters {
    /// Seconds to wait for the command to end; without it the answer comes at once.
    #[param(minimum = 0, maximum = 30, example = 10)]
    wait: Option<u32>,
}

/// A command that has ended, or as it is after the wait or when the server goes down; and what its caller may see by
/// then.
pub(super) async fn ended(
    app: &App,
    scope: ProjectScope,
    id: CommandId,
    mut wait: Box<Wait>,
) -> ApiResult<(ProjectScope, Command)> {
    let watch = Watch::begin(app, scope.project_id, id);
    if watch.has_ended().await? {
        let command = find(app, &scope, id).await?;
        return Ok((scope, command));
    }
    let _seat = seat(app, &scope)?;
    watch.until_end(wait.time).await?;
    let command = find(app, &scope, id).await?;
    let scope = guard::again(app, &mut wait.parts).await?.ok_or_else(ApiError::no_project)?;
    Ok((scope, command))
}

/// What a command came to that its caller, who has a [`seat`], just issued; as it is where it does not end in time.
/// `None` if that cannot be read, or not be shown any more: the command is issued all the same.
pub(super) async fn outcome(
    app: &App,
    scope: &ProjectScope,
    id: CommandId,
    mut wait: Box<Wait>,
) -> Option<(ProjectScope, Command)> {
    let watch = Watch::begin(app, scope.project_id, id);
    watch.until_end(wait.time).await.ok()?;
    let command = find(app, scope, id).await.ok()?;
    Some((guard::still(app, &mut wait.parts).await?, command))
}

/// The right to wait.
pub(super) fn seat<'a>(app: &'a App, scope: &ProjectScope) -> ApiResult<Seat<'a>> {
    app.waits.take(scope.caller.user_id()).ok_or_else(|| ApiError::RateLimited(TOO_MANY))
}

/// Watches one command.
struct Watch<'a> {
    app: &'a App,
    project: ProjectId,
    id: CommandId,
    listener: Listener,
}

impl<'a> Watch<'a> {
    fn begin(app: &'a App, project: ProjectId, id: CommandId) -> Self {
        Self { app, project, id, listener: app.mesh.changes().listen(id) }
    }

    async fn has_ended(&self) -> ApiResult<bool> {
        let status = commands::status(self.app.store.as_ref(), self.project, self.id).await?;
        Ok(status.ok_or(ApiError::NotFound("command"))?.is_terminal())
    }

    /// Until it has ended, or for so long, or until the server goes down.
    async fn until_end(&self, wait: Duration) -> ApiResult<()> {
        let until = Instant::now() + wait;
        let drain = self.app.mesh.drain();
        let mut heard = std::pin::pin!(self.listener.heard());
        let mut is_over = self.has_ended().await?;
        while !is_over {
            let look_at = if self.app.mesh.is_alone() { until } else { until.min(Instant::now() + LOOK_EVERY) };
            tokio::select! {
                () = drain.cancelled() => is_over = true,
                () = &mut heard => heard.set(self.listener.heard()),
                () = sleep_until(look_at) => is_over = look_at == until,
            }
            is_over = is_over || self.has_ended().await?;
        }
        Ok(())
    }
}

const TOO_MANY: Limited = Limited { limit: WAITS_PER_USER as u32, window_seconds: 1, retry_after: 1 };
