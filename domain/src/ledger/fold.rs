//! What the entries come to: open commands, deadlines, idempotency, limits, the head.
//!
//! A fold is a function of the entries alone, so two homes that read the same ledger agree. It says for each
//! entry what changed in the projections ([`Change`]); the projections are caches of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::chain::{self, Hash};
use super::entry::{ChunkOutcome, Dispatch, Entry, Issued, Kind, Late, Outcome};
use super::limit::{Limits, Route};
use crate::command::chunk::ChunkIds;
use crate::command::record::Delivered;
use crate::command::transition::{Ending, Held};
use crate::command::{Actor, Attempt, Command, CommandEvent, CommandState, Progress, Status};
use crate::id::{CommandId, ProjectId};
use crate::time::Timestamp;

/// Idempotency keys kept in memory; older ones stand in their projection, which is kept for days.
const KEYS_MAX: usize = 20_000;
const KEYS_SECS: i64 = 24 * 3600;

/// Keys that go into a snapshot: at most this many, and none older than this. The projection of every key below a
/// snapshot is durable; these only spare look-ups.
const KEYS_RECENT_MAX: usize = 200;
const KEYS_RECENT_SECS: i64 = 600;

/// A command that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Open {
    /// Its row as it stands in the projection.
    pub command: Command,
    pub state: CommandState,
}

/// Whose an idempotency key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyHolder {
    pub command: CommandId,
    pub request_hash: [u8; 32],
}

/// What an entry changes in the projections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The command's whole row.
    Command(Box<Command>),
    /// A result after the end: set in the stored row, if it has none yet.
    Late {
        command: CommandId,
        status: Status,
        result: Option<String>,
    },
    Key {
        key: String,
        holder: KeyHolder,
    },
    /// What became of each id of a chunk.
    Chunk {
        command: CommandId,
        chunk: u32,
        ids: ChunkIds,
    },
    /// The project has open commands, or no more.
    Busy(bool),
}

/// A project's ledger up to its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    project: ProjectId,
    seq: u64,
    hash: Hash,
    at: Timestamp,
    /// The largest command id so far: the next is larger.
    last_command: CommandId,
    open: BTreeMap<CommandId, Open>,
    deadlines: BTreeSet<(Timestamp, CommandId)>,
    keys: HashMap<String, KeyHolder>,
    keys_by_age: VecDeque<(Timestamp, String)>,
    limits: Limits,
}

/// A fold without what stands in the projections by now; see [`super::snapshot`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Parts {
    pub(super) project: ProjectId,
    pub(super) seq: u64,
    #[serde(with = "serde_bytes")]
    pub(super) hash: Vec<u8>,
    pub(super) at: Timestamp,
    pub(super) last_command: CommandId,
    pub(super) open: Vec<Open>,
    pub(super) keys: Vec<(Timestamp, String, KeyHolder)>,
    pub(super) limits: Limits,
}

impl Fold {
    /// A ledger without entries.
    pub fn new(project: ProjectId) -> Self {
        Self {
            project,
            seq: 0,
            hash: chain::genesis(project),
            at: Timestamp::EPOCH,
            last_command: CommandId::NIL,
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            keys: HashMap::new(),
            keys_by_age: VecDeque::new(),
            limits: Limits::default(),
        }
    }

    pub const fn project(&self) -> ProjectId {
        self.project
    }

    /// The number of the last entry.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    pub const fn hash(&self) -> &Hash {
        &self.hash
    }

    /// When the last entry was made.
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// The largest command id of the ledger.
    pub const fn last_command(&self) -> CommandId {
        self.last_command
    }

    pub fn open(&self, command: CommandId) -> Option<&Open> {
        self.open.get(&command)
    }

    /// Open commands, oldest first.
    pub fn open_commands(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    pub fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Open commands whose deadline has passed, earliest first.
    pub fn overdue(&self, now: Timestamp) -> Vec<CommandId> {
        self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, command)| *command).collect()
    }

    pub fn key(&self, key: &str) -> Option<KeyHolder> {
        self.keys.get(key).copied()
    }

    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes the next entry in. An entry that no home of ours could have decided changes nothing but the head.
    pub fn apply(&mut self, entry: &Entry, hash: Hash) -> Vec<Change> {
        debug_assert_eq!(entry.seq, self.seq + 1, "entries are applied in order");
        self.seq = entry.seq;
        self.hash = hash;
        self.at = entry.at;
        self.forget_old_keys();
        let was_busy = self.is_busy();
        let mut changes = match &entry.kind {
            Kind::Issued(issued) => self.issued(entry, issued),
            Kind::Dispatched(dispatch) => self.dispatched(entry.at, dispatch),
            Kind::ChunkOutcome(outcome) => self.chunk_outcome(outcome),
            Kind::Outcome(outcome) => self.outcome(entry, outcome),
            Kind::Late(late) => late_result(late),
            Kind::DeleteBegun(_) => {
                self.count(entry, Route::BulkDelete);
                Vec::new()
            }
            Kind::Deleted(_)
            | Kind::Login(_)
            | Kind::TokenMinted(_)
            | Kind::TokenRevoked(_)
            | Kind::RoleChanged(_)
            | Kind::ProjectChanged(_)
            | Kind::Refused(_) => Vec::new(),
        };
        if self.is_busy() != was_busy {
            changes.push(Change::Busy(self.is_busy()));
        }
        changes
    }

    fn issued(&mut self, entry: &Entry, issued: &Issued) -> Vec<Change> {
        let progress =
            issued.bulk.as_ref().map(|bulk| Progress { total: bulk.total, pending: bulk.total, ..Progress::default() });
        let command = Command {
            id: issued.command,
            project: self.project,
            agent: issued.agent,
            issued_by: entry.actor.user(),
            action: issued.action,
            target_type: issued.target_type,
            target_id: issued.target_id.clone(),
            engine: issued.engine,
            payload: issued.payload.as_str().to_owned(),
            sealed: issued.sealed.clone(),
            global_throttle: issued.global_throttle,
            chunks: issued.bulk.as_ref().map(|bulk| bulk.chunks),
            status: Status::Issued,
            result: None,
            error: None,
            dispatched_at: None,
            completed_at: None,
            deadline: issued.deadline,
            delivered: Delivered::No,
            late_status: None,
            late_result: None,
            chunk: 0,
            attempt: Attempt::NONE,
            session: None,
            issued_seq: entry.seq,
            outcome_seq: None,
            progress,
        };
        let mut changes = vec![Change::Command(Box::new(command.clone()))];
        self.last_command = self.last_command.max(command.id);
        self.deadlines.insert((command.deadline, command.id));
        self.open.insert(command.id, Open { command, state: CommandState::Issued });
        if let Some(route) = Route::of(issued.action) {
            self.count(entry, route);
        }
        if let (Some(key), Some(request_hash)) = (&issued.idempotency_key, hash_of_hex(&issued.request_hash)) {
            let holder = KeyHolder { command: issued.command, request_hash };
            if self.keys.insert(key.clone(), holder).is_none() {
                self.keys_by_age.push_back((entry.at, key.clone()));
            }
            changes.push(Change::Key { key: key.clone(), holder });
        }
        changes
    }

    fn dispatched(&mut self, at: Timestamp, dispatch: &Dispatch) -> Vec<Change> {
        let Some(open) = self.open.get_mut(&dispatch.command) else { return Vec::new() };
        let held = Held::new(dispatch.chunk, dispatch.attempt, open.command.action.redelivery());
        let Ok(state) = open.state.on(CommandEvent::Dispatched(held)) else { return Vec::new() };
        open.state = state;
        let command = &mut open.command;
        command.status = state.status();
        command.dispatched_at.get_or_insert(at);
        command.delivered = if command.delivered == Delivered::Yes { Delivered::Yes } else { Delivered::Unknown };
        (command.chunk, command.attempt, command.session) = (dispatch.chunk, dispatch.attempt, Some(dispatch.session));
        move_deadline(&mut self.deadlines, command, dispatch.deadline);
        vec![Change::Command(Box::new(command.clone()))]
    }

    fn chunk_outcome(&mut self, outcome: &ChunkOutcome) -> Vec<Change> {
        let Some(open) = self.open.get_mut(&outcome.command) else { return Vec::new() };
        let Some(mut progress) = open.command.progress else { return Vec::new() };
        // The last chunk's ids come in the same append as the outcome, which ends the command.
        if let Ok(state) = open.state.on(CommandEvent::ChunkResulted(outcome.chunk)) {
            open.state = state;
        } else {
            return Vec::new();
        }
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        progress.succeeded += count(outcome.succeeded.len());
        progress.failed += count(outcome.failed.len());
        progress.skipped += count(outcome.skipped.len());
        let done = progress.succeeded + progress.failed + progress.skipped;
        progress.pending = progress.total.saturating_sub(done);
        let command = &mut open.command;
        command.progress = Some(progress);
        command.delivered = Delivered::Yes;
        if !outcome.success && command.error.is_none() {
            command.error = Some(outcome.error.clone().unwrap_or_else(|| "a chunk failed".to_owned()));
        }
        move_deadline(&mut self.deadlines, command, outcome.deadline);
        let ids = ChunkIds {
            succeeded: outcome.succeeded.clone(),
            failed: outcome.failed.clone(),
            skipped: outcome.skipped.clone(),
        };
        vec![
            Change::Command(Box::new(command.clone())),
            Change::Chunk { command: outcome.command, chunk: outcome.chunk, ids },
        ]
    }

    fn outcome(&mut self, entry: &Entry, outcome: &Outcome) -> Vec<Change> {
        let Some(open) = self.open.get(&outcome.command) else { return Vec::new() };
        let event = match (outcome.status, open.state) {
            (Status::TimedOut, _) => CommandEvent::DeadlinePassed,
            (Status::Failed, CommandState::Issued) => CommandEvent::Unsupported,
            (Status::Succeeded, _) => CommandEvent::Resulted(Ending::Succeeded),
            (Status::Failed, _) => CommandEvent::Resulted(Ending::Failed),
            (Status::Issued | Status::Dispatched, _) => return Vec::new(),
        };
        let Ok(state) = open.state.on(event) else { return Vec::new() };
        let Some(open) = self.open.remove(&outcome.command) else { return Vec::new() };
        self.deadlines.remove(&(open.command.deadline, open.command.id));
        let mut command = open.command;
        command.status = state.status();
        command.completed_at = Some(entry.at);
        command.outcome_seq = Some(entry.seq);
        command.result = outcome.result.clone().map(super::json::Json::into_string);
        command.error = outcome.error.clone();
        command.delivered = outcome.delivered;
        if let Some(progress) = &mut command.progress {
            progress.skipped += progress.pending;
            progress.pending = 0;
        }
        vec![Change::Command(Box::new(command))]
    }

    fn count(&mut self, entry: &Entry, route: Route) {
        if let Some(user) = principal(entry.actor) {
            self.limits.take(route, user, entry.at);
        }
    }

    fn forget_old_keys(&mut self) {
        let since = self.at.plus_secs(-KEYS_SECS);
        while self.keys_by_age.len() > KEYS_MAX || self.keys_by_age.front().is_some_and(|(at, _)| *at < since) {
            if let Some((_, key)) = self.keys_by_age.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    fn recent_keys(&self) -> Vec<(Timestamp, String, KeyHolder)> {
        let since = self.at.plus_secs(-KEYS_RECENT_SECS);
        let recent = self.keys_by_age.iter().rev().take(KEYS_RECENT_MAX).take_while(|(at, _)| *at >= since);
        let mut keys: Vec<_> =
            recent.filter_map(|(at, key)| Some((*at, key.clone(), self.keys.get(key).copied()?))).collect();
        keys.reverse();
        keys
    }

    pub(super) fn parts(&self) -> Parts {
        Parts {
            project: self.project,
            seq: self.seq,
            hash: self.hash.to_vec(),
            at: self.at,
            last_command: self.last_command,
            open: self.open.values().cloned().collect(),
            keys: self.recent_keys(),
            limits: self.limits.clone(),
        }
    }

    pub(super) fn from_parts(parts: Parts) -> Option<Self> {
        let mut fold = Self::new(parts.project);
        fold.seq = parts.seq;
        fold.hash = parts.hash.try_into().ok()?;
        fold.at = parts.at;
        fold.last_command = parts.last_command;
        fold.deadlines = parts.open.iter().map(|open| (open.command.deadline, open.command.id)).collect();
        fold.open = parts.open.into_iter().map(|open| (open.command.id, open)).collect();
        fold.limits = parts.limits;
        for (at, key, holder) in parts.keys {
            fold.keys_by_age.push_back((at, key.clone()));
            fold.keys.insert(key, holder);
        }
        Some(fold)
    }
}

/// Whom limits count.
fn principal(actor: Actor) -> Option<crate::id::UserId> {
    actor.user()
}

fn move_deadline(deadlines: &mut BTreeSet<(Timestamp, CommandId)>, command: &mut Command, deadline: Timestamp) {
    deadlines.remove(&(command.deadline, command.id));
    command.deadline = deadline;
    deadlines.insert((deadline, command.id));
}

fn late_result(late: &Late) -> Vec<Change> {
    let result = late.result.clone().map(super::json::Json::into_string);
    vec![Change::Late { command: late.command, status: late.status, result }]
}

fn hash_of_hex(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
