//! The caller's own browser sessions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cql::accounts::login;
use domain::id::{UserId, WebSessionId};
use domain::time::Timestamp;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::{Caller, Via};
use super::error::{ApiError, ApiResult};
use super::extract::path::PathId;
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/auth/sessions").session(),
    Route::post("/api/v1/auth/sessions/{id}/revoke").session(),
    Route::post("/api/v1/auth/sessions/revoke-others").session(),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(revoke)).routes(routes!(revoke_others))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SessionView {
    #[schema(value_type = String, format = "uuid")]
    id: WebSessionId,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    last_seen_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    expires_at: Timestamp,
    ip: String,
    user_agent: Option<String>,
    /// Whether this very request came with it.
    is_current: bool,
}

fn current(caller: &Caller) -> Option<WebSessionId> {
    match &caller.via {
        Via::Session { id, .. } => Some(*id),
        Via::Key { .. } => None,
    }
}

/// The caller's sessions, newest first.
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "auth", security(("session" = [])),
    responses((status = 200, body = Vec<SessionView>), Errors))]
async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<SessionView>>> {
    let sessions = login::of_user(app.store.as_ref(), caller.user_id(), app.clock.now()).await?;
    let current = current(&caller);
    let view = |(_, session): (_, login::Login)| SessionView {
        is_current: current == Some(session.id),
        id: session.id,
        created_at: session.created_at,
        last_seen_at: session.last_seen_at,
        expires_at: session.expires_at,
        ip: session.ip,
        user_agent: session.user_agent,
    };
    Ok(Json(sessions.into_iter().rev().map(view).collect()))
}

/// Ends one of the caller's sessions.
#[utoipa::path(post, path = "/api/v1/auth/sessions/{id}/revoke", tag = "auth", security(("session" = [])),
    params(("id" = String, Path, format = "uuid")), responses((status = 204, description = "Ended"), Errors))]
async fn revoke(State(app): State<App>, caller: Caller, PathId(id): PathId<WebSessionId>) -> ApiResult<StatusCode> {
    let sessions = login::of_user(app.store.as_ref(), caller.user_id(), app.clock.now()).await?;
    let Some((hash, session)) = sessions.into_iter().find(|(_, session)| session.id == id) else {
        return Err(ApiError::NotFound("session"));
    };
    login::remove(app.store.as_ref(), &hash, &session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all of the caller's sessions but this one.
#[utoipa::path(post, path = "/api/v1/auth/sessions/revoke-others", tag = "auth", security(("session" = [])),
    responses((status = 204, description = "Ended"), Errors))]
async fn revoke_others(State(app): State<App>, caller: Caller) -> ApiResult<StatusCode> {
    end_all_but(&app, caller.user_id(), current(&caller)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a user's sessions, but for one.
pub(super) async fn end_all_but(app: &App, user: UserId, keep: Option<WebSessionId>) -> ApiResult<()> {
    for (hash, session) in login::of_user(app.store.as_ref(), user, app.clock.now()).await? {
        if Some(session.id) != keep {
            login::remove(app.store.as_ref(), &hash, &session).await?;
        }
    }
    Ok(())
}
