//! An agent's process, played by the test: a real session of the mesh over two channels instead of a socket.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actors::session::{Opening, SessionFacts, SessionHandle, run};
use bytes::Bytes;
use cql::accounts::{Agent, Project, agent};
use domain::id::{AgentId, SessionId};
use domain::wire::client::{AgentSide, BrainFrame, Payload};
use domain::wire::{Hello, SessionKey};
use futures_util::{Sink, Stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::node::Node;

/// Longer than anything takes while time stands still.
const PATIENCE: Duration = Duration::from_millis(500);

/// Frames on their way; no test leaves as many unread.
const QUEUED: usize = 64;

/// A command as it came over the wire, its signature verified.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) frame: String,
    pub(super) action: String,
    pub(super) target: Value,
    pub(super) parameters: Value,
    claim: Option<String>,
}

pub(super) struct Process {
    side: AgentSide,
    to_brain: mpsc::Sender<Bytes>,
    from_brain: mpsc::Receiver<Bytes>,
    clock: actors::Clock,
}

impl Node {
    /// An agent that never connected.
    pub(super) async fn agent(&self, project: &Project, name: &str) -> AgentId {
        let now = self.app.clock.now();
        let id = AgentId::mint(now);
        let agent = Agent {
            id,
            project: project.id,
            name: name.to_owned(),
            token_hash: self.app.master.agent_token_hash(&id.to_string()).bytes(),
            created_at: now,
            created_by: None,
            revoked_at: None,
        };
        agent::create(self.app.store.as_ref(), &agent).await.unwrap();
        id
    }

    /// Connects a process of an agent.
    pub(super) async fn connect(&self, project: &Project, agent: AgentId, engines: &[&str]) -> Process {
        let now = self.app.clock.now();
        let session = SessionId::mint(now);
        let engines: Vec<String> = engines.iter().map(|engine| (*engine).to_owned()).collect();
        let hello = Hello {
            protocol_version: "2".to_owned(),
            agent_version: "1.13.0".to_owned(),
            framework: "bare".to_owned(),
            engines: engines.clone(),
            schedulers: Vec::new(),
            capabilities: Default::default(),
            host: serde_json::Map::new(),
            worker_id: Some("bare-1-1".to_owned()),
            worker_role: None,
            worker_pid: None,
            worker_started_at: None,
            runtime_features: Vec::new(),
        };
        let facts = SessionFacts {
            session,
            project: project.id,
            agent,
            worker_id: hello.worker_id.clone(),
            worker_role: None,
            engines,
            capabilities: Default::default(),
            said_hello: true,
            connected_at: now,
        };
        let secret = self.app.master.project_secret(project.id);
        let key = SessionKey::new(secret.as_bytes(), agent, project.id, &session.to_string());
        let (handle, orders) = SessionHandle::new(facts);
        let (to_brain, inbound) = mpsc::channel(QUEUED);
        let (outbound, mut from_brain) = mpsc::channel(QUEUED);
        let greeting = Bytes::from_static(b"greeting");
        let opening = Opening { handle, orders, hello, key: key.clone(), greeting: greeting.clone() };
        tokio::spawn(run(self.app.mesh.clone(), Box::new(opening), Pipe { inbound, outbound }));
        assert_eq!(from_brain.recv().await, Some(greeting));
        // Its project hears of it right after the greeting.
        tokio::time::sleep(PATIENCE).await;
        Process { side: AgentSide::new(key), to_brain, from_brain, clock: self.app.clock.clone() }
    }
}

impl Process {
    /// The next command, if one comes.
    pub(super) async fn order(&mut self) -> Option<Order> {
        let wire = tokio::time::timeout(PATIENCE, self.from_brain.recv()).await.ok()??;
        let BrainFrame::Command(command) = self.side.accept(&wire, self.clock.now()).unwrap() else {
            panic!("no command: {wire:?}");
        };
        Some(Order {
            frame: command.id.into_owned(),
            action: command.action,
            target: serde_json::from_str(command.target.get()).unwrap(),
            parameters: serde_json::from_str(command.parameters.get()).unwrap(),
            claim: command.claim,
        })
    }

    /// Answers a command, and lets the outcome become durable.
    pub(super) async fn answer(&mut self, order: &Order, outcome: Result<Value, &str>) {
        let (now, claim) = (self.clock.now(), order.claim.as_deref());
        let mut ack = Vec::new();
        self.side.command_ack(&mut ack, &order.frame, claim, now);
        let mut result = Vec::new();
        let (value, error) = (outcome.as_ref().ok(), outcome.as_ref().err().copied());
        self.side.command_result(&mut result, &order.frame, value, error, claim, now);
        for frame in [ack, result] {
            self.to_brain.send(frame.into()).await.unwrap();
        }
        tokio::time::sleep(PATIENCE).await;
    }

    /// Reports failed Celery tasks, which also names their worker; returns when they are durable.
    pub(super) async fn report_failed(&mut self, tasks: &[&str], worker: &str) {
        let now = self.clock.now();
        let event = |task: &&str| {
            json!({
                "id": Uuid::new_v4(), "kind": "task.failed", "engine": "celery", "task_id": task, "occurred_at": now,
                "data": { "task_name": "email.send", "queue": "mail", "worker": worker, "exception": "ValueError" },
            })
        };
        let events: Vec<Value> = tasks.iter().map(event).collect();
        let payload = Payload::new(json!({ "events": events }).to_string()).unwrap();
        let mut frame = Vec::new();
        self.side.event_batch(&mut frame, &Uuid::new_v4().to_string(), &payload, now);
        self.to_brain.send(frame.into()).await.unwrap();
        let wire = self.from_brain.recv().await.unwrap();
        let ack = self.side.accept(&wire, self.clock.now()).unwrap();
        let BrainFrame::EventBatchAck { accepted, .. } = ack else { panic!("no ack: {ack:?}") };
        assert_eq!(accepted, tasks.len() as u64);
    }

    /// Ends the connection.
    pub(super) async fn leave(self) {
        drop(self);
        tokio::time::sleep(PATIENCE).await;
    }
}

/// The brain's end of the connection.
struct Pipe {
    inbound: mpsc::Receiver<Bytes>,
    outbound: mpsc::Sender<Bytes>,
}

/// The agent is gone.
struct Gone;

impl Stream for Pipe {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.inbound.poll_recv(context)
    }
}

impl Sink<Bytes> for Pipe {
    type Error = Gone;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, frame: Bytes) -> Result<(), Gone> {
        self.outbound.try_send(frame).map_err(|_| Gone)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}
