//! Path parameters.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::edge::error::{ApiError, Problem};

/// The value of a path parameter, decoded. A text that is not UTF-8 or holds a NUL is refused.
pub async fn parameter(parts: &mut Parts, name: &'static str) -> Result<String, ApiError> {
    let refused =
        || ApiError::invalid(Problem::new("value_error", &["path", name], "Input should be valid UTF-8 text"));
    let parameters = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| refused())?;
    let value = parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    value.filter(|value| !value.contains('\0')).ok_or_else(refused)
}

/// A typed id of the path: `{id}`, or the last parameter under another name.
#[derive(Clone, Copy, Debug)]
pub struct PathId<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let text = parameter(parts, "id").await?;
        text.parse().map(Self).map_err(|_| {
            ApiError::invalid(Problem::new("uuid_parsing", &["path", "id"], "Input should be a valid UUID"))
        })
    }
}
