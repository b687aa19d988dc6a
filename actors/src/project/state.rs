//! What a project's actor keeps in memory: its ledger, and what entries do not say.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use cql::ledger::Projector;
use domain::command::chunk::Chunk;
use domain::command::record::Delivered;
use domain::command::{Attempt, Claim, Command, Draft};
use domain::id::{AgentId, CommandId, SessionId, uuid_v7};
use domain::ledger::decide::Answer;
use domain::ledger::{Log, Open, Prepared, Proposal, Returned};
use domain::time::Timestamp;
use ractor::RpcReplyPort;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::agents::Child;
use super::handle::{IssueError, NoteError};
use super::load::Loaded;
use crate::agent::Avoid;
use crate::complaint::Complaint;

/// For how long after its start a home reads on without being told: an append whose outcome was unknown may
/// still appear.
const SETTLING_SECS: i64 = 60;

/// Something that waits to be decided and appended. It is kept until its append is done, to be decided again if
/// another home was first.
pub enum Input {
    Issue(Box<Issuing>),
    Note {
        proposal: Box<Proposal>,
        permit: OwnedSemaphorePermit,
        reply: RpcReplyPort<Result<u64, NoteError>>,
    },
    /// A lane is free for an open command.
    Lane {
        command: CommandId,
        session: SessionId,
    },
    Answer {
        agent: AgentId,
        claim: Claim,
        answer: Answer,
        chunk: Option<Chunk>,
        ended: bool,
        permit: Option<OwnedSemaphorePermit>,
    },
    Overdue(CommandId),
}

/// A draft on its way to the ledger.
pub struct Issuing {
    pub(super) draft: Draft,
    pub(super) prepared: Prepared,
    pub(super) lane: Option<SessionId>,
    /// The agent's actor knows of it, and has a lane for it now or later.
    pub(super) told: bool,
    /// How often the log had been read anew when the key was looked up.
    pub(super) reloads: u64,
    #[expect(dead_code, reason = "held until the issue is answered")]
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) reply: RpcReplyPort<Result<Command, IssueError>>,
}

pub(super) struct Timer {
    pub(super) at: Timestamp,
    pub(super) task: AbortHandle,
}

/// An append is under way, up to this seq.
pub(super) struct Appending;

pub struct State {
    pub(super) log: Log,
    pub(super) projector: Projector,
    /// Seq at which the head was written last, or was too large to be.
    pub(super) head_seq: u64,
    /// How often the log was read anew.
    pub(super) reloads: u64,
    pub(super) queue: VecDeque<Input>,
    pub(super) appending: Option<Appending>,
    /// What has happened and found no space in the store, oldest first.
    pub(super) kept: VecDeque<Input>,
    /// When `kept`, and what is overdue, is tried again.
    pub(super) space_at: Option<Timestamp>,
    /// That there is no space.
    pub(super) complaint: Complaint,
    /// Drafts whose agent was asked for a lane.
    pub(super) offered: BTreeMap<CommandId, Box<Issuing>>,
    pub(super) agents: BTreeMap<AgentId, Child>,
    /// Commands whose agent acknowledged them.
    pub(super) acked: HashSet<CommandId>,
    /// Deliveries that came back, so that the next attempt may go out.
    pub(super) returned: HashMap<CommandId, Returned>,
    /// Workers that may have got a command.
    pub(super) avoid: HashMap<CommandId, Avoid>,
    /// Up to which attempt certainly nothing was sent.
    pub(super) unsent: HashMap<CommandId, Attempt>,
    pub(super) timer: Option<Timer>,
    pub(super) catch_up_at: Option<Timestamp>,
    started_at: Timestamp,
    last_minted: Timestamp,
}

impl State {
    pub(super) fn new(loaded: Loaded, now: Timestamp) -> Self {
        let Loaded { log, projector, head_seq } = loaded;
        let mut state = Self {
            last_minted: log.fold.last_command().issued_at(),
            log,
            projector,
            head_seq,
            reloads: 0,
            queue: VecDeque::new(),
            appending: None,
            kept: VecDeque::new(),
            space_at: None,
            complaint: Complaint::default(),
            offered: BTreeMap::new(),
            agents: BTreeMap::new(),
            acked: HashSet::new(),
            returned: HashMap::new(),
            avoid: HashMap::new(),
            unsent: HashMap::new(),
            timer: None,
            catch_up_at: None,
            started_at: now,
        };
        state.catch_up_at = state.next_catch_up(now);
        state
    }

    /// A command id larger than any before; its time is the command's issue time.
    pub(super) fn mint(&mut self, now: Timestamp, random: [u8; 8]) -> CommandId {
        let latest = self.last_minted.max(self.log.fold.last_command().issued_at());
        let at = now.max(latest.plus_micros(1));
        self.last_minted = at;
        CommandId::from_uuid(uuid_v7(at, random))
    }

    pub(super) fn next_catch_up(&self, now: Timestamp) -> Option<Timestamp> {
        let settling = now < self.started_at.plus_secs(SETTLING_SECS);
        settling.then(|| now.plus_secs(super::CATCH_UP_EVERY.as_secs().cast_signed()))
    }

    /// What this home knows about the delivery of an open command.
    pub(super) fn delivered(&self, open: &Open) -> Delivered {
        let command = &open.command;
        if self.acked.contains(&command.id) || command.delivered == Delivered::Yes {
            Delivered::Yes
        } else if command.attempt == Attempt::NONE || self.unsent.get(&command.id) == Some(&command.attempt) {
            Delivered::No
        } else {
            Delivered::Unknown
        }
    }

    /// Forgets what was remembered of commands that another home has ended.
    pub(super) fn forget_ended(&mut self) {
        let fold = &self.log.fold;
        self.acked.retain(|command| fold.open(*command).is_some());
        self.returned.retain(|command, _| fold.open(*command).is_some());
        self.avoid.retain(|command, _| fold.open(*command).is_some());
        self.unsent.retain(|command, _| fold.open(*command).is_some());
    }

    /// Forgets what was remembered of a command that has ended.
    pub(super) fn forget(&mut self, command: CommandId) {
        self.acked.remove(&command);
        self.returned.remove(&command);
        self.avoid.remove(&command);
        self.unsent.remove(&command);
    }
}
