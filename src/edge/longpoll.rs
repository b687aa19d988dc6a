//! The long-poll twins of the agents' WebSocket (WIRE section 9).
//!
//! Agents react to the status: 401 and 403 back off for long, 409 wants a new session, 413 halves the batch, 422
//! halves and then drops, anything else is tried again.

use std::time::Duration;

use actors::session::SessionFacts;
use actors::session::polled::{Polled, UploadError};
use axum::Json;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use cql::accounts::{AgentCredential, agent_by_token};
use domain::id::SessionId;
use domain::wire::SessionKey;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::UPLOAD_MAX;
use super::app::App;
use super::auth::{Client, bearer};
use super::error::{ApiError, ApiResult, Denied};
use super::extract::body::{read, strict_value};
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;

const NONCE: &str = "x-z4j-session-nonce";
const FEATURES: &str = "x-z4j-runtime-features";
const AGENT: HeaderName = HeaderName::from_static("x-z4j-agent-id");
const PROJECT: HeaderName = HeaderName::from_static("x-z4j-project-id");
/// Longest nonce; agents send 22 characters.
const NONCE_MAX: usize = 64;
const FRAMES_MAX: usize = 500;
const FRAME_CHARS_MAX: usize = 1 << 20;

pub const ROUTES: &[Route] = &[Route::post("/api/v1/agent/events").own(), Route::get("/api/v1/agent/commands").own()];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(commands)).layer(DefaultBodyLimit::max(UPLOAD_MAX))
}

/// Who calls, and in which session.
struct Caller {
    credential: AgentCredential,
    nonce: String,
    features: Vec<String>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        const UNKNOWN: ApiError = ApiError::Unauthenticated { message: "unknown or revoked agent token", reason: None };
        app.connects.check(Client::of(app, parts).ip)?;
        let token = bearer(parts).ok_or(UNKNOWN)?;
        let hash = app.master.agent_token_hash(token).bytes();
        let credential = agent_by_token(app.store.as_ref(), &hash).await?.filter(|agent| !agent.revoked);
        let credential = credential.ok_or(UNKNOWN)?;
        if credential.project_archived {
            return Err(ApiError::Forbidden(Denied::ProjectInactive));
        }
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let nonce = header(NONCE).filter(|nonce| (1..=NONCE_MAX).contains(&nonce.len())).ok_or_else(|| {
            ApiError::BadRequest { code: "bad_request", message: format!("the header {NONCE} is missing or too long") }
        })?;
        let features = header(FEATURES).unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
        let features = features.take(64).map(|word| domain::redact::text(word).into_owned()).collect();
        Ok(Self { nonce: nonce.to_owned(), features, credential })
    }
}

impl Caller {
    /// Agents bind their signatures to the ids of these headers.
    fn named(&self, response: impl IntoResponse) -> Response {
        let mut response = response.into_response();
        for (name, id) in [(AGENT, self.credential.agent.to_string()), (PROJECT, self.credential.project.to_string())] {
            if let Ok(value) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    async fn open(&self, app: &App) -> ApiResult<std::sync::Arc<Polled>> {
        let AgentCredential { agent, project, .. } = self.credential;
        actors::meters::name_project(project, &self.credential.project_slug);
        let now = app.clock.now();
        let secret = app.master.project_secret(project);
        let key = SessionKey::new(secret.as_bytes(), agent, project, &self.nonce);
        let facts = SessionFacts {
            session: SessionId::mint(now),
            project,
            agent,
            worker_id: Some(format!("longpoll-{}", self.nonce.chars().take(8).collect::<String>())),
            worker_role: None,
            engines: Vec::new(),
            capabilities: Default::default(),
            said_hello: false,
            connected_at: now,
        };
        let opened = app.mesh.polled().open(&app.mesh, facts, &self.nonce, key, self.features.clone()).await;
        opened.ok_or_else(expired)
    }
}

fn expired() -> ApiError {
    ApiError::conflict("the session is not valid any more; probe again with a new nonce")
}

/// The frames of an upload.
struct Upload(Vec<String>);

impl FromFields for Upload {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let frame = |value: &serde_json::Value| match value.as_str() {
            Some(text) if text.len() <= FRAME_CHARS_MAX => Ok(text.to_owned()),
            Some(_) => Err(parse::wrong("string_too_long", "a frame has at most 1 MiB")),
            None => Err(parse::wrong("string_type", "Input should be a valid string")),
        };
        fields.required("frames", parse::list(1..=FRAMES_MAX, frame)).map(Self)
    }
}

/// What the frames routes carry.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes bodies to OpenAPI")]
struct Frames {
    /// Signed frames as JSON texts.
    #[schema(min_items = 1, max_items = 500)]
    frames: Vec<String>,
}

/// Frames for the agent, none when nothing came up in time.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the answer to OpenAPI")]
struct CommandFrames {
    /// Signed frames as JSON texts.
    #[schema(max_items = 500)]
    frames: Vec<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the answer to OpenAPI")]
struct Uploaded {
    /// Frames that need not be sent again: all of them.
    accepted: u32,
    rejected: u32,
    #[schema(max_items = 10)]
    errors: Vec<String>,
    #[schema(required)]
    error_code: Option<String>,
}

/// Takes an agent's frames; the answer comes when their events are durable.
#[utoipa::path(post, path = "/api/v1/agent/events", tag = "agent", request_body = Frames,
    params(("x-z4j-session-nonce" = String, Header, min_length = 1, max_length = 64, description = "The session; opened by a probe")),
    responses((status = 200, body = Uploaded), Errors))]
async fn events(State(app): State<App>, caller: Caller, request: Request) -> ApiResult<Response> {
    let bytes = read(request, &app, UPLOAD_MAX).await?;
    let Upload(frames) = strict_value(&bytes)?;
    let agent = caller.credential.agent;
    let session = app.mesh.polled().get(agent, &caller.nonce).ok_or_else(expired)?;
    match session.upload(&frames).await {
        Ok(useless) => {
            let errors = if useless == 0 { vec![] } else { vec![format!("{useless} frames were of no use")] };
            Ok(caller.named(Json(json!({
                "accepted": frames.len(), "rejected": 0, "errors": errors, "error_code": null,
            }))))
        }
        Err(UploadError::Violated) => {
            app.mesh.polled().close(agent, &caller.nonce).await;
            Err(expired())
        }
        Err(UploadError::NotDurable) => Err(ApiError::Unavailable {
            code: "store_unavailable",
            message: "the events are not durable yet; send them again",
        }),
    }
}

#[derive(Debug)]
struct Poll {
    wait: u64,
    frames_max: usize,
}

impl FromFields for Poll {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let wait = fields.optional("wait", parse::integer(0..=60)).unwrap_or(30);
        let frames_max = fields.optional("max_frames", parse::integer(0..=FRAMES_MAX as i64)).unwrap_or(50);
        Some(Self { wait: wait.unsigned_abs(), frames_max: frames_max as usize })
    }
}

/// Hands out an agent's command frames, waiting for one; with `max_frames=0` it opens the session only.
#[utoipa::path(get, path = "/api/v1/agent/commands", tag = "agent",
    params(("x-z4j-session-nonce" = String, Header, min_length = 1, max_length = 64, description = "The session"),
        ("wait" = Option<u32>, Query, maximum = 60, description = "Seconds, 0 to 60 (30)"),
        ("max_frames" = Option<u32>, Query, maximum = 500, description = "0 to 500 (50)")),
    responses((status = 200, body = CommandFrames), Errors))]
async fn commands(State(app): State<App>, caller: Caller, Query(poll): Query<Poll>) -> ApiResult<Response> {
    let session = caller.open(&app).await?;
    match session.poll(Duration::from_secs(poll.wait), poll.frames_max).await {
        Some(frames) => Ok(caller.named(Json(json!({ "frames": frames })))),
        None => {
            app.mesh.polled().close(caller.credential.agent, &caller.nonce).await;
            Err(expired())
        }
    }
}
