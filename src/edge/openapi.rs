//! The OpenAPI 3.1 document, generated from the handlers, and the parts that no handler names.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::{Detail, ErrorBody, Problem};
use super::route::Route;

pub const ROUTES: &[Route] = &[Route::get("/api/v1/openapi.json").public()];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(document))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Thalamus",
        description = "Control plane for task queues: every task seen, every command run once.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody, Problem, Detail))
)]
struct Frame;

/// The document before any route.
pub fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// Adds the ways to authenticate.
pub fn finish(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let components = document.components.get_or_insert_default();
    let session = ApiKey::Cookie(ApiKeyValue::with_description(
        "z4j_session",
        "A browser session; over https the cookie is `__Host-z4j_session`. Unsafe methods also need `X-CSRF-Token`.",
    ));
    components.add_security_scheme("session", SecurityScheme::ApiKey(session));
    let bearer = |what: &str| {
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(what)).build())
    };
    components.add_security_scheme("api_key", bearer("An API key, `z4k_...`"));
    components.add_security_scheme("metrics_token", bearer("The server's `metrics-token`"));
    document
}

/// The errors that every route can answer.
#[derive(utoipa::IntoResponses)]
pub enum Errors {
    #[response(status = 400, description = "The request is not understood", content_type = "application/problem+json")]
    BadRequest(ErrorBody),
    #[response(status = 401, description = "Nobody is logged in", content_type = "application/problem+json")]
    Unauthenticated(ErrorBody),
    #[response(status = 403, description = "Not allowed", content_type = "application/problem+json")]
    Forbidden(ErrorBody),
    #[response(status = 404, description = "Not found, or not the caller's", content_type = "application/problem+json")]
    NotFound(ErrorBody),
    #[response(
        status = 409,
        description = "In conflict with what is stored",
        content_type = "application/problem+json"
    )]
    Conflict(ErrorBody),
    #[response(status = 413, description = "The body is too large", content_type = "application/problem+json")]
    TooLarge(ErrorBody),
    #[response(status = 415, description = "The body is not JSON", content_type = "application/problem+json")]
    NotJson(ErrorBody),
    #[response(
        status = 422,
        description = "The request does not fit the schema",
        content_type = "application/problem+json"
    )]
    Invalid(ErrorBody),
    #[response(status = 429, description = "Too many requests", content_type = "application/problem+json")]
    RateLimited(ErrorBody),
    #[response(status = 503, description = "The store does not answer", content_type = "application/problem+json")]
    Unavailable(ErrorBody),
}

/// The OpenAPI document of this server.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "system",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn document(State(app): State<App>) -> impl IntoResponse {
    let document = app.openapi.get().cloned().unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], document)
}
