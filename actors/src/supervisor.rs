//! The root of a node's actors.
//!
//! **Owns** which recorders and project actors run here. **Invariants** a failed child is started again, from
//! the store, as long as its budget lasts; then it waits a minute, so that a poisoned project cannot burn a core.
//! **Talks to** nobody but its children. **On restart** it is not: when it ends, the node ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cql::Store;
use dashmap::DashMap;
use domain::id::ProjectId;
use domain::ledger::{LedgerKey, Terms};
use domain::secret::{KeyUse, MasterSecret};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent};
use tokio::time::Instant;

use crate::changes::Changes;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::project::{ProjectActor, ProjectHandle, ProjectKeys};
use crate::recorder::{Recorder, Recorders, Wiring};

/// Starts of one child within a minute before it has to wait.
const STARTS_PER_MINUTE: usize = 10;
/// How long a child waits whose budget is spent.
const REST: Duration = Duration::from_secs(60);
/// How long until a child whose start failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Project actors that run on this node.
pub(crate) type Projects = Arc<DashMap<ProjectId, ProjectHandle>>;

/// What every project's actor is built with.
#[derive(Clone)]
pub(crate) struct ProjectWiring {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub directory: Directory,
    pub changes: Changes,
    pub tasks: Recorders,
    pub terms: Terms,
    pub master: Arc<MasterSecret>,
}

impl ProjectWiring {
    fn actor(&self, project: ProjectId) -> ProjectActor {
        ProjectActor {
            project,
            store: self.store.clone(),
            directory: self.directory.clone(),
            changes: self.changes.clone(),
            recorders: self.tasks.clone(),
            clock: self.clock.clone(),
            keys: ProjectKeys {
                ledger: LedgerKey::new(self.master.site_key(KeyUse::Ledger, project).as_bytes()),
                data: self.master.site_key(KeyUse::Data, project),
            },
            terms: self.terms,
        }
    }
}

pub(crate) enum SupervisorMessage {
    /// The project's actor, started if it does not run.
    Activate { project: ProjectId, reply: RpcReplyPort<Result<ProjectHandle, SpawnErr>> },
    /// Starts a child again. Only the supervisor sends it.
    Start(Child),
}

/// One thing the supervisor keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Child {
    /// By its place among the recorders.
    Recorder(usize),
    Project(ProjectId),
}

pub(crate) struct NodeSupervisor;

pub(crate) struct Arguments {
    pub recorders: Vec<Wiring>,
    pub project: ProjectWiring,
    pub projects: Projects,
}

pub(crate) struct State {
    wiring: Arguments,
    running: HashMap<ActorId, Child>,
    starts: HashMap<Child, Vec<Instant>>,
}

impl Actor for NodeSupervisor {
    type Msg = SupervisorMessage;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, wiring: Arguments) -> Result<State, ActorProcessingErr> {
        let mut state = State { wiring, running: HashMap::new(), starts: HashMap::new() };
        for place in 0..state.wiring.recorders.len() {
            state.start(&myself, Child::Recorder(place)).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Activate { project, reply } => {
                let answer = state.activate(&myself, project).await;
                if reply.send(answer).is_err() {
                    tracing::debug!(project.id = %project, "nobody waits for the project any more");
                }
            }
            SupervisorMessage::Start(child) => {
                if let Err(error) = state.start(&myself, child).await {
                    tracing::error!(?child, error = &error as &dyn std::error::Error, "child does not start");
                    myself.send_after(RETRY, move || SupervisorMessage::Start(child));
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                // A child that stops has nothing left to do: it is started again when it is wanted.
                if let Some(child) = state.gone(cell.get_id()) {
                    tracing::debug!(?child, reason, "child stopped");
                }
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some(child) = state.gone(cell.get_id()) {
                    let wait = state.wait_before(child);
                    tracing::error!(?child, error = %error, wait_ms = wait.as_millis(), "child failed and is started again");
                    myself.send_after(wait, move || SupervisorMessage::Start(child));
                }
            }
        }
        Ok(())
    }
}

impl State {
    async fn activate(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        project: ProjectId,
    ) -> Result<ProjectHandle, SpawnErr> {
        if let Some(handle) = self.wiring.projects.get(&project) {
            return Ok(handle.clone());
        }
        self.start(myself, Child::Project(project)).await?;
        let started = self.wiring.projects.get(&project).map(|handle| handle.clone());
        started.ok_or_else(|| SpawnErr::StartupFailed("the project stopped at once".into()))
    }

    async fn start(&mut self, myself: &ActorRef<SupervisorMessage>, child: Child) -> Result<(), SpawnErr> {
        let supervisor = myself.get_cell();
        let id = match child {
            Child::Recorder(place) => {
                let wiring = self.wiring.recorders[place].clone();
                Actor::spawn_linked(None, Recorder, wiring, supervisor).await?.0.get_id()
            }
            Child::Project(project) => {
                if self.wiring.projects.contains_key(&project) {
                    return Ok(());
                }
                let (handle, _ended) = self.wiring.project.actor(project).start(supervisor).await?;
                let id = handle.cell().get_id();
                self.wiring.projects.insert(project, handle);
                id
            }
        };
        self.running.insert(id, child);
        Ok(())
    }

    fn gone(&mut self, id: ActorId) -> Option<Child> {
        let child = self.running.remove(&id)?;
        if let Child::Project(project) = child {
            self.wiring.projects.remove_if(&project, |_, handle| handle.cell().get_id() == id);
        }
        Some(child)
    }

    /// Spends from the child's budget.
    fn wait_before(&mut self, child: Child) -> Duration {
        let now = Instant::now();
        let starts = self.starts.entry(child).or_default();
        starts.retain(|at| now.duration_since(*at) < REST);
        starts.push(now);
        if starts.len() > STARTS_PER_MINUTE { REST } else { Duration::ZERO }
    }
}
