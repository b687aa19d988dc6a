//! The project's agents: started on demand, asked for lanes, restarted within a budget.

use std::collections::{HashMap, VecDeque};

use domain::command::wire::Form;
use domain::command::{Claim, Command, CommandState};
use domain::id::{AgentId, CommandId, SessionId};
use domain::ledger::{Open, Returned, decide};
use domain::time::Timestamp;
use ractor::{Actor, ActorId, ActorRef};

use super::state::{Input, Issuing, State};
use super::{ProjectActor, ProjectMessage};
use crate::agent::{AgentActor, AgentArguments, AgentMessage, Avoid, HeldLane, Needs, Offer};

/// An agent actor that fails more often is not restarted; its commands run to their deadlines.
const RESTARTS_PER_MINUTE: usize = 5;

/// A supervised agent.
#[derive(Default)]
pub(super) struct Child {
    actor: Option<ActorRef<AgentMessage>>,
    failures: VecDeque<Timestamp>,
}

impl Child {
    /// Sends a message; false if there is nobody to hear it.
    fn tell(&self, message: AgentMessage) -> bool {
        self.actor.as_ref().is_some_and(|actor| actor.cast(message).is_ok())
    }

    fn may_start(&mut self, now: Timestamp) -> bool {
        while self.failures.front().is_some_and(|at| *at < now.plus_secs(-60)) {
            self.failures.pop_front();
        }
        self.failures.len() < RESTARTS_PER_MINUTE
    }
}

impl ProjectActor {
    /// Starts the agent's actor if it has sessions here and none runs.
    pub(super) async fn ensure_agent(&self, myself: &ActorRef<ProjectMessage>, state: &mut State, agent: AgentId) {
        let now = self.clock.now();
        let child = state.agents.entry(agent).or_default();
        if child.actor.is_some() || !self.directory.is_connected(agent) || !child.may_start(now) {
            return;
        }
        let arguments = self.arguments_for(state, agent);
        let actor = AgentActor { agent, directory: self.directory.clone(), project: myself.clone() };
        let spawned = AgentActor::spawn_linked(None, actor, arguments, myself.get_cell()).await;
        match spawned {
            Ok((actor, _)) => state.agents.entry(agent).or_default().actor = Some(actor),
            Err(error) => {
                tracing::error!(project.id = %self.project, agent.id = %agent, error = %error, "agent actor did not start");
            }
        }
    }

    /// What a new actor is told: open commands that want a lane, and lanes that are taken.
    fn arguments_for(&self, state: &State, agent: AgentId) -> AgentArguments {
        let mine = || state.log.fold.open_commands().filter(|open| open.command.agent == agent);
        let waits = |open: &&Open| decide::next_delivery(open, returned(&state.returned, open)).is_some();
        let offers = mine().filter(waits).map(|open| offer(&open.command, &state.avoid)).collect();
        let held = mine()
            .filter(|open| !waits(open))
            .filter_map(|open| match open.state {
                CommandState::Dispatched(held) => Some(HeldLane {
                    session: open.command.session?,
                    command: open.command.id,
                    chunk: held.chunk,
                    attempt: held.attempt,
                }),
                CommandState::Issued
                | CommandState::Unsupported { .. }
                | CommandState::Finished { .. }
                | CommandState::TimedOut { .. } => None,
            })
            .collect();
        AgentArguments { offers, held }
    }

    /// Asks the agent for a lane for a draft. False if nobody will answer.
    pub(super) async fn offer_new(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        issuing: &Issuing,
    ) -> bool {
        let Form { action, engine, target_id, .. } = &issuing.prepared.form;
        let target = target_id.clone().unwrap_or_default();
        let needs = Needs { engine: *engine, action: *action, target, avoid: None };
        let offer = Offer { command: issuing.prepared.command, needs };
        self.ensure_agent(myself, state, issuing.draft.agent).await;
        state.agents.get(&issuing.draft.agent).is_some_and(|child| child.tell(AgentMessage::Offer(offer)))
    }

    /// Asks for a lane for an open command that wants one.
    pub(super) async fn offer_open(&self, myself: &ActorRef<ProjectMessage>, state: &mut State, command: CommandId) {
        let Some(open) = state.log.fold.open(command) else { return };
        if decide::next_delivery(open, returned(&state.returned, open)).is_none() {
            return;
        }
        let (agent, offer) = (open.command.agent, offer(&open.command, &state.avoid));
        let is_running = state.agents.get(&agent).is_some_and(|child| child.actor.is_some());
        if !is_running {
            // A new actor is told of all open commands.
            return self.ensure_agent(myself, state, agent).await;
        }
        // One that just ended is replaced, and its successor told.
        let _ = state.agents.get(&agent).is_some_and(|child| child.tell(AgentMessage::Offer(offer)));
    }

    /// The agent's answer to an offer: of a draft, or of an open command.
    pub(super) fn on_lane(&self, state: &mut State, command: CommandId, session: Option<SessionId>) {
        if let Some(mut issuing) = state.offered.remove(&command) {
            issuing.lane = session;
            state.queue.push_back(Input::Issue(issuing));
        } else if let Some(session) = session {
            state.queue.push_back(Input::Lane { command, session });
        }
    }

    pub(super) async fn on_returned(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        command: CommandId,
        came_back: Returned,
        worker: Option<Avoid>,
    ) {
        let Some(open) = state.log.fold.open(command) else { return };
        if open.state.on(came_back.into()).is_err() {
            return;
        }
        if let Returned::NotSent { attempt, .. } = came_back {
            let before = state.unsent.get(&command).map_or(0, |attempt| attempt.0);
            if before + 1 == attempt.0 {
                state.unsent.insert(command, attempt);
            }
        }
        if let Some(worker) = worker {
            state.avoid.insert(command, worker);
        }
        state.returned.insert(command, came_back);
        self.offer_open(myself, state, command).await;
    }

    pub(super) async fn on_session_up(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        agent: AgentId,
        session: SessionId,
    ) {
        let told = state.agents.get(&agent).is_some_and(|child| child.tell(AgentMessage::SessionUp(session)));
        // An agent that nobody asks for anything needs no actor.
        if !told && state.log.fold.open_commands().any(|open| open.command.agent == agent) {
            self.ensure_agent(myself, state, agent).await;
        }
    }

    pub(super) fn on_session_down(&self, state: &mut State, agent: AgentId, session: SessionId) {
        // Without an actor there is no lane to free.
        let _ = state.agents.get(&agent).is_some_and(|child| child.tell(AgentMessage::SessionDown(session)));
    }

    pub(super) fn tell_answered(&self, state: &State, agent: AgentId, session: SessionId, claim: Claim) {
        let Claim { command, chunk, .. } = claim;
        let answered = AgentMessage::Answered { session, command, chunk };
        let _ = state.agents.get(&agent).is_some_and(|child| child.tell(answered));
    }

    /// Whichever agent was offered it may use the lane for something else.
    pub(super) fn tell_release(&self, state: &State, command: CommandId) {
        for child in state.agents.values() {
            child.tell(AgentMessage::Release(command));
        }
    }

    /// After reading on: another home may have ended commands that hold a lane here.
    pub(super) fn tell_open(&self, state: &State) {
        self.changes.commands_may_have_ended();
        for (agent, child) in &state.agents {
            let mine = state.log.fold.open_commands().filter(|open| open.command.agent == *agent);
            child.tell(AgentMessage::Open(mine.map(|open| open.command.id).collect()));
        }
    }

    pub(super) fn tell_forget(&self, state: &State, agent: AgentId, command: CommandId) {
        let _ = state.agents.get(&agent).is_some_and(|child| child.tell(AgentMessage::Forget(command)));
    }

    /// Hands a delivery to its agent; what nobody takes has not been sent.
    pub(super) fn tell_deliver(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &State,
        agent: AgentId,
        dispatched: crate::agent::Dispatched,
        not_sent: (CommandId, Returned),
    ) {
        let child = state.agents.get(&agent);
        if !child.is_some_and(|child| child.tell(AgentMessage::Deliver(Box::new(dispatched)))) {
            let (command, returned) = not_sent;
            let _ = myself.cast(ProjectMessage::Returned { command, returned, worker: None });
        }
    }

    /// An agent actor ended: by itself when its last session went, or by a failure. Drafts that waited for its
    /// answer go on without a lane.
    pub(super) async fn on_agent_ended(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        ended: ActorId,
        failed: bool,
    ) {
        let is_it = |child: &Child| child.actor.as_ref().is_some_and(|actor| actor.get_id() == ended);
        let Some((agent, child)) = state.agents.iter_mut().find(|(_, child)| is_it(child)) else { return };
        let agent = *agent;
        child.actor = None;
        if failed {
            child.failures.push_back(self.clock.now());
        }
        let waiting: Vec<CommandId> = state
            .offered
            .iter()
            .filter(|(_, issuing)| issuing.draft.agent == agent)
            .map(|(command, _)| *command)
            .collect();
        for command in waiting {
            if let Some(issuing) = state.offered.get_mut(&command) {
                issuing.told = false;
            }
            self.on_lane(state, command, None);
        }
        if state.agents.get(&agent).is_some_and(|child| child.failures.is_empty()) {
            state.agents.remove(&agent);
        }
        self.ensure_agent(myself, state, agent).await;
    }

    /// After a restart: deliveries of sessions that are gone count as gone with them.
    pub(super) fn adopt_lost_deliveries(&self, state: &mut State) {
        let mut lost = Vec::new();
        for open in state.log.fold.open_commands() {
            let CommandState::Dispatched(held) = open.state else { continue };
            let sessions = self.directory.sessions_of(open.command.agent);
            let alive = sessions.iter().any(|handle| Some(handle.id()) == open.command.session);
            let gone = Returned::Gone { chunk: held.chunk, attempt: held.attempt };
            if !alive && open.state.on(gone.into()).is_ok() {
                lost.push((open.command.id, gone));
            }
        }
        state.returned.extend(lost);
    }
}

fn returned(all: &HashMap<CommandId, Returned>, open: &Open) -> Option<Returned> {
    all.get(&open.command.id).copied()
}

fn offer(command: &Command, avoid: &HashMap<CommandId, Avoid>) -> Offer {
    let needs = Needs {
        engine: command.engine,
        action: command.action,
        target: command.target_id.clone().unwrap_or_default(),
        avoid: avoid.get(&command.id).cloned(),
    };
    Offer { command: command.id, needs }
}
