//! The handle to every actor: the only way the edge changes state.
//!
//! Cheap to clone. One node today: a project's home is here. With several, this is the one place that asks where.

use std::sync::Arc;
use std::time::Duration;

use cql::Store;
use cql::stats::Counter;
use cql::tasks::Tasks;
use domain::command::{Command, Draft};
use domain::id::address::{Layout, Shard, TaskKey};
use domain::id::{AgentId, EventId, NodeId, ProjectId};
use domain::ledger::{Proposal, Terms};
use domain::secret::MasterSecret;
use domain::wire::CloseCode;
use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::{Mutex, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::changes::Changes;
use crate::clock::Clock;
use crate::complaint::Complaint;
use crate::directory::Directory;
use crate::lost;
use crate::presence::{Presence, PresenceConfig};
use crate::project::{IssueError, NoteError, ProjectHandle, wake_open_projects};
use crate::recorder::{Batch, Deletions, Recorders, Wiring, Work};
use crate::session::SessionFacts;
use crate::session::polled::PolledSessions;
use crate::supervisor::{Arguments, NodeSupervisor, ProjectWiring, Projects, SupervisorMessage};

/// How long the edge waits for an actor.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long shutdown waits for sessions, then for commands, then for actors.
const DRAIN_PATIENCE: Duration = Duration::from_secs(15);
/// How often it looks whether commands have settled.
const IDLE_POLL: Duration = Duration::from_millis(10);

/// What a node's actors are built with.
pub struct MeshConfig {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub node: NodeId,
    /// No other node shares the store.
    pub alone: bool,
    /// Recorders of this node; the shards are dealt out among them.
    pub recorders: usize,
    pub layout: Layout,
    pub retention_secs: i64,
    /// A started task is lost when its worker has been offline, and nothing heard of it, for this long (D33).
    pub lost_after: Duration,
    /// Timeouts and limits of commands.
    pub terms: Terms,
    pub master: MasterSecret,
}

/// A node's actors cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("actors do not start")]
pub struct StartError(#[from] SpawnErr);

/// A project's actor cannot be reached now; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("project is not available")]
pub struct Unreachable;

#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    clock: Clock,
    alone: bool,
    store: Arc<dyn Store>,
    directory: Directory,
    changes: Changes,
    presence: Presence,
    tasks: Tasks,
    recorders: Recorders,
    projects: Projects,
    supervisor: ActorRef<SupervisorMessage>,
    drain: CancellationToken,
    sessions: TaskTracker,
    polled: PolledSessions,
}

impl Mesh {
    /// Starts the node's actors.
    pub async fn start(config: MeshConfig) -> Result<Self, StartError> {
        let directory = Directory::default();
        let projects = Projects::default();
        let changes = Changes::default();
        let presence = Presence::new(PresenceConfig {
            store: config.store.clone(),
            clock: config.clock.clone(),
            changes: changes.clone(),
            node: config.node,
            alone: config.alone,
        });
        let (recorders, inboxes) = Recorders::channels(config.recorders);
        // One writer for life on a store of our own, a new one per start where others may still write.
        let writer = if config.alone { 0 } else { config.clock.now().micros() as u64 };
        let tasks = Tasks::new(config.store.clone(), writer, config.retention_secs);
        let complaint = Arc::new(Complaint::default());
        let wiring = |(place, inbox): (usize, _)| Wiring {
            store: config.store.clone(),
            clock: config.clock.clone(),
            tasks: tasks.clone(),
            counter: Counter { recorder: place as u16, writer },
            layout: config.layout,
            changes: changes.clone(),
            inbox: Arc::new(Mutex::new(inbox)),
            complaint: complaint.clone(),
        };
        let arguments = Arguments {
            recorders: inboxes.into_iter().enumerate().map(wiring).collect(),
            project: ProjectWiring {
                store: config.store.clone(),
                clock: config.clock.clone(),
                directory: directory.clone(),
                changes: changes.clone(),
                tasks: recorders.clone(),
                terms: config.terms,
                master: Arc::new(config.master),
            },
            projects: projects.clone(),
        };
        let (supervisor, _ended) = Actor::spawn(None, NodeSupervisor, arguments).await?;
        tokio::spawn(presence.clone().run());
        let mesh = Self(Arc::new(Inner {
            clock: config.clock,
            alone: config.alone,
            store: config.store,
            directory,
            changes,
            presence,
            tasks,
            recorders,
            projects,
            supervisor,
            drain: CancellationToken::new(),
            sessions: TaskTracker::new(),
            polled: PolledSessions::default(),
        }));
        tokio::spawn(wake_open_projects(mesh.clone()));
        let polled = mesh.0.polled.clone();
        mesh.0.sessions.spawn(polled.sweep(mesh.clone()));
        tokio::spawn(lost::run(mesh.clone(), config.lost_after));
        Ok(mesh)
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Whether no other node shares the store, so that whatever happens is heard of here.
    pub fn is_alone(&self) -> bool {
        self.0.alone
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// What watchers are told.
    pub fn changes(&self) -> &Changes {
        &self.0.changes
    }

    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// The task tables, for reading.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) fn recorders(&self) -> &Recorders {
        &self.0.recorders
    }

    /// Cancelled when the node goes down.
    pub fn drain(&self) -> CancellationToken {
        self.0.drain.clone()
    }

    /// Sessions run in here, so that shutdown can wait for them.
    pub fn sessions(&self) -> &TaskTracker {
        &self.0.sessions
    }

    /// Sessions of agents that poll.
    pub fn polled(&self) -> &PolledSessions {
        &self.0.polled
    }

    /// Ends every session of an agent whose credential is gone.
    pub fn close_agent(&self, agent: AgentId) {
        self.0.directory.close_agent(agent, CloseCode::Revoked);
    }

    /// Ends every session of an archived project.
    pub fn close_project(&self, project: ProjectId) {
        self.0.directory.close_project(project, CloseCode::Revoked);
    }

    /// Issues a command; durable when `Ok`.
    pub async fn issue(&self, project: ProjectId, draft: Draft) -> Result<Command, IssueError> {
        self.project(project).await.map_err(|Unreachable| IssueError::Unavailable)?.issue(draft).await
    }

    /// Appends an entry that is about no command to a project's ledger, or with the nil id to the system's.
    /// Durable when `Ok`, which holds its seq.
    pub async fn note(&self, project: ProjectId, proposal: Proposal) -> Result<u64, NoteError> {
        self.project(project).await.map_err(|Unreachable| NoteError::Unavailable)?.note(proposal).await
    }

    /// Deletes tasks, each through the recorder that is its one writer. Of two deletions at once only one counts a
    /// task (contract D31); what failed may be tried again under the same id, a task named once.
    pub async fn delete_tasks(
        &self,
        project: ProjectId,
        deletion: EventId,
        tasks: impl IntoIterator<Item = TaskKey>,
    ) -> Deletions {
        let recorders = &self.0.recorders;
        let mut shares: Vec<Vec<TaskKey>> = vec![Vec::new(); recorders.count()];
        for key in tasks {
            shares[recorders.of(Shard::of_key(project, key))].push(key);
        }
        let mut answers = Vec::with_capacity(shares.len());
        for (recorder, keys) in shares.into_iter().enumerate().filter(|(_, keys)| !keys.is_empty()) {
            let (reply, answer) = oneshot::channel();
            let work = Work::Deletions { keys: keys.clone(), deletion, reply };
            recorders.send(recorder, Batch { project, work }).await;
            answers.push((keys, answer));
        }
        let mut all = Deletions::default();
        for (keys, answer) in answers {
            // A recorder that ended took the reply with it.
            let some = answer.await.unwrap_or(Deletions { hidden: 0, failed: keys });
            all.hidden += some.hidden;
            all.failed.extend(some.failed);
        }
        all
    }

    /// A session stands in the directory: its project may have something for it.
    pub(crate) async fn session_up(&self, facts: &SessionFacts) {
        match self.project(facts.project).await {
            Ok(project) if project.session_up(facts.agent, facts.session) => {}
            // The project reads the directory when it starts, so nothing is missed.
            Ok(_) | Err(Unreachable) => {
                tracing::warn!(project.id = %facts.project, "project not available for a new session");
            }
        }
    }

    /// A session has left the directory.
    pub(crate) async fn session_down(&self, facts: &SessionFacts) {
        if let Some(project) = self.running(facts.project) {
            project.session_down(facts.agent, facts.session);
        }
    }

    fn running(&self, project: ProjectId) -> Option<ProjectHandle> {
        self.0.projects.get(&project).map(|handle| handle.clone())
    }

    /// The project's actor, started if it does not run.
    pub(crate) async fn project(&self, project: ProjectId) -> Result<ProjectHandle, Unreachable> {
        if let Some(handle) = self.running(project) {
            return Ok(handle);
        }
        let answer = self
            .0
            .supervisor
            .call(|reply| SupervisorMessage::Activate { project, reply }, Some(CALL_TIMEOUT))
            .await
            .map_err(|_| Unreachable)?;
        match answer {
            ractor::rpc::CallResult::Success(Ok(handle)) => Ok(handle),
            ractor::rpc::CallResult::Success(Err(_))
            | ractor::rpc::CallResult::Timeout
            | ractor::rpc::CallResult::SenderError => Err(Unreachable),
        }
    }

    /// Takes no more from agents, lets what is under way become durable and acked, and ends their sessions.
    async fn drain_sessions(&self) {
        self.0.drain.cancel();
        self.0.sessions.close();
        if tokio::time::timeout(DRAIN_PATIENCE, self.0.sessions.wait()).await.is_err() {
            tracing::warn!("sessions did not end in time; what they had not acked is sent again");
        }
    }

    /// The node dies: its actors end where they are. Whoever spawned its sessions ends those first.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        self.0.supervisor.kill();
        self.0.drain.cancel();
    }

    /// A child of the node's supervisor, for who kills it.
    #[cfg(test)]
    pub(crate) fn project_cell(&self, project: ProjectId) -> Option<ractor::ActorCell> {
        self.running(project).map(|handle| handle.cell())
    }

    /// Ends sessions, lets projects finish what they were given, then stops the actors. Loses nothing, as long
    /// as the store is open until it returns.
    pub async fn shutdown(&self) {
        self.drain_sessions().await;
        let idle = async {
            while !self.0.projects.iter().all(|project| project.is_idle()) {
                tokio::time::sleep(IDLE_POLL).await;
            }
        };
        if tokio::time::timeout(DRAIN_PATIENCE, idle).await.is_err() {
            tracing::warn!("commands did not settle in time; their deadlines decide after the next start");
        }
        if self.0.supervisor.stop_and_wait(None, Some(DRAIN_PATIENCE)).await.is_err() {
            tracing::warn!("actors did not end in time");
        }
    }
}
