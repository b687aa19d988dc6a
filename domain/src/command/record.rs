//! A command as stored and as shown: one row of the projection of a project's ledger.

use serde_json::value::RawValue;

use super::action::Action;
use super::claim::Attempt;
use super::status::Status;
use super::wire::overlay;
use crate::engine::Engine;
use crate::id::{AgentId, CommandId, ProjectId, SessionId, UserId};
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetType {
    Task,
    Bulk,
    Queue,
    Worker,
}

impl TargetType {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Bulk => "bulk",
            Self::Queue => "queue",
            Self::Worker => "worker",
        }
    }
}

/// Whether the agent heard of the command (contract D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivered {
    Yes,
    No,
    /// Bytes may have left, and no answer was recorded.
    Unknown,
}

/// How far a bulk command is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    pub total: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub skipped: u32,
    pub pending: u32,
}

/// One command: what the ledger's entries about it come to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Command {
    pub id: CommandId,
    pub project: ProjectId,
    pub agent: AgentId,
    pub issued_by: Option<UserId>,
    pub action: Action,
    pub target_type: TargetType,
    pub target_id: Option<String>,
    pub engine: Option<Engine>,
    /// Parameters without secrets, a JSON object.
    pub payload: String,
    /// Base64 ciphertext of the parameters' secret members.
    pub sealed: Option<String>,
    pub global_throttle: bool,
    /// How many frames a bulk command takes; `None` for any other.
    pub chunks: Option<u32>,

    pub status: Status,
    /// A JSON object.
    pub result: Option<String>,
    pub error: Option<String>,
    pub dispatched_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub deadline: Timestamp,
    pub delivered: Delivered,
    pub late_status: Option<Status>,
    pub late_result: Option<String>,
    pub chunk: u32,
    pub attempt: Attempt,
    /// Where the latest delivery went.
    pub session: Option<SessionId>,
    pub issued_seq: u64,
    pub outcome_seq: Option<u64>,
    pub progress: Option<Progress>,
}

impl Command {
    pub fn issued_at(&self) -> Timestamp {
        self.id.issued_at()
    }

    pub fn is_bulk(&self) -> bool {
        self.chunks.is_some()
    }
}

/// What a role may see of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Operators and admins: the full row.
    Full,
    /// Viewers and auditors: neither payload nor issuer nor result.
    Outline,
}

/// The members of the command object that clients read.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CommandView {
    pub id: CommandId,
    pub project_id: ProjectId,
    pub agent_id: AgentId,
    pub issued_by: Option<UserId>,
    pub action: Action,
    pub target_type: TargetType,
    pub target_id: Option<String>,
    pub payload: Box<RawValue>,
    pub status: Status,
    pub result: Option<Box<RawValue>>,
    pub error: Option<String>,
    pub issued_at: Timestamp,
    pub dispatched_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub timeout_at: Timestamp,
    pub global_throttle: bool,
    pub delivered: Delivered,
    pub late_status: Option<Status>,
    pub late_result: Option<Box<RawValue>>,
    /// `online`, `offline` or `unknown`, as the agent is now.
    pub agent_state: &'static str,
    pub attempt: Attempt,
    pub audit: AuditSeqs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// Where a command stands in the audit chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuditSeqs {
    pub issued_seq: u64,
    pub outcome_seq: Option<u64>,
}

impl Command {
    /// The command as one role sees it. `secrets` are the opened and scrubbed secret members, where the reader
    /// may see them; a confirm token is never shown.
    pub fn view(&self, sight: Sight, secrets: Option<&str>, agent_state: &'static str) -> CommandView {
        let full = sight == Sight::Full;
        let raw =
            |json: &Option<String>| json.clone().filter(|_| full).and_then(|json| RawValue::from_string(json).ok());
        CommandView {
            id: self.id,
            project_id: self.project,
            agent_id: self.agent,
            issued_by: self.issued_by.filter(|_| full),
            action: self.action,
            target_type: self.target_type,
            target_id: self.target_id.clone(),
            payload: raw(&Some(self.shown_payload(secrets))).unwrap_or_else(empty_object),
            status: self.status,
            result: raw(&self.result),
            error: self.error.clone(),
            issued_at: self.issued_at(),
            dispatched_at: self.dispatched_at,
            completed_at: self.completed_at,
            timeout_at: self.deadline,
            global_throttle: self.global_throttle,
            delivered: self.delivered,
            late_status: self.late_status,
            late_result: raw(&self.late_result),
            agent_state,
            attempt: self.attempt,
            audit: AuditSeqs { issued_seq: self.issued_seq, outcome_seq: self.outcome_seq },
            progress: self.progress,
        }
    }

    fn shown_payload(&self, secrets: Option<&str>) -> String {
        let payload = secrets.map_or_else(|| self.payload.clone(), |secrets| overlay(&self.payload, secrets));
        match self.action {
            Action::PurgeQueue => overlay(&payload, r#"{"confirm_token":"<redacted>"}"#),
            Action::RetryTask
            | Action::CancelTask
            | Action::BulkRetry
            | Action::RestartWorker
            | Action::PoolGrow
            | Action::PoolShrink
            | Action::AddConsumer
            | Action::CancelConsumer
            | Action::RateLimit => payload,
        }
    }
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("{} is JSON")
}
