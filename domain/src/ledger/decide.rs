//! The only place where an outcome is chosen: pure functions from a fold and something heard to entries.
//!
//! Whoever calls appends what comes out before it acts on it. A decision on a stale fold is harmless: its append
//! is lost, and it is made again.

use serde_json::json;

use super::entry::{ChunkOutcome, Dispatch, Frozen, Issued, Kind, Late, Outcome, Proposal};
use super::fold::{Fold, KeyHolder, Open};
use super::json::Json;
use super::limit::{Limited, Route};
use crate::command::chunk::{Chunk, ChunkIds};
use crate::command::record::{Delivered, Progress};
use crate::command::transition::{CommandEvent, CommandState, Ending, Held, Refused};
use crate::command::wire::Form;
use crate::command::{Actor, Attempt, Claim, Draft, Source, Status, Support, capability};
use crate::id::{AgentId, CommandId, SessionId};
use crate::time::Timestamp;

/// Longest error text that is kept, in characters.
const ERROR_MAX: usize = 8192;

/// Largest result that is kept, in bytes.
const RESULT_MAX: usize = 64 * 1024;

/// Settings that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub command_timeout_secs: u32,
    pub bulk_limit_per_minute: u32,
}

/// What was made ready for a draft before it is decided.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub command: CommandId,
    pub form: Form,
    /// Base64 ciphertext of the form's secrets.
    pub sealed: Option<String>,
    /// The frozen ids of a bulk command, which are durable by now.
    pub frozen: Option<Frozen>,
    /// Who holds the idempotency key in the projection, for keys older than the fold's memory.
    pub holder: Option<KeyHolder>,
}

/// What a draft comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuance {
    /// The key is that of an earlier, equal request.
    Replayed(CommandId),
    New(Vec<Proposal>),
}

/// Why a draft is refused; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("idempotency_key already in use for a different command")]
    KeyConflict,
    #[error(transparent)]
    Limited(#[from] Limited),
}

/// What an agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub success: bool,
    /// Scrubbed by now.
    pub result: Option<Json>,
    pub error: Option<String>,
}

/// Decides on a draft. `lane` is the session whose lane was found free for it.
pub fn issue(
    fold: &Fold,
    draft: &Draft,
    prepared: &Prepared,
    lane: Option<SessionId>,
    now: Timestamp,
    terms: Terms,
) -> Result<Issuance, Refusal> {
    let request_hash = draft.hash();
    let key = draft.idempotency_key.as_ref();
    if let Some(holder) = key.and_then(|key| fold.key(key)).or(prepared.holder) {
        return if holder.request_hash == request_hash {
            Ok(Issuance::Replayed(holder.command))
        } else {
            Err(Refusal::KeyConflict)
        };
    }
    if let (Some(route), Some(user)) = (Route::of(prepared.form.action), draft.actor.user()) {
        fold.limits().check(route, user, now.max(fold.at()), terms.bulk_limit_per_minute)?;
    }
    let deadline = prepared.command.issued_at().plus_secs(i64::from(terms.command_timeout_secs));
    let form = &prepared.form;
    let issued = Issued {
        command: prepared.command,
        agent: draft.agent,
        action: form.action,
        target_type: form.target_type,
        target_id: form.target_id.clone(),
        engine: form.engine,
        payload: Json::new(form.payload.as_str()).unwrap_or_else(|_| Json::from(&json!({}))),
        sealed: prepared.sealed.clone(),
        request_hash: hex::encode(request_hash),
        idempotency_key: draft.idempotency_key.clone(),
        deadline,
        bulk: prepared.frozen.clone(),
        force: draft.request.is_forced(),
        global_throttle: draft.request.is_global_throttle(),
    };
    let mut proposals =
        vec![Proposal { actor: draft.actor, source: draft.source.clone(), kind: Kind::Issued(Box::new(issued)) }];
    match capability::support(form.engine, form.action, &draft.resolved.advertised) {
        Support::Unsupported => {
            let engine = form.engine.map_or("the agent", |engine| engine.as_str());
            let error = format!("{engine} does not support {}", form.action);
            let outcome = unsupported(prepared.command, error, Delivered::No);
            proposals.push(ours(Kind::Outcome(outcome)));
        }
        Support::Supported | Support::Unknown => {
            if let Some(session) = lane {
                let dispatch = Dispatch { command: prepared.command, chunk: 0, attempt: Attempt(1), session, deadline };
                proposals.push(ours(Kind::Dispatched(dispatch)));
            }
        }
    }
    Ok(Issuance::New(proposals))
}

/// A delivery that came back: not sent, or given up by a dropped session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Returned {
    NotSent { chunk: u32, attempt: Attempt },
    Gone { chunk: u32, attempt: Attempt },
}

impl From<Returned> for CommandEvent {
    fn from(returned: Returned) -> Self {
        match returned {
            Returned::NotSent { chunk, attempt } => Self::NotSent { chunk, attempt },
            Returned::Gone { chunk, attempt } => Self::Gone { chunk, attempt },
        }
    }
}

/// The delivery that an open command waits for: its chunk and attempt. `None`: one is under way, or it waits for
/// a result only.
pub fn next_delivery(open: &Open, returned: Option<Returned>) -> Option<(u32, Attempt)> {
    let state = returned.and_then(|returned| open.state.on(returned.into()).ok()).unwrap_or(open.state);
    match (open.state, state) {
        (CommandState::Issued, _) => Some((0, Attempt(1))),
        (CommandState::Dispatched(held), CommandState::Issued) => Some((held.chunk, held.attempt.next())),
        (CommandState::Dispatched(held), CommandState::Dispatched(_)) if held.answered => {
            Some((held.chunk + 1, Attempt(1)))
        }
        (
            CommandState::Dispatched(_)
            | CommandState::Unsupported { .. }
            | CommandState::Finished { .. }
            | CommandState::TimedOut { .. },
            _,
        ) => None,
    }
}

/// Hands out the next delivery of an open command to a session.
pub fn dispatch(
    fold: &Fold,
    command: CommandId,
    returned: Option<Returned>,
    session: SessionId,
    now: Timestamp,
) -> Result<Proposal, Refused> {
    let open = fold.open(command).ok_or(Refused::Finished)?;
    let (chunk, attempt) = next_delivery(open, returned).ok_or(Refused::StaleAttempt)?;
    if open.command.deadline <= now {
        return Err(Refused::Finished);
    }
    let held = Held::new(chunk, attempt, open.command.action.redelivery());
    open.state.on(CommandEvent::Dispatched(held))?;
    let deadline = open.command.deadline;
    Ok(ours(Kind::Dispatched(Dispatch { command, chunk, attempt, session, deadline })))
}

/// An answer and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    pub agent: AgentId,
    pub claim: Claim,
    pub answer: &'a Answer,
    /// The frozen ids of the chunk that is answered.
    pub chunk: Option<&'a Chunk>,
    /// The command is known to have ended, without a late result so far.
    pub ended: bool,
}

/// What a result does: it ends its command, or is kept as late.
pub fn result(fold: &Fold, heard: Heard<'_>, now: Timestamp, terms: Terms) -> Vec<Proposal> {
    let Heard { agent, claim, answer, chunk, ended } = heard;
    let by_agent = |kind| Proposal { actor: Actor::Agent(agent), source: Source::default(), kind };
    let (status, ending) =
        if answer.success { (Status::Succeeded, Ending::Succeeded) } else { (Status::Failed, Ending::Failed) };
    let error = answer.error.as_deref().map(|error| cut(error, ERROR_MAX));
    let Some(open) = fold.open(claim.command) else {
        if !ended {
            return Vec::new();
        }
        let late = Late {
            command: claim.command,
            chunk: claim.chunk,
            status,
            result: answer.result.clone().map(small),
            error,
        };
        return vec![by_agent(Kind::Late(late))];
    };
    // Agents answer for their own commands only.
    if open.command.agent != agent {
        return Vec::new();
    }
    let Some(chunks) = open.command.chunks else {
        if open.state.on(CommandEvent::Resulted(ending)).is_err() {
            return Vec::new();
        }
        let outcome = if !answer.success && error.as_deref().is_some_and(capability::says_unsupported) {
            unsupported(claim.command, error.unwrap_or_default(), Delivered::Yes)
        } else {
            let result = answer.result.clone().map(small);
            Outcome { command: claim.command, status, result, error, delivered: Delivered::Yes }
        };
        return vec![by_agent(Kind::Outcome(outcome))];
    };
    if open.state.on(CommandEvent::ChunkResulted(claim.chunk)).is_err() {
        return Vec::new();
    }
    let text = answer.result.as_ref().map(Json::as_str);
    let ids = chunk.map(|chunk| chunk.outcome(answer.success, text, error.as_deref())).unwrap_or_default();
    let ChunkIds { succeeded, failed, skipped } = ids;
    let deadline = now.plus_secs(i64::from(terms.command_timeout_secs));
    let (command, chunk, attempt, success) = (claim.command, claim.chunk, claim.attempt, answer.success);
    let outcome = ChunkOutcome { command, chunk, attempt, success, succeeded, failed, skipped, error, deadline };
    let mut proposals = vec![];
    if claim.chunk + 1 >= chunks {
        proposals.push(by_agent(Kind::Outcome(bulk_outcome(open, &outcome))));
    }
    proposals.insert(0, by_agent(Kind::ChunkOutcome(outcome)));
    proposals
}

/// Adds a bulk command up: it succeeded when every chunk answered success.
fn bulk_outcome(open: &Open, last: &ChunkOutcome) -> Outcome {
    let before = open.command.progress.unwrap_or_default();
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let Progress { total, succeeded, failed, skipped, pending: _ } = before;
    let error = open
        .command
        .error
        .clone()
        .or_else(|| (!last.success).then(|| last.error.clone().unwrap_or_else(|| "a chunk failed".to_owned())));
    let result = json!({
        "requested": total,
        "succeeded": succeeded + count(last.succeeded.len()),
        "failed": failed + count(last.failed.len()),
        "skipped": skipped + count(last.skipped.len()),
        "chunks": open.command.chunks,
    });
    Outcome {
        command: last.command,
        status: if error.is_none() { Status::Succeeded } else { Status::Failed },
        result: Some(Json::from(&result)),
        error,
        delivered: Delivered::Yes,
    }
}

/// Ends a command whose deadline has passed. `delivered` is what its home knows.
pub fn deadline(fold: &Fold, command: CommandId, delivered: Delivered, now: Timestamp) -> Option<Proposal> {
    let open = fold.open(command)?;
    if open.command.deadline > now || open.state.on(CommandEvent::DeadlinePassed).is_err() {
        return None;
    }
    let error = match delivered {
        Delivered::No => "timed out: never delivered to an agent",
        Delivered::Yes => "timed out: delivered, but no result was recorded in time; it may have run",
        Delivered::Unknown => "timed out: no result was recorded in time; it may have run",
    };
    let result = open.command.progress.map(|progress| {
        Json::from(&json!({
            "requested": progress.total, "succeeded": progress.succeeded, "failed": progress.failed,
            "skipped": progress.skipped + progress.pending, "chunks": open.command.chunks,
        }))
    });
    Some(ours(Kind::Outcome(Outcome {
        command,
        status: Status::TimedOut,
        result,
        error: Some(error.to_owned()),
        delivered,
    })))
}

fn unsupported(command: CommandId, error: String, delivered: Delivered) -> Outcome {
    let result = Some(Json::from(&json!({ "ok": false, "reason": "unsupported" })));
    Outcome { command, status: Status::Failed, result, error: Some(error), delivered }
}

fn ours(kind: Kind) -> Proposal {
    Proposal { actor: Actor::System, source: Source::default(), kind }
}

/// A result that would swell the ledger is replaced by its size.
fn small(result: Json) -> Json {
    let bytes = result.as_str().len();
    if bytes <= RESULT_MAX { result } else { Json::from(&json!({ "truncated": true, "bytes": bytes })) }
}

fn cut(text: &str, chars: usize) -> String {
    text.char_indices().nth(chars).map_or(text, |(at, _)| &text[..at]).to_owned()
}

#[cfg(test)]
mod tests;
