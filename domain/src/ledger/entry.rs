//! The closed set of what can stand in a ledger, and its bytes.
//!
//! An entry is byte 0x01 and the canonical JSON of `{seq, at, actor, ip, user_agent, kind, data}`. Exports carry
//! exactly these bytes, so the encoding is for ever; secrets stand in it only as base64 ciphertext.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::json::Json;
use crate::command::record::{Delivered, TargetType};
use crate::command::{Action, Actor, Attempt, Source, Status};
use crate::engine::Engine;
use crate::id::{AgentId, CommandId, SessionId, UserId};
use crate::time::Timestamp;
use crate::wire::canonical;

/// First byte of an entry.
pub const VERSION: u8 = 1;

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 1, without gaps.
    pub seq: u64,
    /// Never before the entry before it.
    pub at: Timestamp,
    pub actor: Actor,
    pub source: Source,
    pub kind: Kind,
}

/// An entry that has no place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub actor: Actor,
    pub source: Source,
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Issued(Box<Issued>),
    Dispatched(Dispatch),
    ChunkOutcome(ChunkOutcome),
    Outcome(Outcome),
    Late(Late),
    DeleteBegun(DeleteBegun),
    Deleted(Deleted),
    Login(Login),
    TokenMinted(Token),
    TokenRevoked(Token),
    RoleChanged(RoleChanged),
    ProjectChanged(ProjectChanged),
    Refused(RefusedAction),
}

/// A command was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub command: CommandId,
    pub agent: AgentId,
    pub action: Action,
    pub target_type: TargetType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Parameters without secrets.
    pub payload: Json,
    /// Base64 ciphertext of the parameters' secret members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Lowercase hex of the request's hash.
    pub request_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    pub deadline: Timestamp,
    /// Only for a bulk command: what was frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Frozen>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub global_throttle: bool,
}

/// The id set of a bulk command, which is written before the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub chunks: u32,
    pub total: u32,
    /// Lowercase hex of SHA-256 over the ids in order, each followed by a zero byte.
    pub digest: String,
}

/// A delivery was handed out; it stands here before its first byte leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    pub command: CommandId,
    pub chunk: u32,
    pub attempt: Attempt,
    pub session: SessionId,
    pub deadline: Timestamp,
}

/// A chunk of a bulk command has its result, and more are to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkOutcome {
    pub command: CommandId,
    pub chunk: u32,
    pub attempt: Attempt,
    pub success: bool,
    pub succeeded: BTreeMap<String, String>,
    pub failed: BTreeMap<String, String>,
    pub skipped: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of the next chunk.
    pub deadline: Timestamp,
}

/// A command ended: once, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub command: CommandId,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub delivered: Delivered,
}

/// A result came after the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    pub command: CommandId,
    pub chunk: u32,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Tasks are about to be deleted; counts against the limit of deletions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBegun {
    /// Links the two entries of one deletion.
    pub deletion: Uuid,
    pub filter: Json,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub deletion: Uuid,
    pub filter: Json,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    pub success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    Agent,
    ApiKey,
}

/// A credential, never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub token: TokenKind,
    pub id: Uuid,
    pub name: String,
}

/// Who may do what changed. `None`: no role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChanged {
    pub user: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectChange {
    Created,
    Updated,
    Archived,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectChanged {
    pub change: ProjectChange,
    pub slug: String,
    /// The changed members and their new values.
    pub members: Json,
}

/// A member was refused with 403.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedAction {
    /// What was asked, in the words of the audit list: `command.issue.purge_queue`.
    pub action: String,
    /// The member's role.
    pub have: String,
    /// What would have been needed: a role, a key's scope, or what the request lacked, such as `csrf_token`.
    pub need: String,
}

/// Bytes that are no entry of ours.
#[derive(Debug, thiserror::Error)]
#[error("not a ledger entry")]
pub struct BadEntry;

#[derive(Serialize)]
struct LineOut<'a> {
    seq: u64,
    at: Timestamp,
    actor: Actor,
    ip: &'a Option<String>,
    user_agent: &'a Option<String>,
    kind: &'static str,
    data: Data<'a>,
}

/// What an entry says, without the name of its kind.
struct Data<'a>(&'a Kind);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Kind::Issued(issued) => issued.serialize(serializer),
            Kind::Dispatched(dispatch) => dispatch.serialize(serializer),
            Kind::ChunkOutcome(outcome) => outcome.serialize(serializer),
            Kind::Outcome(outcome) => outcome.serialize(serializer),
            Kind::Late(late) => late.serialize(serializer),
            Kind::DeleteBegun(begun) => begun.serialize(serializer),
            Kind::Deleted(deleted) => deleted.serialize(serializer),
            Kind::Login(login) => login.serialize(serializer),
            Kind::TokenMinted(token) | Kind::TokenRevoked(token) => token.serialize(serializer),
            Kind::RoleChanged(changed) => changed.serialize(serializer),
            Kind::ProjectChanged(changed) => changed.serialize(serializer),
            Kind::Refused(refused) => refused.serialize(serializer),
        }
    }
}

#[derive(Deserialize)]
struct LineIn {
    seq: u64,
    at: Timestamp,
    actor: Actor,
    ip: Option<String>,
    user_agent: Option<String>,
    kind: String,
    data: Json,
}

impl Kind {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::Dispatched(_) => "dispatched",
            Self::ChunkOutcome(_) => "chunk_outcome",
            Self::Outcome(_) => "outcome",
            Self::Late(_) => "late",
            Self::DeleteBegun(_) => "delete_begun",
            Self::Deleted(_) => "deleted",
            Self::Login(_) => "login",
            Self::TokenMinted(_) => "token_minted",
            Self::TokenRevoked(_) => "token_revoked",
            Self::RoleChanged(_) => "role_changed",
            Self::ProjectChanged(_) => "project_changed",
            Self::Refused(_) => "refused",
        }
    }

    /// The command the entry is about.
    pub fn command(&self) -> Option<CommandId> {
        match self {
            Self::Issued(issued) => Some(issued.command),
            Self::Dispatched(dispatch) => Some(dispatch.command),
            Self::ChunkOutcome(outcome) => Some(outcome.command),
            Self::Outcome(outcome) => Some(outcome.command),
            Self::Late(late) => Some(late.command),
            Self::DeleteBegun(_)
            | Self::Deleted(_)
            | Self::Login(_)
            | Self::TokenMinted(_)
            | Self::TokenRevoked(_)
            | Self::RoleChanged(_)
            | Self::ProjectChanged(_)
            | Self::Refused(_) => None,
        }
    }

    fn read(kind: &str, data: &Json) -> Result<Self, BadEntry> {
        fn body<'a, T: Deserialize<'a>>(data: &'a Json) -> Result<T, BadEntry> {
            serde_json::from_str(data.as_str()).map_err(|_| BadEntry)
        }
        Ok(match kind {
            "issued" => Self::Issued(body(data)?),
            "dispatched" => Self::Dispatched(body(data)?),
            "chunk_outcome" => Self::ChunkOutcome(body(data)?),
            "outcome" => Self::Outcome(body(data)?),
            "late" => Self::Late(body(data)?),
            "delete_begun" => Self::DeleteBegun(body(data)?),
            "deleted" => Self::Deleted(body(data)?),
            "login" => Self::Login(body(data)?),
            "token_minted" => Self::TokenMinted(body(data)?),
            "token_revoked" => Self::TokenRevoked(body(data)?),
            "role_changed" => Self::RoleChanged(body(data)?),
            "project_changed" => Self::ProjectChanged(body(data)?),
            "refused" => Self::Refused(body(data)?),
            _ => return Err(BadEntry),
        })
    }
}

impl Entry {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let line = LineOut {
            seq: self.seq,
            at: self.at,
            actor: self.actor,
            ip: &self.source.ip,
            user_agent: &self.source.user_agent,
            kind: self.kind.as_str(),
            data: Data(&self.kind),
        };
        let text = serde_json::to_vec(&line).expect("an entry has a JSON form");
        let mut canonical = canonical::canonical(&text).expect("what an entry holds was canonical, or written by us");
        canonical.insert(0, VERSION);
        canonical
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        let Some((&VERSION, text)) = bytes.split_first() else { return Err(BadEntry) };
        let line: LineIn = serde_json::from_slice(text).map_err(|_| BadEntry)?;
        Ok(Self {
            seq: line.seq,
            at: line.at,
            actor: line.actor,
            source: Source { ip: line.ip, user_agent: line.user_agent },
            kind: Kind::read(&line.kind, &line.data)?,
        })
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests;
