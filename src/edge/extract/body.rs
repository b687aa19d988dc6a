//! A JSON body.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};

use axum::body::{BodyDataStream, Bytes, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use serde_json::Value;

use super::fields::{Fields, FromFields};
use super::strict;
use crate::edge::BODY_MAX;
use crate::edge::error::{ApiError, Problem};

/// As much of an unwanted body is read, for so long.
const DISCARD_MAX: usize = 64 * 1024;
const DISCARD_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// A JSON object that fits `T` and has nothing else.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: FromFields> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        strict_value(&json(request, state).await?).map(Self)
    }
}

/// A JSON object as it came, checked for what no reader may meet: bad UTF-8, NUL, a member given twice, depth.
#[derive(Debug)]
pub struct JsonBytes(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = json(request, state).await?;
        strict::parse(&bytes).map_err(ApiError::invalid)?;
        Ok(Self(bytes))
    }
}

/// The bytes of a body that says it is JSON. An empty one says nothing, whatever its type.
async fn json<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let is_json = is_json(request.headers());
    let bytes = read(request, state, BODY_MAX).await?;
    match (bytes.is_empty(), is_json) {
        (true, _) => Err(ApiError::invalid(Problem::new("missing", &["body"], "Field required"))),
        (false, true) => Ok(bytes),
        (false, false) => Err(ApiError::NotJson),
    }
}

/// Reads a JSON object that fits `T` and has nothing else.
pub fn strict_value<T: FromFields>(bytes: &[u8]) -> Result<T, ApiError> {
    match strict::parse(bytes).map_err(ApiError::invalid)? {
        Value::Object(members) => Fields::of_body(members).read(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ApiError::invalid(Problem::new("model_type", &["body"], "Input should be a valid object")))
        }
    }
}

/// The whole body; `limit` is what the route's body limit was set to.
pub async fn read<S: Send + Sync>(request: Request, state: &S, limit: usize) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::TooLarge { limit }
        } else {
            ApiError::BadRequest { code: "bad_request", message: "the request body could not be read".to_owned() }
        }
    })
}

/// What a handler leaves of a body: it may refuse a request by its path or query before it reads the body.
#[derive(Default)]
pub struct Rest(Arc<Mutex<Option<BodyDataStream>>>);

impl Rest {
    /// The body for a handler, and what will be left of it.
    pub fn of(body: axum::body::Body) -> (axum::body::Body, Self) {
        if body.is_end_stream() {
            return (body, Self::default());
        }
        let rest = Self(Arc::new(Mutex::new(Some(body.into_data_stream()))));
        let whole = Arc::clone(&rest.0);
        let read = poll_fn(move |context| {
            let mut held = whole.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(stream) = held.as_mut() else { return Poll::Ready(None) };
            let piece = ready!(stream.poll_next_unpin(context));
            if !matches!(piece, Some(Ok(_))) {
                *held = None;
            }
            Poll::Ready(piece)
        });
        (axum::body::Body::from_stream(read), rest)
    }

    /// Reads what is left ([`discard`]).
    pub async fn discard(self) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(rest) = rest {
            discard(axum::body::Body::from_stream(rest)).await;
        }
    }
}

/// Reads a body that nobody wants. An answer sent before its request was read ends the connection, and the
/// client's next request on it with it.
pub async fn discard(body: axum::body::Body) {
    // What does not fit, or does not come, ends the connection after all.
    let _ = tokio::time::timeout(DISCARD_WITHIN, axum::body::to_bytes(body, DISCARD_MAX)).await;
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
