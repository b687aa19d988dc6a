//! Prometheus metrics in text form.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use secrecy::ExposeSecret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::bearer;
use super::error::{ApiError, ApiResult};
use super::route::Route;
use crate::telemetry;

pub const ROUTES: &[Route] = &[Route::get("/metrics").own()];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Metrics of this node.
///
/// Needs the server's `metrics-token`; without one configured, answers only when the server listens on loopback.
#[utoipa::path(get, path = "/metrics", tag = "system", security(("metrics_token" = [])),
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
              (status = 401, description = "The token is missing or wrong", body = super::error::ErrorBody,
               content_type = "application/problem+json")))]
async fn metrics(State(app): State<App>, parts: Parts) -> ApiResult<impl IntoResponse> {
    let admitted = match &app.config.metrics_token {
        Some(token) => bearer(&parts)
            .is_some_and(|given| domain::secret::equal(given.as_bytes(), token.expose_secret().as_bytes())),
        None => app.config.listen.ip().is_loopback(),
    };
    if !admitted {
        return Err(ApiError::Unauthenticated { message: "the metrics token is missing or wrong", reason: None });
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render_metrics()))
}
