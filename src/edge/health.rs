//! Whether the server lives, and whether it can serve.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cql::{Key, Table};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::{ApiError, ApiResult};
use super::openapi::Errors;
use super::route::Route;
use super::socket::BRAIN_VERSION;

/// How long a store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub const ROUTES: &[Route] = &[
    Route::get("/health").public(),
    Route::get("/health/ready").public(),
    Route::get("/api/v1/health").public(),
    Route::get("/api/v1/health/ready").public(),
    Route::get("/health/deep").public(),
    Route::get("/health/system").public(),
    Route::get("/api/v1/health/deep").public(),
    Route::get("/api/v1/health/system").public(),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(deep))
        .routes(routes!(system))
        .route("/health", axum::routing::get(health))
        .route("/health/ready", axum::routing::get(ready))
        .route("/health/deep", axum::routing::get(deep))
        .route("/health/system", axum::routing::get(system))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    /// What an acknowledgement means: `synced` (on disk), `replicated` (in memory on a quorum) or `none`.
    #[schema(example = "synced")]
    durability: &'static str,
}

/// The process lives.
#[utoipa::path(get, path = "/api/v1/health", tag = "system", responses((status = 200, body = Health)))]
async fn health(State(app): State<App>) -> Json<Health> {
    Json(Health { status: "ok", durability: app.store.durability().as_str() })
}

/// The store answers; otherwise 503.
#[utoipa::path(get, path = "/api/v1/health/ready", tag = "system", responses((status = 200, body = Health), Errors))]
async fn ready(State(app): State<App>) -> ApiResult<Json<Health>> {
    if let Some(message) = app.opened.unfit() {
        return Err(ApiError::Unavailable { code: "not_ready", message });
    }
    app.store.get(&Key::new(Table::Setting, b"*".as_slice(), b"ready".as_slice())).await?;
    Ok(Json(Health { status: "ready", durability: app.store.durability().as_str() }))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Deep {
    /// `ok`, or `degraded` when a part is not.
    #[schema(example = "ok")]
    status: &'static str,
    store: Part,
    /// Whether agents and requests are taken.
    intake: Part,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Part {
    #[schema(example = true)]
    ok: bool,
    /// What is wrong, in words that say nothing of our insides.
    #[schema(required)]
    problem: Option<&'static str>,
}

impl Part {
    const fn new(problem: Option<&'static str>) -> Self {
        Self { ok: problem.is_none(), problem }
    }
}

/// Every part by itself; answers 200 also when one of them does not.
#[utoipa::path(get, path = "/api/v1/health/deep", tag = "system", responses((status = 200, body = Deep)))]
async fn deep(State(app): State<App>) -> Json<Deep> {
    let key = Key::new(Table::Setting, b"*".as_slice(), b"ready".as_slice());
    let unread = match tokio::time::timeout(PATIENCE, app.store.get(&key)).await {
        Ok(Ok(_)) => None,
        Ok(Err(_)) | Err(_) => Some("the store does not answer"),
    };
    let store = Part::new(app.opened.unfit().or(unread));
    let intake = Part::new(app.mesh.drain().is_cancelled().then_some("the server is going down"));
    let status = if store.ok && intake.ok { "ok" } else { "degraded" };
    Json(Deep { status, store, intake })
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct System {
    /// Of this server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Of the reference that it stands in for, as agents are told.
    #[schema(example = "1.13.0")]
    compatible_with: &'static str,
    /// Of the agent protocol.
    #[schema(example = "2")]
    protocol_version: &'static str,
    #[schema(example = "synced")]
    durability: &'static str,
}

/// Versions.
#[utoipa::path(get, path = "/api/v1/health/system", tag = "system", responses((status = 200, body = System)))]
async fn system(State(app): State<App>) -> Json<System> {
    Json(System {
        version: env!("CARGO_PKG_VERSION"),
        compatible_with: BRAIN_VERSION,
        protocol_version: domain::wire::PROTOCOL,
        durability: app.store.durability().as_str(),
    })
}
