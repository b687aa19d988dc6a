//! Engine workers by their engine-native names, alone and beside their agents (contract D15, D30, M133, M134).

use std::collections::HashMap;

use actors::presence::WorkerView as Seen;
use axum::Json;
use axum::extract::State;
use cql::accounts::{Role, agent};
use cql::stats;
use domain::engine::Engine;
use domain::id::{AgentId, ProjectId, WorkerRowId};
use domain::stats::{WorkerCounts, worker_key};
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::auth::ProjectScope;
use super::error::{ApiError, ApiResult};
use super::extract::path::PathId;
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/workers").member(Role::Viewer, "workers"),
    Route::get("/api/v1/projects/{slug}/workers/{id}").member(Role::Viewer, "workers"),
    Route::get("/api/v1/projects/{slug}/agents/{id}/workers").member(Role::Viewer, "agents"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(detail)).routes(routes!(of_agent))
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct WorkerView {
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    #[schema(value_type = String, format = "uuid")]
    project_id: ProjectId,
    #[schema(value_type = String, example = "celery")]
    engine: Engine,
    /// The engine's own name; what commands take as `worker_name`.
    #[schema(example = "worker-1@host")]
    name: String,
    hostname: Option<String>,
    pid: Option<i64>,
    concurrency: Option<u32>,
    queues: Vec<String>,
    /// `online` or `offline`.
    #[schema(example = "online")]
    state: &'static str,
    #[schema(value_type = String, format = "date-time")]
    last_heartbeat: Timestamp,
    /// Over 1, 5 and 15 minutes.
    load_average: Option<Vec<f64>>,
    active_tasks: Option<u32>,
    /// Tasks that ended on it within the retention.
    processed: i64,
    failed: i64,
    succeeded: i64,
    retried: i64,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    /// Agents whose heartbeats or events name it.
    #[schema(value_type = Vec<String>)]
    agent_ids: Vec<AgentId>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct WorkerDetail {
    #[serde(flatten)]
    worker: WorkerView,
    /// An agent that commands for this worker can go through.
    #[schema(value_type = Option<String>, format = "uuid")]
    agent_id: Option<AgentId>,
    /// What the engine says of it: `stats, active, active_queues, registered, conf`, as far as it was told.
    #[schema(value_type = Object)]
    metadata: Value,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AgentWorker {
    #[schema(value_type = String, format = "uuid")]
    agent_id: AgentId,
    #[schema(example = "worker-1@host")]
    worker_name: String,
    #[serde(flatten)]
    worker: WorkerView,
}

/// Workers and what they did.
struct Fleet {
    project: ProjectId,
    seen: Vec<Seen>,
    counts: HashMap<u64, WorkerCounts>,
}

impl Fleet {
    async fn read(app: &App, project: ProjectId) -> ApiResult<Self> {
        let now = app.clock.now();
        let since = now.plus_secs(-app.mesh.tasks().retention_secs());
        let seen = app.mesh.presence().workers(project).await?;
        let counts = if seen.is_empty() {
            HashMap::new()
        } else {
            stats::workers(app.store.as_ref(), project, since, now).await?
        };
        Ok(Self { project, seen, counts })
    }

    fn view(&self, seen: &Seen) -> WorkerView {
        let row = &seen.row;
        let counts = self.counts.get(&worker_key(&row.name)).copied().unwrap_or_default();
        WorkerView {
            id: row.id,
            project_id: self.project,
            engine: row.engine,
            name: row.name.clone(),
            hostname: row.hostname.clone(),
            pid: row.pid,
            concurrency: row.concurrency,
            queues: row.queues.clone(),
            state: seen.state.as_str(),
            last_heartbeat: row.last_heartbeat,
            load_average: row.load_average.clone(),
            active_tasks: row.active_tasks,
            processed: counts.succeeded + counts.failed + counts.cancelled,
            failed: counts.failed,
            succeeded: counts.succeeded,
            retried: counts.retried,
            created_at: row.created_at,
            agent_ids: seen.agents.clone(),
        }
    }
}

/// Every worker of the project that an agent names, by engine and name.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/workers", tag = "workers",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = Vec<WorkerView>), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope) -> ApiResult<Json<Vec<WorkerView>>> {
    let fleet = Fleet::read(&app, scope.project_id).await?;
    Ok(Json(fleet.seen.iter().map(|seen| fleet.view(seen)).collect()))
}

/// One worker, with what its engine says of it.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/workers/{id}", tag = "workers",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid")),
    responses((status = 200, body = WorkerDetail), Errors))]
async fn detail(
    State(app): State<App>,
    scope: ProjectScope,
    PathId(id): PathId<WorkerRowId>,
) -> ApiResult<Json<WorkerDetail>> {
    let fleet = Fleet::read(&app, scope.project_id).await?;
    let seen = fleet.seen.iter().find(|seen| seen.row.id == id.uuid()).ok_or(ApiError::NotFound("worker"))?;
    let metadata = seen.row.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(Json(WorkerDetail {
        worker: fleet.view(seen),
        agent_id: seen.agents.first().copied(),
        metadata: metadata.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
    }))
}

/// The workers that an agent names: pairs of agent and worker, ready for commands.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/agents/{id}/workers", tag = "agents",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid")),
    responses((status = 200, body = Vec<AgentWorker>), Errors))]
async fn of_agent(
    State(app): State<App>,
    scope: ProjectScope,
    PathId(id): PathId<AgentId>,
) -> ApiResult<Json<Vec<AgentWorker>>> {
    let agent = agent::get(app.store.as_ref(), scope.project_id, id).await?;
    if agent.is_none_or(|agent| agent.revoked_at.is_some()) {
        return Err(ApiError::NotFound("agent"));
    }
    let fleet = Fleet::read(&app, scope.project_id).await?;
    let named = fleet.seen.iter().filter(|seen| seen.agents.contains(&id));
    let pair = |seen: &Seen| AgentWorker { agent_id: id, worker_name: seen.row.name.clone(), worker: fleet.view(seen) };
    Ok(Json(named.map(pair).collect()))
}
