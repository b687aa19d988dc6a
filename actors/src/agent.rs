//! An agent's sessions and delivery lanes.
//!
//! **Owns** which session of one agent has a command in flight, and which commands wait for a lane.
//! **Invariants** at most one command in flight per session, for agents work through commands serially; a command
//! reaches a socket only as [`Dispatched`], which only a durable append can make; bytes that may have left are
//! never sent again unless doing it twice is doing it once, and then to another worker.
//! **Talks to** its ProjectActor (lanes, returns) and to sessions (frames). Both by cast.
//! **On restart** it is rebuilt from the directory and from its project's open commands; it persists nothing.

mod dispatched;
mod seat;

use std::collections::{BTreeSet, VecDeque};

use domain::command::{Action, Attempt};
use domain::engine::Engine;
use domain::id::{AgentId, CommandId, SessionId};
use domain::ledger::Returned;
use ractor::{Actor, ActorProcessingErr, ActorRef};

pub use self::dispatched::{Dispatched, Parts};
use self::seat::{Delivery, Seats};
use crate::directory::Directory;
use crate::project::ProjectMessage;
use crate::session::Sent;

/// Why an agent's actor ends by itself.
pub(crate) const NO_SESSIONS: &str = "no sessions";

/// What a session must be able to do for a command.
#[derive(Clone, Debug)]
pub struct Needs {
    pub engine: Option<Engine>,
    pub action: Action,
    /// Spreads commands over equal sessions, the same target always alike.
    pub target: String,
    /// The worker that may have got the command already.
    pub avoid: Option<Avoid>,
}

/// A worker by its id; sessions without one share a slot of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid(pub Option<String>);

/// A command that wants a lane.
#[derive(Clone, Debug)]
pub struct Offer {
    pub command: CommandId,
    pub needs: Needs,
}

/// A delivery that was handed out before this actor started.
#[derive(Clone, Copy, Debug)]
pub struct HeldLane {
    pub session: SessionId,
    pub command: CommandId,
    pub chunk: u32,
    pub attempt: Attempt,
}

#[derive(Debug)]
pub enum AgentMessage {
    /// Answered by a `Lane`, and by another one later if there is none now.
    Offer(Offer),
    /// Hands a durable delivery to the socket whose lane was kept for it.
    Deliver(Box<Dispatched>),
    SessionUp(SessionId),
    SessionDown(SessionId),
    /// The session answered; its lane is free.
    Answered {
        session: SessionId,
        command: CommandId,
        chunk: u32,
    },
    /// An offer came to nothing: a lane that was kept for it is free, one that has its delivery is not.
    Release(CommandId),
    /// The agent's open commands, after another home may have ended some.
    Open(BTreeSet<CommandId>),
    /// The command needs no lane any more: refused, ended.
    Forget(CommandId),
    /// A session certainly did not send a frame it was given. Private.
    NotSent(NotSent),
}

/// Only this module can say what became of a frame.
#[derive(Debug)]
pub struct NotSent {
    delivery: Delivery,
    session: SessionId,
}

/// One agent of one project on this node.
pub struct AgentActor {
    pub agent: AgentId,
    pub directory: Directory,
    pub project: ActorRef<ProjectMessage>,
}

/// What a new actor is told: what its predecessor knew.
#[derive(Debug, Default)]
pub struct AgentArguments {
    pub offers: Vec<Offer>,
    pub held: Vec<HeldLane>,
}

pub struct AgentState {
    seats: Seats,
    /// Commands without a lane, oldest first.
    waiting: VecDeque<Offer>,
}

impl Actor for AgentActor {
    type Msg = AgentMessage;
    type State = AgentState;
    type Arguments = AgentArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<AgentMessage>,
        arguments: AgentArguments,
    ) -> Result<AgentState, ActorProcessingErr> {
        let mut state = AgentState { seats: Seats::default(), waiting: arguments.offers.into() };
        for handle in self.directory.sessions_of(self.agent) {
            state.seats.sit(handle);
        }
        for held in arguments.held {
            let delivery = Delivery { command: held.command, chunk: held.chunk, attempt: held.attempt, given: true };
            state.seats.hold(held.session, delivery);
        }
        self.serve_waiting(&mut state);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<AgentMessage>,
        message: AgentMessage,
        state: &mut AgentState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AgentMessage::Offer(offer) => self.on_offer(state, offer),
            AgentMessage::Deliver(dispatched) => self.on_deliver(&myself, state, *dispatched),
            AgentMessage::SessionUp(session) => self.on_session_up(state, session),
            AgentMessage::SessionDown(session) => self.on_session_down(&myself, state, session),
            AgentMessage::Answered { session, command, chunk } => self.on_answered(state, session, command, chunk),
            AgentMessage::Release(command) => self.on_release(state, command),
            AgentMessage::Open(open) => self.on_open(state, &open),
            AgentMessage::Forget(command) => self.on_forget(state, command),
            AgentMessage::NotSent(not_sent) => self.on_not_sent(state, not_sent),
        }
        Ok(())
    }
}

impl AgentActor {
    fn on_offer(&self, state: &mut AgentState, offer: Offer) {
        state.waiting.retain(|waiting| waiting.command != offer.command);
        let session = state.seats.take(&offer);
        let command = offer.command;
        if session.is_none() {
            state.waiting.push_back(offer);
        }
        self.tell(ProjectMessage::Lane { command, session });
    }

    fn on_deliver(&self, myself: &ActorRef<AgentMessage>, state: &mut AgentState, dispatched: Dispatched) {
        let (session, delivery) = (dispatched.session(), dispatched.delivery());
        let Some(handle) = state.seats.give(session, delivery) else {
            let (chunk, attempt) = (delivery.chunk, delivery.attempt);
            let returned = Returned::NotSent { chunk, attempt };
            return self.tell(ProjectMessage::Returned { command: delivery.command, returned, worker: None });
        };
        // The ledger and the command's row say so too, for good.
        tracing::debug!(
            command.id = %delivery.command, session.id = %session, chunk = delivery.chunk,
            attempt = delivery.attempt.0, "dispatched command"
        );
        let myself = myself.clone();
        // Writing waits for the socket, and the mailbox must not.
        tokio::spawn(async move {
            match handle.send(dispatched.into_frame()).await {
                // An actor that is gone was restarted, and counts the delivery as under way.
                Some(Sent::NotSent) => drop(myself.cast(AgentMessage::NotSent(NotSent { delivery, session }))),
                // Bytes have left, or may have: then the session ends, and its end says that the delivery is gone.
                Some(Sent::Written) | None => {}
            }
        });
    }

    fn on_not_sent(&self, state: &mut AgentState, not_sent: NotSent) {
        let NotSent { delivery, session } = not_sent;
        let (chunk, attempt) = (delivery.chunk, delivery.attempt);
        state.seats.refuse(session, delivery.command);
        let returned = Returned::NotSent { chunk, attempt };
        self.tell(ProjectMessage::Returned { command: delivery.command, returned, worker: None });
        self.serve_waiting(state);
    }

    fn on_session_up(&self, state: &mut AgentState, session: SessionId) {
        let handle = self.directory.sessions_of(self.agent).into_iter().find(|handle| handle.id() == session);
        if let Some(handle) = handle {
            state.seats.sit(handle);
            self.serve_waiting(state);
        }
    }

    fn on_session_down(&self, myself: &ActorRef<AgentMessage>, state: &mut AgentState, session: SessionId) {
        if let Some((lane, worker)) = state.seats.leave(session) {
            for delivery in lane.into_iter().filter(|delivery| delivery.given) {
                let returned = Returned::Gone { chunk: delivery.chunk, attempt: delivery.attempt };
                let worker = Some(Avoid(worker.clone()));
                self.tell(ProjectMessage::Returned { command: delivery.command, returned, worker });
            }
        }
        if state.seats.is_empty() {
            // The project starts another one with the next session.
            myself.stop(Some(NO_SESSIONS.to_owned()));
        }
    }

    fn on_answered(&self, state: &mut AgentState, session: SessionId, command: CommandId, chunk: u32) {
        state.seats.free(session, command, chunk);
        self.serve_waiting(state);
    }

    fn on_release(&self, state: &mut AgentState, command: CommandId) {
        state.waiting.retain(|offer| offer.command != command);
        state.seats.release(command);
        self.serve_waiting(state);
    }

    fn on_open(&self, state: &mut AgentState, open: &BTreeSet<CommandId>) {
        state.seats.keep_open(open);
        self.serve_waiting(state);
    }

    fn on_forget(&self, state: &mut AgentState, command: CommandId) {
        state.waiting.retain(|offer| offer.command != command);
        state.seats.forget(command);
        self.serve_waiting(state);
    }

    /// Gives free lanes to waiting commands, oldest first.
    fn serve_waiting(&self, state: &mut AgentState) {
        let mut still_waiting = VecDeque::with_capacity(state.waiting.len());
        for offer in state.waiting.drain(..) {
            match state.seats.take(&offer) {
                Some(session) => {
                    self.tell(ProjectMessage::Lane { command: offer.command, session: Some(session) });
                }
                None => still_waiting.push_back(offer),
            }
        }
        state.waiting = still_waiting;
    }

    /// A project that is gone restarts from its ledger and needs to hear nothing.
    fn tell(&self, message: ProjectMessage) {
        let _ = self.project.cast(message);
    }
}
