//! How an agent's processes fare: buffers, losses, brokers, clocks.

use std::collections::BTreeMap;

use actors::presence::OnlineState;
use axum::Json;
use axum::extract::State;
use cql::accounts::{Role, agent};
use domain::id::AgentId;
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::error::{ApiError, ApiResult};
use super::extract::path::PathId;
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] = &[Route::get("/api/v1/projects/{slug}/agents/{id}/health").member(Role::Viewer, "agents")];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health))
}

/// One process, as its newest heartbeat told.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ProcessHealthView {
    worker_id: Option<String>,
    #[schema(value_type = String, example = "online")]
    state: &'static str,
    #[schema(value_type = String, format = "date-time")]
    last_seen_at: Timestamp,
    /// Events that wait in the agent's buffer.
    buffer_depth: Option<u64>,
    /// Events that the agent gave up, ever.
    dropped_events: Option<u64>,
    /// The agent's own count of what it lost, by kind and reason.
    #[schema(value_type = Option<Object>)]
    telemetry_loss: Option<Box<RawValue>>,
    /// How far its clock is ahead of ours; beyond 60 s its frames are refused.
    clock_offset_ms: Option<i64>,
    /// By engine.
    broker_connected: BTreeMap<String, bool>,
    adapter_errors: BTreeMap<String, String>,
}

/// The processes of an agent, the newest connection first.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/agents/{id}/health", tag = "agents",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid")),
    responses((status = 200, body = Vec<ProcessHealthView>), Errors))]
async fn health(
    State(app): State<App>,
    scope: ProjectScope,
    PathId(id): PathId<AgentId>,
) -> ApiResult<Json<Vec<ProcessHealthView>>> {
    let agent = agent::get(app.store.as_ref(), scope.project_id, id).await?;
    if agent.is_none_or(|agent| agent.revoked_at.is_some()) {
        return Err(ApiError::NotFound("agent"));
    }
    let presence = app.mesh.presence().agents(scope.project_id).await?.remove(&id);
    let mut processes = presence.map(|presence| presence.processes).unwrap_or_default();
    processes.sort_by_key(|(row, _)| std::cmp::Reverse(row.last_connect_at));
    let view = |(row, online): (cql::fleet::ProcessRow, bool)| ProcessHealthView {
        worker_id: row.worker_id,
        state: if online { OnlineState::Online } else { OnlineState::Offline }.as_str(),
        last_seen_at: row.last_seen_at,
        buffer_depth: row.health.buffer_size,
        dropped_events: row.health.dropped_events,
        telemetry_loss: row.health.telemetry_loss.and_then(|json| RawValue::from_string(json).ok()),
        clock_offset_ms: row.health.clock_offset_ms,
        broker_connected: row.health.broker_connected,
        adapter_errors: row.health.adapter_errors,
    };
    Ok(Json(processes.into_iter().map(view).collect()))
}
