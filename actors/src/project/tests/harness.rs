//! A node with one project, and agents that answer as they are told.

use std::sync::Arc;
use std::time::Duration;

use cql::Store;
use cql::engine::memory::{Faults, Memory};
use cql::ledger::{commands, entries};
use domain::command::{Actor as Caller, Advertised, Asked, Command, Draft, Resolved, Source, Status, Verb};
use domain::id::{AgentId, CommandId, ProjectId, SessionId, UserId};
use domain::ledger::decide::Answer;
use domain::ledger::{Entry, Json, LedgerKey, Terms};
use domain::secret::{KeyUse, MasterSecret};
use domain::time::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::project::{Heard, ProjectActor, ProjectHandle, ProjectKeys};
use crate::recorder::{Inbox, Recorders};
use crate::session::{CommandFrame, Orders, Sent, SessionFacts, SessionHandle, SessionMessage};

pub(super) const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
pub(super) const AGENT: AgentId = AgentId::from_bytes([9; 16]);
pub(super) const USER: UserId = UserId::from_bytes([5; 16]);
pub(super) const TIMEOUT_SECS: u32 = 60;

/// Outlives the projects it supervises, whatever becomes of them.
struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// One node: a view of the store, its sessions, one home of the project.
pub(super) struct Node {
    pub(super) store: Memory,
    pub(super) directory: Directory,
    pub(super) clock: Clock,
    pub(super) project: ProjectHandle,
    /// What recorders were told.
    pub(super) recorded: Inbox,
    recorders: Recorders,
    supervisor: ActorRef<()>,
}

pub(super) fn keys() -> ProjectKeys {
    let master = MasterSecret::new("0123456789abcdef0123456789abcdef").unwrap();
    let ledger = LedgerKey::new(master.site_key(KeyUse::Ledger, PROJECT).as_bytes());
    ProjectKeys { ledger, data: master.site_key(KeyUse::Data, PROJECT) }
}

impl Node {
    pub(super) async fn new() -> Self {
        Self::on(Memory::new(), Clock::starting_at(Timestamp::from_secs(1_800_000_000))).await
    }

    pub(super) async fn on(store: Memory, clock: Clock) -> Self {
        let (supervisor, _) = Actor::spawn(None, Supervisor, ()).await.unwrap();
        let directory = Directory::default();
        let (recorders, mut inboxes) = Recorders::channels(1);
        let project = start(&store, &directory, &clock, &recorders, &supervisor).await;
        Self { store, directory, clock, project, recorded: inboxes.remove(0), recorders, supervisor }
    }

    /// On a store whose every call takes so long.
    pub(super) async fn slow(latency: Duration) -> Self {
        let store = Memory::with_faults(1, Faults { latency: latency..=latency, ..Faults::default() });
        Self::on(store, Clock::starting_at(Timestamp::from_secs(1_800_000_000))).await
    }

    /// The project's home dies without a word, and another one takes over.
    pub(super) async fn restart(&mut self) {
        self.project.cell().kill();
        self.revive().await;
    }

    /// Another home takes over.
    pub(super) async fn revive(&mut self) {
        self.project = start(&self.store, &self.directory, &self.clock, &self.recorders, &self.supervisor).await;
    }

    /// Connects a worker process of an agent.
    pub(super) fn connect(&self, agent: AgentId, worker: &str) -> Worker {
        self.connect_engine(agent, worker, "celery")
    }

    pub(super) fn connect_engine(&self, agent: AgentId, worker: &str, engine: &str) -> Worker {
        let facts = SessionFacts {
            session: SessionId::mint(self.clock.now()),
            project: PROJECT,
            agent,
            worker_id: Some(worker.to_owned()),
            worker_role: None,
            engines: vec![engine.to_owned()],
            capabilities: Default::default(),
            said_hello: true,
            connected_at: self.clock.now(),
        };
        let (handle, commands) = SessionHandle::new(facts);
        let session = handle.id();
        self.directory.up(handle);
        self.project.session_up(agent, session);
        Worker { agent, session, commands, project: self.project.clone(), directory: self.directory.clone() }
    }

    pub(super) async fn command(&self, id: CommandId) -> Command {
        commands::get(&self.store, PROJECT, id).await.unwrap().expect("the command stands in the projection")
    }

    /// Waits, on the paused clock, until the stored command has a status.
    pub(super) async fn until(&self, id: CommandId, status: Status) -> Command {
        for _ in 0..100_000 {
            if let Some(command) = commands::get(&self.store, PROJECT, id).await.unwrap()
                && command.status == status
            {
                return command;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("command {id} is not {status}: {:?}", self.command(id).await);
    }

    pub(super) async fn entries(&self) -> Vec<Entry> {
        let sealed = entries::tail(&self.store, PROJECT, 1, 100_000).await.unwrap();
        sealed.iter().map(|sealed| Entry::decode(&sealed.bytes).unwrap()).collect()
    }

    pub(super) async fn kinds(&self) -> Vec<&'static str> {
        self.entries().await.iter().map(|entry| entry.kind.as_str()).collect()
    }
}

async fn start(
    store: &Memory,
    directory: &Directory,
    clock: &Clock,
    recorders: &Recorders,
    supervisor: &ActorRef<()>,
) -> ProjectHandle {
    for _ in 0..1000 {
        let actor = ProjectActor {
            project: PROJECT,
            store: Arc::new(store.clone()) as Arc<dyn Store>,
            changes: crate::changes::Changes::default(),
            recorders: recorders.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
            keys: keys(),
            terms: Terms { command_timeout_secs: TIMEOUT_SECS, bulk_limit_per_minute: 10 },
        };
        if let Ok((project, _)) = actor.start(supervisor.get_cell()).await {
            return project;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the project does not start");
}

/// A worker process of an agent, at the other end of its session.
pub(super) struct Worker {
    pub(super) agent: AgentId,
    pub(super) session: SessionId,
    pub(super) project: ProjectHandle,
    commands: Orders,
    directory: Directory,
}

/// A frame that came, and its claim.
pub(super) struct Got {
    pub(super) frame: CommandFrame,
    pub(super) claim: String,
    reply: oneshot::Sender<Sent>,
}

impl Got {
    pub(super) fn payload(&self) -> serde_json::Value {
        serde_json::from_slice(self.frame.body.as_bytes()).unwrap()
    }

    /// The session wrote the frame to its socket.
    pub(super) fn written(self) -> (CommandFrame, String) {
        self.reply.send(Sent::Written).unwrap();
        (self.frame, self.claim)
    }

    pub(super) fn not_sent(self) {
        self.reply.send(Sent::NotSent).unwrap();
    }
}

impl Worker {
    /// The next command frame, if one comes within a second.
    pub(super) async fn next(&mut self) -> Option<Got> {
        let message = tokio::time::timeout(Duration::from_secs(1), self.commands.recv()).await.ok()?;
        let SessionMessage::Command { frame, reply } = message else { panic!("not a command") };
        let payload: serde_json::Value = serde_json::from_slice(frame.body.as_bytes()).unwrap();
        let claim = payload["delivery_claim_token"].as_str().unwrap().to_owned();
        Some(Got { frame: *frame, claim, reply })
    }

    pub(super) async fn say(&self, frame: &CommandFrame, claim: &str, heard: Heard) {
        self.project.heard(self.agent, self.session, &frame.id, Some(claim), heard).await;
    }

    /// Takes the next command and answers success.
    pub(super) async fn serve(&mut self) -> CommandFrame {
        let (frame, claim) = self.next().await.expect("a command comes").written();
        self.say(&frame, &claim, Heard::Ack).await;
        self.say(&frame, &claim, success(r#"{"ok":true}"#)).await;
        frame
    }

    /// The socket closes.
    pub(super) fn drop_session(self) {
        self.directory.down(self.agent, self.session);
        self.project.session_down(self.agent, self.session);
    }
}

pub(super) fn success(result: &str) -> Heard {
    Heard::Result(Answer { success: true, result: Some(Json::new(result).unwrap()), error: None })
}

pub(super) fn failure(error: &str) -> Heard {
    Heard::Result(Answer { success: false, result: None, error: Some(error.to_owned()) })
}

pub(super) fn draft(verb: Verb, body: &str) -> Draft {
    let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["agent_id"] = AGENT.to_string().into();
    let asked = Asked::parse(verb, body.to_string().as_bytes()).unwrap();
    let advertised = Advertised { engines: vec!["celery".into()], capabilities: Arc::default(), said_hello: true };
    let resolved = Resolved { advertised, ..Resolved::default() };
    Draft::new(asked, Caller::User(USER), Source::default(), resolved)
}

pub(super) fn cancel(task: &str) -> Draft {
    draft(Verb::CancelTask, &format!(r#"{{"engine":"celery","task_id":"{task}"}}"#))
}

pub(super) fn retry(task: &str) -> Draft {
    draft(Verb::RetryTask, &format!(r#"{{"engine":"celery","task_id":"{task}"}}"#))
}
