//! Around every request: its id, panics, the error envelope, the headers that every answer carries.

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::BODY_MAX;
use super::app::App;
use super::auth::guard::guard;
use super::error::{self, ApiError, Refusal};

/// `req_` and 16 hex digits; in every answer's `X-Request-Id` and in every error body.
#[derive(Clone, Copy, Debug)]
struct RequestId(u64);

impl RequestId {
    /// Different from all others of this process, and most likely from those of others. It keeps nothing secret, so the
    /// operating system is asked once and not with every request.
    fn mint() -> Self {
        static SEED: LazyLock<u64> = LazyLock::new(|| u64::from_be_bytes(domain::id::random()));
        static MINTED: AtomicU64 = AtomicU64::new(0);
        let number = MINTED.fetch_add(1, Ordering::Relaxed);
        // The steps of splitmix64; each can be undone, so no two numbers meet.
        let mut bits = SEED.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(bits ^ (bits >> 31))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "req_{:016x}", self.0)
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An API answers no page, frame or script: everything a browser could do with an answer is switched off.
static SECURITY: [(HeaderName, HeaderValue); 8] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-embedder-policy"), HeaderValue::from_static("require-corp")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

/// Guards and runs a request, and makes its answer presentable.
pub async fn envelope(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = RequestId::mint();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let started = Instant::now();
    // At the level of debugging, for it costs as much as a look into the store; what fails is logged with its id anyway.
    let span = tracing::debug_span!("request", request.id = %id, http.method = %method, http.route = route);
    let run = AssertUnwindSafe(guard(&app, request, next)).catch_unwind().instrument(span);
    let response = match run.await {
        Ok(response) => response,
        // The panic hook has logged where and why.
        Err(_) => ApiError::Internal("a handler panicked".into()).into_response(),
    };
    let response = presentable(response, id, &method, route);
    let status = response.status();
    let labels = [("method", method.to_string()), ("route", route.to_owned()), ("status", status.as_str().to_owned())];
    metrics::histogram!("thalamus_http_request_seconds", &labels).record(started.elapsed().as_secs_f64());
    response
}

fn presentable(response: Response, id: RequestId, method: &Method, route: &str) -> Response {
    let id = id.to_string();
    let mut response = rendered(response, &id);
    let status = response.status();
    if status.is_server_error() {
        tracing::warn!(request.id = id, http.method = %method, http.route = route, http.status = status.as_u16(), "request failed");
    }
    let headers = response.headers_mut();
    headers.reserve(SECURITY.len() + 2);
    for (name, value) in &SECURITY {
        headers.insert(name, value.clone());
    }
    // Answers depend on who asks; no cache between us and the caller may keep one.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

/// Gives an error its body. Answers of the framework itself get the same envelope.
fn rendered(mut response: Response, id: &str) -> Response {
    let status = response.status();
    let refusal = match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal,
        None if status.is_client_error() || status.is_server_error() => return foreign(response, id),
        None => return response,
    };
    if let Some(cause) = &refusal.cause {
        tracing::error!(request.id = id, error = %chain(cause.as_ref()), "internal error");
    }
    let body = error::body(status, refusal, id);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

fn foreign(response: Response, id: &str) -> Response {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn request_ids_differ_and_have_one_form() {
        let ids: HashSet<String> = (0..10_000).map(|_| RequestId::mint().to_string()).collect();
        assert_eq!(ids.len(), 10_000);
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(
            ids.iter().all(|id| id.len() == 20 && id.strip_prefix("req_").is_some_and(|hex| hex.bytes().all(is_hex)))
        );
    }
}
