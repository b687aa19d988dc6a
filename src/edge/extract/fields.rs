//! Members of an object, taken one by one.

use serde_json::{Map, Value};

use super::parse::Parse;
use crate::edge::error::{ApiError, Problem};

/// A request body or query that reads itself out of [`Fields`].
pub trait FromFields: Sized {
    /// `None` only when a complaint was recorded.
    fn from_fields(fields: &mut Fields) -> Option<Self>;
}

/// The members of an object that are not taken yet, and everything wrong with those that were.
#[derive(Debug)]
pub struct Fields {
    place: &'static str,
    members: Map<String, Value>,
    problems: Vec<Problem>,
    /// Whether a member that nobody takes is wrong.
    closed: bool,
}

impl Fields {
    /// A JSON body: a member that nobody takes is wrong.
    pub(super) fn of_body(members: Map<String, Value>) -> Self {
        Self { place: "body", members, problems: Vec::new(), closed: true }
    }

    /// A query: unknown parameters are ignored, as the reference does.
    pub(super) fn of_query(members: Map<String, Value>) -> Self {
        Self { place: "query", members, problems: Vec::new(), closed: false }
    }

    /// A member that must be there.
    pub fn required<T>(&mut self, name: &str, parse: impl Parse<T>) -> Option<T> {
        match self.members.remove(name) {
            Some(value) => self.parsed(name, &value, parse),
            None => {
                self.complain("missing", name, "Field required");
                None
            }
        }
    }

    /// A member that may be absent or null.
    pub fn optional<T>(&mut self, name: &str, parse: impl Parse<T>) -> Option<T> {
        match self.members.remove(name) {
            Some(Value::Null) | None => None,
            Some(value) => self.parsed(name, &value, parse),
        }
    }

    /// A member of a patch: absent, null, or a new value.
    pub fn patched<T>(&mut self, name: &str, parse: impl Parse<T>) -> Option<Option<T>> {
        match self.members.remove(name)? {
            Value::Null => Some(None),
            value => self.parsed(name, &value, parse).map(Some),
        }
    }

    /// Whether a member was given; it stays to be taken.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Whether a member was given with a value; it stays to be taken.
    pub fn says(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Records that a member, or with an empty name the whole object, is wrong.
    pub fn complain(&mut self, kind: &'static str, name: &str, msg: impl Into<String>) {
        let loc: &[&str] = if name.is_empty() { &[self.place] } else { &[self.place, name] };
        self.problems.push(Problem::new(kind, loc, msg));
    }

    fn parsed<T>(&mut self, name: &str, value: &Value, parse: impl Parse<T>) -> Option<T> {
        match parse.parse(value) {
            Ok(parsed) => Some(parsed),
            Err(mut problem) => {
                let mut loc = vec![Value::from(self.place), Value::from(name)];
                loc.append(&mut problem.loc);
                self.problems.push(Problem { loc, ..problem });
                None
            }
        }
    }

    /// Reads the whole of `T`, or says everything that is wrong.
    pub(super) fn read<T: FromFields>(mut self) -> Result<T, ApiError> {
        let read = T::from_fields(&mut self);
        if self.closed {
            let strangers: Vec<String> = self.members.keys().cloned().collect();
            for name in strangers {
                self.complain("extra_forbidden", &name, "Extra inputs are not permitted");
            }
        }
        self.finish(read)
    }

    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, ApiError> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            Some(_) | None => Err(ApiError::Invalid(self.problems)),
        }
    }

    /// Members that are null.
    pub(super) fn names_of_null(&self) -> Vec<String> {
        self.members.iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name.clone()).collect()
    }
}
