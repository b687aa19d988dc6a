//! JSON kept as it was written: numbers of any size survive.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON text. Within another JSON document it stands as a value, not as a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

/// A text that is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("not JSON")]
pub struct NotJson(#[source] serde_json::Error);

impl Json {
    pub fn new(text: impl Into<String>) -> Result<Self, NotJson> {
        let text = text.into();
        serde_json::from_str::<&RawValue>(&text).map_err(NotJson)?;
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(String::from(Box::<str>::from(raw))))
    }
}
