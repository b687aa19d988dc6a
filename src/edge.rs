//! The HTTP edge: the route table, the layers, one file per resource. It holds no business rule.
//!
//! ```text
//! app        what every handler can reach
//! resources  the list of resources; route: who may call what, as data
//! layers     request ids, the guard, panics, the error envelope, headers: around everything
//! auth       who is calling; guard: enforces the route table
//! extract    typed, strict ways into a request
//! error      the one error and its one mapping
//! cursor     page cursors; sheet: spreadsheets of any rows
//! audit      what account changes leave in the ledger
//! listener   the listening socket
//! presence   what agents said about themselves
//! seats      what a user may hold open at a time
//! ```
//! The remaining modules are resources.

pub mod agent_health;
pub mod agent_workers;
pub mod agents;
pub mod api_keys;
pub mod app;
pub mod audit;
pub mod audit_log;
pub mod auth;
pub mod commands;
pub mod cursor;
pub mod error;
pub mod events;
pub mod extract;
pub mod health;
pub mod layers;
pub mod listener;
pub mod live;
pub mod login;
pub mod longpoll;
pub mod memberships;
pub mod metrics;
pub mod openapi;
pub mod presence;
pub mod projects;
pub mod queues;
pub mod resources;
pub mod route;
pub mod seats;
pub mod sessions;
pub mod sheet;
pub mod socket;
pub mod stats;
pub mod tasks;
pub mod trends;
pub mod users;
pub mod words;
pub mod worker_lint;
pub mod workers;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use app::App;
use error::ApiError;

/// Largest request body but for agents' uploads (contract D24).
pub const BODY_MAX: usize = 1024 * 1024;
/// Largest upload of a long-poll agent (contract D24).
pub const UPLOAD_MAX: usize = 8 * 1024 * 1024;

fn routes() -> OpenApiRouter<App> {
    resources::RESOURCES
        .iter()
        .fold(OpenApiRouter::with_openapi(openapi::frame()), |router, resource| router.merge((resource.router)()))
}

/// The OpenAPI document of every route.
pub fn document() -> OpenApi {
    openapi::finish(routes().into_openapi())
}

/// The whole edge.
pub fn router(app: App) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = openapi::finish(document).to_json().unwrap_or_default();
    app.openapi.get_or_init(|| document);
    router
        .fallback(async || ApiError::NotFound("route"))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed { allow: String::new() })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(app.clone(), layers::envelope))
        .with_state(app)
}
