//! The six task engines an agent can report for.

use std::fmt;
use std::str::FromStr;

/// A task engine (contract M26).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    Celery,
    Rq,
    Dramatiq,
    Huey,
    Arq,
    Taskiq,
}

/// A name that is none of the six engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("engine must be one of celery, rq, dramatiq, huey, arq, taskiq")]
pub struct UnknownEngine;

impl Engine {
    pub const ALL: [Self; 6] = [Self::Celery, Self::Rq, Self::Dramatiq, Self::Huey, Self::Arq, Self::Taskiq];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Celery => "celery",
            Self::Rq => "rq",
            Self::Dramatiq => "dramatiq",
            Self::Huey => "huey",
            Self::Arq => "arq",
            Self::Taskiq => "taskiq",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;
    fn from_str(text: &str) -> Result<Self, UnknownEngine> {
        Self::ALL.into_iter().find(|engine| engine.as_str() == text).ok_or(UnknownEngine)
    }
}

impl serde::Serialize for Engine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Engine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
