//! A request with its caller and with what the edge looked up for it.

use std::fmt;
use std::str::FromStr;

use super::capability::Advertised;
use super::chunk::FrozenTask;
use super::request::{Asked, Request};
use crate::engine::Engine;
use crate::id::{AgentId, ApiKeyId, UserId};
use crate::task::Priority;

/// Who did something that stands in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    User(UserId),
    ApiKey {
        key: ApiKeyId,
        user: UserId,
    },
    Agent(AgentId),
    /// Nobody we know: a failed login.
    Anonymous,
    System,
}

/// A text that is no actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an actor")]
pub struct BadActor;

impl Actor {
    /// The user behind a login or a key: whom limits count, so that a second key buys nothing.
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) | Self::ApiKey { user, .. } => Some(user),
            Self::Agent(_) | Self::Anonymous | Self::System => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::ApiKey { key, user } => write!(f, "api_key:{key}:{user}"),
            Self::Agent(agent) => write!(f, "agent:{agent}"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = BadActor;
    fn from_str(text: &str) -> Result<Self, BadActor> {
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match parts.as_slice() {
            ["user", user] => Self::User(user.parse().map_err(|_| BadActor)?),
            ["api_key", key, user] => {
                Self::ApiKey { key: key.parse().map_err(|_| BadActor)?, user: user.parse().map_err(|_| BadActor)? }
            }
            ["agent", agent] => Self::Agent(agent.parse().map_err(|_| BadActor)?),
            ["anonymous"] => Self::Anonymous,
            ["system"] => Self::System,
            _ => return Err(BadActor),
        })
    }
}

impl serde::Serialize for Actor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Actor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

/// What the edge looked up, for what the body alone does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The engine of the worker or agent, where the request names none.
    pub engine: Option<Engine>,
    /// Of the task's row, for a retry.
    pub task_name: Option<String>,
    pub priority: Option<Priority>,
    pub had_args: bool,
    /// For a purge: the caller's token, or the one made from his observed depth.
    pub confirm_token: Option<String>,
    /// For a bulk-retry: what its filter came to, newest first, at most `max`.
    pub tasks: Vec<FrozenTask>,
    /// What the agent said it can do.
    pub advertised: Advertised,
}

/// One command about to be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub agent: AgentId,
    pub request: Request,
    pub idempotency_key: Option<String>,
    pub actor: Actor,
    pub source: Source,
    pub resolved: Resolved,
}

impl Draft {
    pub fn new(asked: Asked, actor: Actor, source: Source, resolved: Resolved) -> Self {
        let Asked { agent, request, idempotency_key } = asked;
        Self { agent, request, idempotency_key, actor, source, resolved }
    }

    pub fn engine(&self) -> Option<Engine> {
        self.request.engine().or(self.resolved.engine)
    }

    pub fn hash(&self) -> [u8; 32] {
        self.request.hash(self.agent)
    }
}
