//! Whether the server lives, and whether it can serve.

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

pub const ROUTES: &[Route] = &[
    Route::get("/health").public(),
    Route::get("/health/ready").public(),
    Route::get("/api/v1/health").public(),
    Route::get("/api/v1/health/ready").public(),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .route("/health", axum::routing::get(health))
        .route("/health/ready", axum::routing::get(ready))
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
