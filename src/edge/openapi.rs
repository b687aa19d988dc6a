//! The OpenAPI 3.1 document, generated from the handlers, and the parts that no handler names.

mod examples;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoResponses, OpenApi};
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

/// Adds the ways to authenticate and the examples, and says that a body has no members but its own.
pub fn finish(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    close_bodies(&mut document);
    examples::complete(&mut document);
    examples::share_errors(&mut document, Errors::responses());
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

/// [`super::extract::Body`] refuses unknown members, so every object of a request body is closed.
fn close_bodies(document: &mut utoipa::openapi::OpenApi) {
    let mut open: Vec<String> = document.paths.paths.values().flat_map(bodies).collect();
    let Some(components) = &mut document.components else { return };
    while let Some(name) = open.pop() {
        let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(&name) else { continue };
        if object.schema_type == SchemaType::Type(Type::Object) && object.additional_properties.is_none() {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            open.extend(object.properties.values().flat_map(names));
        }
    }
}

/// The schemas of a path's request bodies.
fn bodies(item: &PathItem) -> Vec<String> {
    let operations = [&item.get, &item.post, &item.put, &item.patch, &item.delete];
    let bodies = operations.into_iter().flatten().filter_map(|operation| operation.request_body.as_ref());
    let contents = bodies.filter_map(in_place).flat_map(|body| body.content.values()).filter_map(in_place);
    contents.filter_map(|content| content.schema.as_ref()).flat_map(names).collect()
}

/// What stands here itself; our handlers name schemas only.
fn in_place<T>(value: &RefOr<T>) -> Option<&T> {
    match value {
        RefOr::T(value) => Some(value),
        RefOr::Ref(_) => None,
    }
}

/// The schemas that one refers to: itself, or one of several.
fn names(schema: &RefOr<Schema>) -> Vec<String> {
    match schema {
        RefOr::Ref(target) => target.ref_location.rsplit('/').next().map(str::to_owned).into_iter().collect(),
        RefOr::T(Schema::OneOf(several)) => several.items.iter().flat_map(names).collect(),
        RefOr::T(_) => Vec::new(),
    }
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
    responses((status = 200, description = "OpenAPI 3.1", body = Object,
        example = json!({"openapi": "3.1.0", "info": {"title": "Thalamus", "version": "0.1.0"}, "paths": {}}))))]
async fn document(State(app): State<App>) -> impl IntoResponse {
    let document = app.openapi.get().cloned().unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], document)
}
