//! Query parameters.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Map, Value};

use super::fields::{Fields, FromFields};
use crate::edge::error::ApiError;

/// The known parameters of a query, each at most once; unknown ones are ignored.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: FromFields> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query string.
pub fn read<T: FromFields>(query: &str) -> Result<T, ApiError> {
    let mut members = Map::new();
    let mut repeated = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // An undecodable name is no name we know.
        let Some(name) = decode(name) else { continue };
        // A cursor that cannot be read is none of ours, which is for its list to say (contract D4).
        let value = decode(value).or_else(|| (name == "cursor").then(String::new));
        let value = value.map_or(Value::Null, Value::String);
        if members.insert(name.clone(), value).is_some() {
            repeated.push(name);
        }
    }
    Fields::of_query(members).read_query(&repeated)
}

impl Fields {
    /// Reads `T`; a repeated or undecodable parameter is wrong only if `T` takes it.
    fn read_query<T: FromFields>(mut self, repeated: &[String]) -> Result<T, ApiError> {
        let undecodable: Vec<String> = self.names_of_null();
        let before: Vec<&String> = repeated.iter().chain(&undecodable).collect();
        let read = T::from_fields(&mut self);
        for name in before {
            if !self.has(name) {
                self.complain("value_error", name, "The parameter must be given once, as UTF-8 without NUL");
            }
        }
        self.finish(read)
    }
}

/// Percent-decodes a part of a query; `None` when the bytes are not UTF-8 or hold a NUL.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16));
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Page {
        limit: Option<i64>,
        name: Option<String>,
    }

    impl FromFields for Page {
        fn from_fields(fields: &mut Fields) -> Option<Self> {
            let limit = fields.optional("limit", parse::integer(1..=5000));
            let name = fields.optional("name", parse::text(1..=200));
            Some(Self { limit, name })
        }
    }

    fn refused(query: &str) -> Vec<&'static str> {
        match read::<Page>(query) {
            Err(ApiError::Invalid(problems)) => problems.into_iter().map(|problem| problem.kind).collect(),
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn known_parameters_are_read_and_unknown_ones_ignored() {
        let page = read::<Page>("limit=7&name=a%20b+c%C3%A9&x=1&x=2&%ff=1").expect("read");
        assert_eq!(page, Page { limit: Some(7), name: Some("a b cé".to_owned()) });
    }

    #[test]
    fn known_parameters_are_strict() {
        assert_eq!(refused("limit=0"), ["greater_than_equal"]);
        assert_eq!(refused("limit=%2B1"), ["int_parsing"]);
        assert_eq!(refused("limit="), ["int_parsing"]);
        assert_eq!(refused("limit=1&limit=1"), ["value_error"]);
        assert_eq!(refused("name=%ff"), ["value_error"]);
        assert_eq!(refused("name=a%00"), ["value_error"]);
        assert_eq!(refused("name=%4"), ["value_error"]);
        assert_eq!(refused("name="), ["string_too_short"]);
    }
}
