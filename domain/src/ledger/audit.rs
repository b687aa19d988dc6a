//! An entry as auditors read it: the members of the reference's audit list, and our place in the chain.

use serde_json::{Value, json};
use uuid::Uuid;

use super::chain::Hash;
use super::entry::{Entry, Kind, ProjectChange, Token, TokenKind};
use crate::command::Status;
use crate::id::derived::derived;
use crate::id::{CommandId, ProjectId, UserId};
use crate::time::Timestamp;

/// One item of `GET audit`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AuditItem {
    pub id: Uuid,
    pub project_id: Option<ProjectId>,
    pub seq: u64,
    pub hash: String,
    pub command_id: Option<CommandId>,
    pub user_id: Option<UserId>,
    pub actor: String,
    pub action: String,
    pub target_type: &'static str,
    pub target_id: Option<String>,
    /// `success` or `failure`.
    pub result: &'static str,
    /// `allow` or `deny`.
    pub outcome: &'static str,
    pub event_id: Option<Uuid>,
    pub metadata: Value,
    pub force: bool,
    pub global_throttle: bool,
    pub source_ip: Option<String>,
    pub user_agent: Option<String>,
    pub occurred_at: Timestamp,
}

/// Which items an auditor asks for; every member narrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The one entry with this number.
    pub seq: Option<u64>,
    pub action_prefix: Option<String>,
    pub result: Option<String>,
    pub user: Option<UserId>,
    pub actor: Option<String>,
    pub target_type: Option<String>,
    pub target_id: Option<String>,
    pub command: Option<CommandId>,
    pub force: Option<bool>,
    pub global_throttle: Option<bool>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    /// Below which seq a walk from the newest entry has to begin.
    pub fn starts_below(&self, below: u64) -> u64 {
        self.seq.map_or(below, |seq| below.min(seq.saturating_add(1)))
    }

    /// Whether a walk from the newest entry has seen all it can admit: entries are in the order of their seq and time.
    pub fn ends_before(&self, item: &AuditItem) -> bool {
        self.since.is_some_and(|since| item.occurred_at < since) || self.seq.is_some_and(|seq| item.seq < seq)
    }

    pub fn admits(&self, item: &AuditItem) -> bool {
        let equal = |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|wanted| wanted == have);
        self.seq.is_none_or(|seq| seq == item.seq)
            && self.action_prefix.as_deref().is_none_or(|prefix| item.action.starts_with(prefix))
            && self.result.as_deref().is_none_or(|wanted| wanted == item.result || wanted == item.outcome)
            && self.user.is_none_or(|user| item.user_id == Some(user))
            && equal(&self.actor, &item.actor)
            && equal(&self.target_type, item.target_type)
            && self.target_id.as_ref().is_none_or(|wanted| item.target_id.as_ref() == Some(wanted))
            && self.command.is_none_or(|command| item.command_id == Some(command))
            && self.force.is_none_or(|force| item.force == force)
            && self.global_throttle.is_none_or(|flag| item.global_throttle == flag)
            && self.since.is_none_or(|since| item.occurred_at >= since)
            && self.until.is_none_or(|until| item.occurred_at <= until)
    }
}

/// What an entry says, apart from who and when.
struct Said {
    action: String,
    target_type: &'static str,
    target_id: Option<String>,
    success: bool,
    metadata: Value,
}

impl AuditItem {
    /// The item of an entry of `project`; the nil project is the system chain.
    pub fn of(project: ProjectId, entry: &Entry, hash: &Hash) -> Self {
        let said = said(project, &entry.kind);
        let (force, global_throttle) = if let Kind::Issued(issued) = &entry.kind {
            (issued.force, issued.global_throttle)
        } else {
            (false, false)
        };
        Self {
            id: derived(entry.at, project.uuid(), entry.seq.to_string()),
            project_id: (project != ProjectId::NIL).then_some(project),
            seq: entry.seq,
            hash: hex::encode(hash),
            command_id: entry.kind.command(),
            user_id: entry.actor.user(),
            actor: entry.actor.to_string(),
            action: said.action,
            target_type: said.target_type,
            target_id: said.target_id,
            result: if said.success { "success" } else { "failure" },
            outcome: if matches!(entry.kind, Kind::Refused(_)) { "deny" } else { "allow" },
            event_id: None,
            metadata: said.metadata,
            force,
            global_throttle,
            source_ip: entry.source.ip.clone(),
            user_agent: entry.source.user_agent.clone(),
            occurred_at: entry.at,
        }
    }
}

fn said(project: ProjectId, kind: &Kind) -> Said {
    let say = |action: &str, target_type, target_id: Option<String>, success, metadata| Said {
        action: action.to_owned(),
        target_type,
        target_id,
        success,
        metadata,
    };
    let of_command = |action: &str, command: CommandId, success, metadata| {
        say(action, "command", Some(command.to_string()), success, metadata)
    };
    match kind {
        Kind::Issued(issued) => say(
            &format!("command.issue.{}", issued.action),
            issued.target_type.as_str(),
            issued.target_id.clone(),
            true,
            json!({
                "agent_id": issued.agent, "engine": issued.engine, "force": issued.force,
                "global_throttle": issued.global_throttle, "idempotency_key": issued.idempotency_key,
                "total": issued.bulk.as_ref().map(|bulk| bulk.total),
            }),
        ),
        Kind::Dispatched(dispatch) => of_command(
            "command.dispatched",
            dispatch.command,
            true,
            json!({ "chunk": dispatch.chunk, "attempt": dispatch.attempt, "session_id": dispatch.session }),
        ),
        Kind::ChunkOutcome(outcome) => of_command(
            "command.chunk_completed",
            outcome.command,
            outcome.success,
            json!({
                "chunk": outcome.chunk, "succeeded": outcome.succeeded.len(), "failed": outcome.failed.len(),
                "skipped": outcome.skipped.len(), "error": outcome.error,
            }),
        ),
        Kind::Outcome(outcome) => {
            let action = match outcome.status {
                Status::Succeeded => "command.completed",
                Status::TimedOut => "command.timed_out",
                Status::Failed | Status::Issued | Status::Dispatched => "command.failed",
            };
            let success = outcome.status == Status::Succeeded;
            let metadata = json!({ "status": outcome.status, "error": outcome.error, "delivered": outcome.delivered });
            of_command(action, outcome.command, success, metadata)
        }
        Kind::Late(late) => of_command(
            "command.late_result",
            late.command,
            late.status == Status::Succeeded,
            json!({ "status": late.status, "error": late.error }),
        ),
        Kind::DeleteBegun(begun) => {
            let filter = parsed(begun.filter.as_str());
            say("tasks.bulk_delete.begun", "task", None, true, json!({ "deletion": begun.deletion, "filter": filter }))
        }
        Kind::Deleted(deleted) => {
            let filter = parsed(deleted.filter.as_str());
            let metadata = json!({ "deletion": deleted.deletion, "filter": filter, "deleted_count": deleted.count });
            say("tasks.bulk_delete", "task", None, true, metadata)
        }
        Kind::Login(login) => say(
            if login.success { "auth.login" } else { "auth.login_failed" },
            "user",
            login.user.map(|user| user.to_string()),
            login.success,
            json!({ "reason": login.reason }),
        ),
        Kind::TokenMinted(token) => token_said(token, "minted"),
        Kind::TokenRevoked(token) => token_said(token, "revoked"),
        Kind::RoleChanged(changed) => {
            // On the system chain it is the account itself that was let in, changed or shut out.
            let what = if project == ProjectId::NIL { "user" } else { "membership" };
            let change = match (&changed.before, &changed.after) {
                (None, _) => "granted",
                (Some(_), Some(_)) => "changed",
                (Some(_), None) => "revoked",
            };
            let metadata = json!({ "before": changed.before, "after": changed.after });
            say(&format!("{what}.{change}"), "user", Some(changed.user.to_string()), true, metadata)
        }
        Kind::ProjectChanged(changed) => {
            let action = match changed.change {
                ProjectChange::Created => "project.created",
                ProjectChange::Updated => "project.updated",
                ProjectChange::Archived => "project.archived",
            };
            say(action, "project", Some(changed.slug.clone()), true, parsed(changed.members.as_str()))
        }
        Kind::Refused(refused) => say(
            &format!("{}.refused", refused.action),
            "project",
            None,
            false,
            json!({ "have": refused.have, "need": refused.need }),
        ),
    }
}

fn token_said(token: &Token, what: &str) -> Said {
    let (kind, target_type) = match token.token {
        TokenKind::Agent => ("agent.token", "agent"),
        TokenKind::ApiKey => ("api_key", "api_key"),
    };
    Said {
        action: format!("{kind}.{what}"),
        target_type,
        target_id: Some(token.id.to_string()),
        success: true,
        metadata: json!({ "name": token.name }),
    }
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
