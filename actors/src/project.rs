//! A project's ledger, its open commands, their deadlines and limits.
//!
//! **Owns** one project's ledger: it is the only writer on this node, and an append of another home makes it read
//! on and decide again. Supervises the project's agents.
//! **Invariants** a command is durable before any agent sees it; one outcome per command, for ever; every open
//! command ends at most a second after its deadline; limits and idempotency follow from the ledger alone.
//! **Talks to** its AgentActors (offers, deliveries), the store (appends, in a task of their own), recorders (tasks
//! that a command scheduled), its callers.
//! **On restart** `pre_start` folds the ledger from its head, writes projections that may be missing, and starts
//! the agents that have open commands and sessions. A delivery without a result counts as "bytes may have left".

mod agents;
mod append;
mod decide;
mod handle;
mod load;
mod prepare;
mod state;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use cql::Store;
use domain::command::{Claim, Command, Draft};
use domain::id::{AgentId, CommandId, ProjectId, SessionId};
use domain::ledger::decide::Answer;
use domain::ledger::{LedgerKey, Proposal, Returned, Terms};
use domain::secret::SiteKey;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::OwnedSemaphorePermit;

use self::append::AppendDone;
pub use self::handle::{Heard, IssueError, NoteError, ProjectHandle, REQUESTS_MAX};
use self::prepare::Ready;
use self::state::{Input, State};
pub(crate) use self::wake::wake_open_projects;
use crate::agent::{Avoid, Dispatched, NO_SESSIONS};
use crate::changes::Changes;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::recorder::Recorders;

/// How often a home reads on while what it knows may not be all there is.
const CATCH_UP_EVERY: Duration = Duration::from_secs(5);

pub enum ProjectMessage {
    Issue {
        draft: Box<Draft>,
        permit: OwnedSemaphorePermit,
        reply: RpcReplyPort<Result<Command, IssueError>>,
    },
    /// Something that is audited but is no command: deletions, logins, tokens, refusals. Answers the entry's seq.
    Note {
        proposal: Box<Proposal>,
        permit: OwnedSemaphorePermit,
        reply: RpcReplyPort<Result<u64, NoteError>>,
    },
    SessionUp {
        agent: AgentId,
        session: SessionId,
    },
    SessionDown {
        agent: AgentId,
        session: SessionId,
    },
    Heard {
        agent: AgentId,
        session: SessionId,
        claim: Claim,
        heard: Heard,
        permit: OwnedSemaphorePermit,
    },
    /// An agent's answer to an offer, and any lane that becomes free for it later.
    Lane {
        command: CommandId,
        session: Option<SessionId>,
    },
    /// A delivery came back; `worker` may have got it.
    Returned {
        command: CommandId,
        returned: Returned,
        worker: Option<Avoid>,
    },
    /// Private from here on: work that ran in tasks of its own, and the timer.
    Ready(Box<Ready>),
    Looked(Box<Input>),
    /// An open command wants a lane: the next chunk of a bulk command, or one whose agent may have connected.
    Next {
        command: CommandId,
    },
    /// The frozen ids of a chunk are in its frame.
    Loaded {
        agent: AgentId,
        dispatched: Box<Dispatched>,
        not_sent: (CommandId, Returned),
    },
    Appended(Box<AppendDone>),
    Tick(Tick),
}

/// Only this module can say that time has passed.
#[derive(Debug)]
pub struct Tick(());

/// The wiring of one project; everything in it is shared or small.
#[derive(Clone)]
pub struct ProjectActor {
    pub project: ProjectId,
    pub store: Arc<dyn Store>,
    pub directory: Directory,
    pub changes: Changes,
    /// For what a command says of a task.
    pub(crate) recorders: Recorders,
    pub clock: Clock,
    pub keys: ProjectKeys,
    pub terms: Terms,
}

/// The site keys of one project.
#[derive(Clone, Debug)]
pub struct ProjectKeys {
    /// MACs of the ledger.
    pub ledger: LedgerKey,
    /// Encrypts what of a command may hold secrets.
    pub data: SiteKey,
}

/// Our memory may be wrong, so the actor ends and reads the truth.
#[derive(Debug, thiserror::Error)]
enum Uncertain {
    #[error("the outcome of an append is unknown")]
    Append,
    #[error("the store did not answer")]
    Store(#[source] cql::StoreError),
    #[error("the ledger cannot be read")]
    Ledger(#[source] load::LoadError),
}

impl Actor for ProjectActor {
    type Msg = ProjectMessage;
    type State = State;
    type Arguments = ();

    #[tracing::instrument(skip_all, fields(project.id = %self.project))]
    async fn pre_start(&self, myself: ActorRef<ProjectMessage>, (): ()) -> Result<State, ActorProcessingErr> {
        let loaded = load::load(&*self.store, self.project, &self.keys.ledger).await.map_err(Uncertain::Ledger)?;
        let mut state = State::new(loaded, self.clock.now());
        // The append of an earlier life may be durable without anybody having heard of it.
        self.changes.ledger_grew(self.project);
        self.changes.commands_may_have_ended();
        self.adopt_lost_deliveries(&mut state);
        let agents: std::collections::BTreeSet<AgentId> =
            state.log.fold.open_commands().map(|open| open.command.agent).collect();
        for agent in agents {
            self.ensure_agent(&myself, &mut state, agent).await;
        }
        self.set_timer(&myself, &mut state);
        Ok(state)
    }

    // One per message: costs nothing unless somebody debugs, so what is logged in here names its project itself.
    #[tracing::instrument(level = "debug", skip_all, fields(project.id = %self.project))]
    async fn handle(
        &self,
        myself: ActorRef<ProjectMessage>,
        message: ProjectMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProjectMessage::Issue { draft, permit, reply } => {
                self.prepare(&myself, state, *draft, permit, reply).await;
            }
            ProjectMessage::Note { proposal, permit, reply } => {
                state.queue.push_back(Input::Note { proposal, permit, reply });
            }
            ProjectMessage::SessionUp { agent, session } => {
                self.on_session_up(&myself, state, agent, session).await;
            }
            ProjectMessage::SessionDown { agent, session } => self.on_session_down(state, agent, session),
            ProjectMessage::Heard { agent, session, claim, heard, permit } => {
                self.on_heard(&myself, state, agent, session, claim, heard, permit);
            }
            ProjectMessage::Lane { command, session } => self.on_lane(state, command, session),
            ProjectMessage::Returned { command, returned, worker } => {
                self.on_returned(&myself, state, command, returned, worker).await;
            }
            ProjectMessage::Ready(ready) => self.on_ready(&myself, state, *ready).await,
            ProjectMessage::Looked(input) => state.queue.push_back(*input),
            ProjectMessage::Next { command } => self.offer_open(&myself, state, command).await,
            ProjectMessage::Loaded { agent, dispatched, not_sent } => {
                self.tell_deliver(&myself, state, agent, *dispatched, not_sent);
            }
            ProjectMessage::Appended(done) => self.on_appended(&myself, state, *done).await?,
            ProjectMessage::Tick(Tick(())) => self.on_tick(state).await?,
        }
        self.append_next(&myself, state);
        self.set_timer(&myself, state);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ProjectMessage>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                tracing::error!(project.id = %self.project, error = %error, "agent actor failed");
                self.on_agent_ended(&myself, state, cell.get_id(), true).await;
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let failed = reason.as_deref() != Some(NO_SESSIONS);
                self.on_agent_ended(&myself, state, cell.get_id(), failed).await;
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        self.append_next(&myself, state);
        Ok(())
    }
}

impl ProjectActor {
    #[expect(clippy::too_many_arguments, reason = "the members of one message")]
    fn on_heard(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        agent: AgentId,
        session: SessionId,
        claim: Claim,
        heard: Heard,
        permit: OwnedSemaphorePermit,
    ) {
        match heard {
            Heard::Ack => {
                if state.log.fold.open(claim.command).is_some_and(|open| open.command.agent == agent) {
                    state.acked.insert(claim.command);
                }
            }
            Heard::Result(answer) => {
                self.tell_answered(state, agent, session, claim);
                self.look_up_answer(myself, state, agent, claim, answer, Some(permit));
            }
        }
    }

    /// Reads what an answer needs before it can be decided: the frozen ids of its chunk, or the row of a command
    /// that has ended.
    fn look_up_answer(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        agent: AgentId,
        claim: Claim,
        answer: Answer,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let is_bulk = match state.log.fold.open(claim.command) {
            Some(open) if !open.command.is_bulk() => {
                let input = Input::Answer { agent, claim, answer, chunk: None, ended: false, permit };
                state.queue.push_back(input);
                return;
            }
            Some(_) => true,
            None => false,
        };
        let (store, project, myself) = (Arc::clone(&self.store), self.project, myself.clone());
        tokio::spawn(async move {
            let found = prepare::find_answered(&*store, project, agent, claim, is_bulk).await;
            if let Some((chunk, ended)) = found {
                let input = Input::Answer { agent, claim, answer, chunk, ended, permit };
                // A project that is gone meanwhile loses the answer, as it would have lost the frame.
                let _ = myself.cast(ProjectMessage::Looked(Box::new(input)));
            }
        });
    }

    /// Ends what is overdue, and reads on where another home may have written.
    async fn on_tick(&self, state: &mut State) -> Result<(), Uncertain> {
        let now = self.clock.now();
        state.timer = None;
        if state.space_at.is_none_or(|at| at <= now) {
            state.space_at = None;
            // An answer comes before the deadline that passed while it waited.
            state.queue.extend(state.kept.drain(..));
            state.queue.extend(state.log.fold.overdue(now).into_iter().map(Input::Overdue));
        }
        if state.catch_up_at.is_some_and(|at| at <= now) {
            state.catch_up_at = state.next_catch_up(now);
            if state.appending.is_none() {
                let read = load::read_on(&*self.store, &mut state.log, &mut state.projector);
                if read.await.map_err(Uncertain::Ledger)? {
                    state.forget_ended();
                    self.tell_open(state);
                    state.catch_up_at = Some(now.plus_secs(CATCH_UP_EVERY.as_secs().cast_signed()));
                }
            }
        }
        Ok(())
    }

    /// One timer for the earliest of all deadlines.
    fn set_timer(&self, myself: &ActorRef<ProjectMessage>, state: &mut State) {
        let open = state.log.fold.next_deadline();
        let due = state.space_at.map_or(open, |space| Some(open.map_or(space, |at| at.max(space))));
        let wanted = [due, state.space_at, state.catch_up_at].into_iter().flatten().min();
        let Some(at) = wanted else { return };
        let now = self.clock.now();
        // Overdue commands that wait for the append to be done are no reason to wake up before it is.
        if (state.appending.is_some() && at <= now) || state.timer.as_ref().is_some_and(|timer| timer.at <= at) {
            return;
        }
        let micros = u64::try_from(at.since(now)).unwrap_or(0);
        let task = myself.send_after(Duration::from_micros(micros.max(1000)), || ProjectMessage::Tick(Tick(())));
        if let Some(earlier) = state.timer.replace(state::Timer { at, task: task.abort_handle() }) {
            earlier.task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
