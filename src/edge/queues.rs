//! Queues, and what an agent wants to hear before it purges one (contract D18).

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use cql::accounts::{Role, agent};
use domain::engine::Engine;
use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::auth::ProjectScope;
use super::error::{ApiError, ApiResult, Problem};
use super::extract::path::parameter;
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;
use super::tasks::engine;
use super::words;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/queues").member(Role::Viewer, "queues"),
    Route::get("/api/v1/projects/{slug}/queues/{name}/purge-token").member(Role::Admin, "queues"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(purge_token))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct QueueView {
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    #[schema(value_type = String, format = "uuid")]
    project_id: ProjectId,
    #[schema(example = "default")]
    name: String,
    #[schema(value_type = String, example = "celery")]
    engine: Engine,
    broker_type: Option<String>,
    /// Always null: no agent tells it.
    #[schema(required)]
    broker_url_hint: Option<String>,
    /// Waiting messages, where an agent can measure them.
    depth: Option<u64>,
    #[schema(value_type = Option<String>, format = "date-time")]
    measured_at: Option<Timestamp>,
    #[schema(value_type = String, format = "date-time")]
    last_seen_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
}

/// Every queue of the project that an event or a heartbeat names, by engine and name.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/queues", tag = "queues",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = Vec<QueueView>), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope) -> ApiResult<Json<Vec<QueueView>>> {
    let queues = app.mesh.presence().queues(scope.project_id).await?.into_iter().map(|queue| queue.row);
    let view = |row: cql::fleet::QueueRow| QueueView {
        id: row.id,
        project_id: scope.project_id,
        name: row.name,
        engine: row.engine,
        broker_type: row.broker_type,
        broker_url_hint: None,
        depth: row.depth,
        measured_at: row.measured_at,
        last_seen_at: row.last_seen_at,
        created_at: row.created_at,
    };
    Ok(Json(queues.map(view).collect()))
}

struct QueueName(String);

impl<S: Send + Sync> FromRequestParts<S> for QueueName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        parameter(parts, "name").await.map(Self)
    }
}

#[derive(Debug)]
struct TokenQuery {
    agent: AgentId,
    engine: Option<Engine>,
}

impl FromFields for TokenQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let agent = fields.required("agent_id", parse::id);
        let engine = fields.optional("engine", engine);
        Some(Self { agent: agent?, engine })
    }
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PurgeToken {
    queue: String,
    #[schema(value_type = String, format = "uuid")]
    agent_id: AgentId,
    #[schema(value_type = String, example = "celery")]
    engine: Engine,
    /// Waiting messages at `measured_at`; a purge is refused when there are more or fewer by then.
    observed_depth: u64,
    #[schema(value_type = String, format = "date-time")]
    measured_at: Timestamp,
    /// For `POST commands/purge-queue`.
    confirm_token: String,
}

/// The token that confirms a purge of the queue as the agent measured it last.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/queues/{name}/purge-token", tag = "queues",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("name" = String, Path), ("agent_id" = String, Query, format = "uuid"),
        ("engine" = inline(Option<words::Engine>), Query, description = "Needed when the agent has several")),
    responses((status = 200, body = PurgeToken), Errors))]
async fn purge_token(
    State(app): State<App>,
    scope: ProjectScope,
    QueueName(queue): QueueName,
    Query(query): Query<TokenQuery>,
) -> ApiResult<Json<PurgeToken>> {
    let TokenQuery { agent: agent_id, engine } = query;
    let agent = agent::get(app.store.as_ref(), scope.project_id, agent_id).await?;
    if agent.is_none_or(|agent| agent.revoked_at.is_some()) {
        return Err(ApiError::NotFound("agent"));
    }
    let engine = engine_of(&app, scope.project_id, agent_id, engine).await?;
    let row = app.mesh.presence().queue_of(scope.project_id, engine, agent_id, &queue).await?;
    let measured = row.and_then(|row| row.depth.zip(row.measured_at));
    let (observed_depth, measured_at) = measured.ok_or_else(|| {
        ApiError::conflict(format!("the agent has not measured the depth of this {engine} queue; purge it with force"))
    })?;
    let secret = app.master.project_secret(scope.project_id);
    let confirm_token = secret.purge_token(&queue, observed_depth);
    Ok(Json(PurgeToken { queue, agent_id, engine, observed_depth, measured_at, confirm_token }))
}

/// The engine asked for, which must be one of the agent's, or its only one.
async fn engine_of(app: &App, project: ProjectId, agent: AgentId, asked: Option<Engine>) -> ApiResult<Engine> {
    let refused = |msg: String| ApiError::invalid(Problem::new("value_error", &["query", "engine"], msg));
    let names = app.mesh.presence().standing(project, agent).await?.engines;
    let engines: Vec<Engine> = names.iter().filter_map(|name| name.parse().ok()).collect();
    match (asked, &engines[..]) {
        (_, []) => Err(ApiError::conflict("the agent has not told its engines; it never connected")),
        (Some(engine), engines) if engines.contains(&engine) => Ok(engine),
        (None, [engine]) => Ok(*engine),
        (Some(_) | None, _) => {
            Err(refused(format!("Input should be one of the agent's engines: {}", names.join(", "))))
        }
    }
}
