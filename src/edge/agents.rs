//! Agents: credentials of the processes that report tasks and run commands.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cql::accounts::{Agent, Role, agent};
use domain::id::AgentId;
use domain::ledger::entry::TokenKind;
use domain::secret::Token;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::audit::{self, Doer};
use super::auth::ProjectScope;
use super::error::{ApiError, ApiResult};
use super::extract::path::PathId;
use super::extract::{Body, Fields, FromFields, parse};
use super::openapi::Errors;
use super::presence::{AgentView, agent_state};
use super::route::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/agents").member(Role::Viewer, "agents"),
    Route::post("/api/v1/projects/{slug}/agents").member(Role::Admin, "agents"),
    Route::delete("/api/v1/projects/{slug}/agents/{id}").member(Role::Admin, "agents"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, mint)).routes(routes!(revoke))
}

/// The agents of a project that are not revoked.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/agents", tag = "agents",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = Vec<AgentView>), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope) -> ApiResult<Json<Vec<AgentView>>> {
    let mut presences = app.mesh.presence().agents(scope.project_id).await?;
    let agents = agent::of_project(app.store.as_ref(), scope.project_id).await?;
    Ok(Json(agents.iter().map(|agent| agent_state(agent, presences.remove(&agent.id))).collect()))
}

#[derive(Debug, utoipa::ToSchema)]
struct MintAgent {
    #[schema(min_length = 1, max_length = 200, example = "worker-1")]
    name: String,
}

impl FromFields for MintAgent {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", parse::name(1..=200));
        Some(Self { name: name? })
    }
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Minted {
    agent: AgentView,
    /// `Z4J_TOKEN`; shown this once.
    token: String,
    /// `Z4J_HMAC_SECRET`; shared by the agents of the project.
    hmac_secret: String,
}

/// Mints an agent. Its token is shown once.
#[utoipa::path(post, path = "/api/v1/projects/{slug}/agents", tag = "agents",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)), request_body = MintAgent,
    responses((status = 201, body = Minted), Errors))]
async fn mint(
    State(app): State<App>,
    scope: ProjectScope,
    Body(request): Body<MintAgent>,
) -> ApiResult<(StatusCode, Json<Minted>)> {
    let (now, token) = (app.clock.now(), Token::mint_agent());
    let agent = Agent {
        id: AgentId::mint(now),
        project: scope.project_id,
        name: request.name,
        token_hash: app.master.agent_token_hash(token.expose()).bytes(),
        created_at: now,
        created_by: Some(scope.caller.user_id()),
        revoked_at: None,
    };
    agent::create(app.store.as_ref(), &agent).await?;
    let minted = audit::minted(TokenKind::Agent, agent.id.uuid(), &agent.name);
    audit::note(&app, scope.project_id, Doer::from(&scope.caller), minted).await;
    let body = Minted {
        agent: agent_state(&agent, None),
        token: token.expose().to_owned(),
        hmac_secret: app.master.project_secret(scope.project_id).to_text().to_string(),
    };
    Ok((StatusCode::CREATED, Json(body)))
}

/// Revokes an agent and closes its sockets. Repeating it changes nothing.
#[utoipa::path(delete, path = "/api/v1/projects/{slug}/agents/{id}", tag = "agents",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid")),
    responses((status = 204, description = "Revoked"), Errors))]
async fn revoke(State(app): State<App>, scope: ProjectScope, PathId(id): PathId<AgentId>) -> ApiResult<StatusCode> {
    let agent = agent::get(app.store.as_ref(), scope.project_id, id).await?.ok_or(ApiError::NotFound("agent"))?;
    if agent.revoked_at.is_none() {
        agent::revoke(app.store.as_ref(), &agent, app.clock.now()).await?;
        let revoked = audit::revoked(TokenKind::Agent, agent.id.uuid(), &agent.name);
        audit::note(&app, scope.project_id, Doer::from(&scope.caller), revoked).await;
    }
    app.mesh.close_agent(id);
    Ok(StatusCode::NO_CONTENT)
}
