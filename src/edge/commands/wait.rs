//! A request for one command that waits until it has ended, so that nobody has to ask again and again.
//!
//! It listens before it looks, so no end is missed, and it looks again after each word. What another node ends makes
//! no sound here, so where nodes share a store it also looks from time to time. It holds no lock and no row while it
//! waits, and goes with its connection.

use std::time::Duration;

use axum::http::request::Parts;
use cql::ledger::commands;
use domain::command::Command;
use domain::id::CommandId;
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::find;
use crate::edge::app::App;
use crate::edge::auth::{ProjectScope, guard};
use crate::edge::error::{ApiError, ApiResult, Limited};
use crate::edge::extract::{Fields, FromFields, parse};

/// Requests of one user that may wait at a time; one more is refused.
pub(in crate::edge) const WAITS_PER_USER: usize = 256;

const WAIT_MAX_SECS: i64 = 30;

/// How often a command is looked at that another node may end.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long to wait.
#[derive(Debug)]
pub(super) struct WaitQuery {
    /// `None`: not at all.
    pub(super) wait: Option<Duration>,
}

impl FromFields for WaitQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let secs = fields.optional("wait", parse::integer(0..=WAIT_MAX_SECS));
        let wait = secs.filter(|secs| *secs > 0).map(|secs| Duration::from_secs(secs.unsigned_abs()));
        Some(Self { wait })
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

/// A command that has ended, or as it is after `wait` or when the server goes down; and what its caller may see by
/// then.
pub(super) async fn ended(
    app: &App,
    scope: ProjectScope,
    id: CommandId,
    wait: Duration,
    mut parts: Parts,
) -> ApiResult<(ProjectScope, Command)> {
    let until = Instant::now() + wait;
    let drain = app.mesh.drain();
    let listener = app.mesh.changes().listen(id);
    let mut heard = std::pin::pin!(listener.heard());
    if has_ended(app, &scope, id).await? {
        let command = find(app, &scope, id).await?;
        return Ok((scope, command));
    }
    let _seat = app.waits.take(scope.caller.user_id()).ok_or_else(|| ApiError::RateLimited(TOO_MANY))?;
    let mut is_over = false;
    while !is_over {
        let look_at = if app.mesh.is_alone() { until } else { until.min(Instant::now() + LOOK_EVERY) };
        tokio::select! {
            () = drain.cancelled() => is_over = true,
            () = &mut heard => heard.set(listener.heard()),
            () = sleep_until(look_at) => is_over = look_at == until,
        }
        is_over = is_over || has_ended(app, &scope, id).await?;
    }
    let command = find(app, &scope, id).await?;
    let scope = guard::again(app, &mut parts).await?.ok_or_else(ApiError::no_project)?;
    Ok((scope, command))
}

async fn has_ended(app: &App, scope: &ProjectScope, id: CommandId) -> ApiResult<bool> {
    let status = commands::status(app.store.as_ref(), scope.project_id, id).await?;
    Ok(status.ok_or(ApiError::NotFound("command"))?.is_terminal())
}

const TOO_MANY: Limited = Limited { limit: WAITS_PER_USER as u32, window_seconds: 1, retry_after: 1 };
