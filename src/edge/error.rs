//! The one error of the edge, and the one place where it becomes a status and a body (contract D27).
//!
//! A handler returns [`ApiError`]; its response carries a `Refusal` without a body, which
//! [`super::layers`] renders with the request id. So an answer of the framework itself (405, 413) ends in the
//! same envelope.

use std::sync::Arc;

use actors::project::NoteError;
use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cql::StoreError;
use cql::accounts::{AccountError, Role};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub type ApiResult<T> = Result<T, ApiError>;

/// Everything a request can be refused for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{message}")]
    Unauthenticated { message: &'static str, reason: Option<&'static str> },
    #[error("{0}")]
    Forbidden(Denied),
    /// Names the kind of thing only, so that unknown and foreign look alike (contract D26).
    #[error("{0} not found")]
    NotFound(&'static str),
    #[error("method not allowed")]
    MethodNotAllowed { allow: String },
    #[error("{message}")]
    Conflict { message: String, details: Value },
    /// The request does not fit the schema.
    #[error("{}", sentence(.0))]
    Invalid(Vec<Problem>),
    /// The request is understood and can never be right, such as a cursor made for another list.
    #[error("{message}")]
    BadRequest { code: &'static str, message: String },
    #[error("the request body may have at most {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the request body must be JSON (content-type application/json)")]
    NotJson,
    #[error("too many requests; retry in {} seconds", .0.retry_after)]
    RateLimited(Limited),
    #[error("{message}")]
    Unavailable { code: &'static str, message: &'static str },
    /// Ours. The client learns nothing but the request id; the chain is logged once, where it is rendered.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why somebody who is known may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("CSRF token missing or wrong")]
    CsrfMismatch,
    #[error("requests from this origin are not accepted")]
    ForeignOrigin,
    #[error("role '{have}' is not sufficient (need at least '{need}')")]
    RoleTooLow { have: Role, need: Role },
    #[error("role '{have}' is not sufficient (need 'auditor' or 'admin')")]
    NotAuditor { have: Role },
    #[error("a global administrator is needed")]
    NotGlobalAdmin { have: Option<Role> },
    #[error("the API key lacks the scope '{required}'")]
    ScopeMissing { required: String },
    #[error("this route cannot be reached with an API key")]
    KeyNotAccepted,
    #[error("the API key is bound to another project")]
    KeyBoundElsewhere,
    #[error("the API key does not accept requests from this address")]
    AddressNotAllowed,
    #[error("the project is archived")]
    ProjectInactive,
}

/// A limit that was hit, as the headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    pub limit: u32,
    pub window_seconds: u64,
    pub retry_after: u64,
}

/// One thing wrong with a request, as reference clients read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Where: `body`, `query` or `path`, then member names and indices.
    #[schema(value_type = Vec<Value>, example = json!(["body", "name"]))]
    pub loc: Vec<Value>,
    #[schema(example = "Field required")]
    pub msg: String,
    #[serde(rename = "type")]
    #[schema(example = "missing")]
    pub kind: &'static str,
}

impl Problem {
    pub fn new(kind: &'static str, loc: &[&str], msg: impl Into<String>) -> Self {
        Self { loc: loc.iter().map(|part| Value::from(*part)).collect(), msg: msg.into(), kind }
    }
}

/// `name: Field required; agent_id: not a UUID`, at most five of them.
fn sentence(problems: &[Problem]) -> String {
    let mut parts: Vec<String> = problems.iter().take(5).map(described).collect();
    if problems.len() > 5 {
        parts.push(format!("and {} more", problems.len() - 5));
    }
    parts.join("; ")
}

fn described(problem: &Problem) -> String {
    let place = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    let path: Vec<String> = problem.loc.iter().skip(1).map(place).collect();
    if path.is_empty() { problem.msg.clone() } else { format!("{}: {}", path.join("."), problem.msg) }
}

/// What the envelope is rendered from; travels in the response's extensions.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) details: Value,
    pub(super) problems: Vec<Problem>,
    /// Logged by the renderer, never sent.
    pub(super) cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    pub fn invalid(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into(), details: json!({}) }
    }

    /// The answer to an unknown project and to a project of others, byte for byte the same.
    pub const fn no_project() -> Self {
        Self::NotFound("project")
    }

    /// More requests wait for the project than it takes; soon there will be room.
    pub const fn saturated() -> Self {
        Self::RateLimited(Limited { limit: actors::project::REQUESTS_MAX, window_seconds: 1, retry_after: 1 })
    }

    fn parts(&self) -> (StatusCode, &'static str, Value) {
        match self {
            Self::Unauthenticated { reason, .. } => {
                let details = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
                (StatusCode::UNAUTHORIZED, "unauthenticated", details)
            }
            Self::Forbidden(Denied::ProjectInactive) => (StatusCode::FORBIDDEN, "project_inactive", json!({})),
            Self::Forbidden(denied) => (StatusCode::FORBIDDEN, "forbidden", denied.details()),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", json!({})),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", json!({})),
            Self::Conflict { details, .. } => (StatusCode::CONFLICT, "conflict", details.clone()),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "validation_error", json!({})),
            Self::BadRequest { code, .. } => (StatusCode::BAD_REQUEST, code, json!({})),
            Self::TooLarge { limit } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", json!({ "limit_bytes": limit }))
            }
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", json!({})),
            Self::RateLimited(limited) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                json!({ "limit": limited.limit, "window_seconds": limited.window_seconds,
                        "retry_after": limited.retry_after }),
            ),
            Self::Unavailable { code, .. } => (StatusCode::SERVICE_UNAVAILABLE, code, json!({})),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", json!({})),
        }
    }
}

impl Denied {
    fn details(&self) -> Value {
        match self {
            Self::CsrfMismatch => json!({ "reason": "csrf_mismatch" }),
            Self::ForeignOrigin => json!({ "reason": "origin_mismatch" }),
            Self::RoleTooLow { have, need } => json!({ "have": have, "need": need }),
            Self::NotAuditor { have } => json!({ "have": have, "need": "auditor" }),
            Self::NotGlobalAdmin { have } => {
                let have = have.map_or("user", Role::as_str);
                json!({ "have": have, "need": "global_admin" })
            }
            Self::ScopeMissing { required } => json!({ "reason": "scope_missing", "required_scope": required }),
            Self::KeyNotAccepted => json!({ "reason": "api_key_not_accepted" }),
            Self::KeyBoundElsewhere => json!({ "reason": "project_mismatch" }),
            Self::AddressNotAllowed => json!({ "reason": "ip_denied" }),
            Self::ProjectInactive => json!({}),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, details) = self.parts();
        let message = self.to_string();
        let mut headers: Vec<(HeaderName, String)> = Vec::new();
        let (mut problems, mut cause) = (Vec::new(), None);
        match self {
            Self::Unauthenticated { .. } => headers.push((WWW_AUTHENTICATE, "Bearer".to_owned())),
            Self::MethodNotAllowed { allow } => headers.push((axum::http::header::ALLOW, allow)),
            Self::RateLimited(limited) => {
                headers.push((RETRY_AFTER, limited.retry_after.to_string()));
                let policy = format!("limit={}, remaining=0, reset={}", limited.limit, limited.retry_after);
                headers.push((HeaderName::from_static("ratelimit"), policy));
                let rule = format!("{};w={}", limited.limit, limited.window_seconds);
                headers.push((HeaderName::from_static("ratelimit-policy"), rule));
            }
            Self::Invalid(list) => problems = list,
            // The rest of the body is not read, so the connection ends with this answer.
            Self::TooLarge { .. } => headers.push((CONNECTION, "close".to_owned())),
            Self::Internal(source) => cause = Some(Arc::from(source)),
            Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Conflict { .. }
            | Self::BadRequest { .. }
            | Self::NotJson
            | Self::Unavailable { .. } => {}
        }
        let mut response = status.into_response();
        response.extensions_mut().insert(Refusal { code, message, details, problems, cause });
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "store unavailable");
                Self::Unavailable { code: "store_unavailable", message: "the store does not answer; try again" }
            }
            StoreError::Full => Self::Unavailable { code: "store_full", message: "the store is out of space" },
            StoreError::Poisoned => {
                Self::Unavailable { code: "store_unavailable", message: "the store must be reopened" }
            }
            StoreError::Corrupt { .. } => Self::Internal(Box::new(error)),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Taken(what) => {
                Self::Conflict { message: error.to_string(), details: json!({ "field": what }) }
            }
            AccountError::Store(error) => error.into(),
        }
    }
}

impl From<NoteError> for ApiError {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::Limited(limited) => limited.into(),
            NoteError::Saturated => Self::saturated(),
            NoteError::Unavailable => {
                Self::Unavailable { code: "project_unavailable", message: "the project does not answer; try again" }
            }
            NoteError::Store(error) => error.into(),
        }
    }
}

impl From<domain::ledger::Limited> for ApiError {
    fn from(limited: domain::ledger::Limited) -> Self {
        Self::RateLimited(Limited {
            limit: limited.limit,
            window_seconds: domain::ledger::limit::WINDOW_SECS.unsigned_abs(),
            retry_after: u64::from(limited.retry_after_secs),
        })
    }
}

/// The body of every error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// A stable code.
    #[schema(example = "not_found")]
    pub error: String,
    #[schema(example = "project not found")]
    pub message: String,
    #[schema(example = "req_0123456789abcdef", nullable)]
    pub request_id: Option<String>,
    #[schema(value_type = Object)]
    pub details: Value,
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: String,
    #[schema(example = "Not Found")]
    pub title: String,
    #[schema(example = 404)]
    pub status: u16,
    /// The message; for schema errors the list of problems.
    pub detail: Detail,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Detail {
    Text(String),
    Problems(Vec<Problem>),
}

/// The envelope as JSON.
pub(super) fn body(status: StatusCode, refusal: Refusal, request_id: &str) -> Vec<u8> {
    let Refusal { code, message, details, problems, cause: _ } = refusal;
    let detail = if problems.is_empty() { Detail::Text(message.clone()) } else { Detail::Problems(problems) };
    let details = if details.is_null() { Value::Object(Map::new()) } else { details };
    let body = ErrorBody {
        error: code.to_owned(),
        message,
        request_id: Some(request_id.to_owned()),
        details,
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail,
    };
    serde_json::to_vec(&body).unwrap_or_default()
}
