//! Processes that connected with an agent's token.

use actors::presence::OnlineState;
use axum::Json;
use axum::extract::State;
use cql::accounts::Role;
use cql::fleet::ProcessRow;
use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::auth::ProjectScope;
use super::error::{ApiResult, Problem};
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;
use super::tasks::limit;
use super::words;

pub const ROUTES: &[Route] =
    &[Route::get("/api/v1/projects/{slug}/agent-workers").member(Role::Viewer, "agents").without_keys()];

/// Most processes that one answer lists.
const LIMIT_MAX: i64 = 500;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug)]
struct ProcessQuery {
    is_online: Option<bool>,
    role: Option<String>,
    limit: Option<usize>,
}

impl FromFields for ProcessQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            is_online: fields.optional("state", online),
            role: fields.optional("role", parse::text(1..=64)),
            limit: fields.optional("limit", limit(LIMIT_MAX)),
        })
    }
}

fn online(value: &Value) -> Result<bool, Problem> {
    match value.as_str() {
        Some("online") => Ok(true),
        Some("offline") => Ok(false),
        Some(_) | None => Err(parse::wrong("value_error", "Input should be 'online' or 'offline'")),
    }
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ProcessView {
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    #[schema(value_type = String, format = "uuid")]
    agent_id: AgentId,
    #[schema(value_type = String, format = "uuid")]
    project_id: ProjectId,
    /// As the process named itself.
    worker_id: Option<String>,
    role: Option<String>,
    #[schema(example = "bare")]
    framework: String,
    pid: Option<i64>,
    #[schema(value_type = Option<String>, format = "date-time")]
    started_at: Option<Timestamp>,
    /// `online` or `offline`.
    #[schema(example = "online")]
    state: &'static str,
    #[schema(value_type = String, format = "date-time")]
    last_seen_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    last_connect_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    updated_at: Timestamp,
}

/// The processes of the project's agents, the newest connection first.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/agent-workers", tag = "agents",
    security(("session" = [])),
    params(("slug" = String, Path), ("state" = inline(Option<words::OnlineState>), Query, example = "online"),
        ("role" = Option<String>, Query, example = "worker", min_length = 1, max_length = 64), ("limit" = Option<u32>, Query, minimum = 1, maximum = 500)),
    responses((status = 200, body = Vec<ProcessView>), Errors))]
async fn list(
    State(app): State<App>,
    scope: ProjectScope,
    Query(query): Query<ProcessQuery>,
) -> ApiResult<Json<Vec<ProcessView>>> {
    let mut processes = app.mesh.presence().processes(scope.project_id).await?;
    processes.retain(|(row, is_online)| {
        query.is_online.is_none_or(|wanted| wanted == *is_online)
            && query.role.as_deref().is_none_or(|wanted| row.role.as_deref() == Some(wanted))
    });
    processes.sort_by_key(|(row, _)| std::cmp::Reverse(row.last_connect_at));
    processes.truncate(query.limit.unwrap_or(app.config.page_size_default));
    let view = |(row, is_online): (ProcessRow, bool)| ProcessView {
        id: row.id,
        agent_id: row.agent,
        project_id: scope.project_id,
        worker_id: row.worker_id,
        role: row.role,
        framework: row.framework,
        pid: row.pid,
        started_at: row.started_at,
        state: if is_online { OnlineState::Online } else { OnlineState::Offline }.as_str(),
        last_seen_at: row.last_seen_at,
        last_connect_at: row.last_connect_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    Ok(Json(processes.into_iter().map(view).collect()))
}
