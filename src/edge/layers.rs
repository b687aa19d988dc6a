//! Around every request: its id, panics, the error envelope, the headers that every answer carries.

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::BODY_MAX;
use super::error::{self, ApiError, Refusal};

/// `req_` and 16 hex digits; in every answer's `X-Request-Id` and in every error body.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

impl RequestId {
    fn mint() -> Self {
        Self(format!("req_{}", hex::encode(domain::id::random::<8>())))
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An API answers no page, frame or script: everything a browser could do with an answer is switched off.
const SECURITY: [(&str, &str); 8] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
];

/// Runs a request and makes its answer presentable.
pub async fn envelope(mut request: Request, next: Next) -> Response {
    let id = RequestId::mint();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    request.extensions_mut().insert(id.clone());
    let started = Instant::now();
    let span = tracing::info_span!("request", request.id = %id.0, http.method = %method, http.route = %route);
    let run = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let response = match run.await {
        Ok(response) => response,
        // The panic hook has logged where and why.
        Err(_) => ApiError::Internal("a handler panicked".into()).into_response(),
    };
    let response = span.in_scope(|| presentable(response, &id));
    let status = response.status();
    let labels = [("method", method.to_string()), ("route", route), ("status", status.as_str().to_owned())];
    metrics::histogram!("thalamus_http_request_seconds", &labels).record(started.elapsed().as_secs_f64());
    response
}

fn presentable(response: Response, id: &RequestId) -> Response {
    let mut response = rendered(response, id);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, value);
    }
    for (name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // Answers depend on who asks; no cache between us and the caller may keep one.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Gives an error its body. Answers of the framework itself get the same envelope.
fn rendered(mut response: Response, id: &RequestId) -> Response {
    let status = response.status();
    let refusal = match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal,
        None if status.is_client_error() || status.is_server_error() => return foreign(response, id),
        None => return response,
    };
    if let Some(cause) = &refusal.cause {
        tracing::error!(error = %chain(cause.as_ref()), "request failed");
    }
    let body = error::body(status, refusal, &id.0);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

fn foreign(response: Response, id: &RequestId) -> Response {
    let status = response.status();
    let allow = response.headers().get(ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let error = match status {
        StatusCode::NOT_FOUND => ApiError::NotFound("route"),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed { allow },
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { limit: BODY_MAX },
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::NotJson,
        status if status.is_server_error() => ApiError::Internal(format!("answered {status}").into()),
        _ => ApiError::BadRequest { code: "bad_request", message: "the request could not be read".to_owned() },
    };
    rendered(error.into_response(), id)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
