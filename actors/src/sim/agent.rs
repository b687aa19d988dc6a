//! An agent's process: it connects, does what it is asked or not, dies, and comes back somewhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cql::engine::memory::Dice;
use domain::command::Claim;
use domain::id::{AgentId, SessionId};
use domain::wire::client::{AgentSide, BrainFrame, Payload};
use domain::wire::{Hello, SessionKey};
use serde_json::json;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::{Line, connect};
use super::node::Open;
use super::world::{PROJECT, QUIET, World};
use crate::mesh::Mesh;
use crate::session::{Opening, SessionFacts, SessionHandle, run};

const SECRET: &[u8] = b"an agent's secret of the simulation";
const HEARTBEAT: Duration = Duration::from_secs(30);

pub(super) struct Process {
    world: Arc<World>,
    agent: AgentId,
    name: String,
    /// How often it has been started anew.
    lives: u32,
    dice: Dice,
    /// Frames it has acted on.
    seen: BTreeSet<String>,
    owed: Vec<Owed>,
}

/// Something to say later.
struct Owed {
    at: Instant,
    frame: String,
    claim: Claim,
    words: Words,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    Ack,
    Done(usize),
    Failed,
    Unsupported,
    /// Success of a command that is another agent's.
    Foreign,
}

/// Why a connection is over.
enum End {
    Cut,
    /// The process is gone, with all it knew.
    Died,
}

/// One connection.
struct Connection {
    line: Line,
    side: AgentSide,
    open: Open,
    task: AbortHandle,
    facts: SessionFacts,
}

impl Process {
    pub(super) fn new(world: &Arc<World>, agent: AgentId, name: &str, dice: Dice) -> Self {
        let (world, name) = (Arc::clone(world), name.to_owned());
        Self { world, agent, name, lives: 0, dice, seen: BTreeSet::new(), owed: Vec::new() }
    }

    pub(super) async fn live(mut self) {
        while !self.world.is_deserted() {
            if let Some(mut connection) = self.connect() {
                match self.serve(&mut connection).await {
                    End::Cut => {}
                    End::Died => {
                        self.lives += 1;
                        self.seen.clear();
                        self.owed.clear();
                    }
                }
                self.part(connection);
            }
            let rest = if self.world.is_calm() { 200 } else { 4000 };
            sleep(self.dice.duration(&(Duration::from_millis(50)..=Duration::from_millis(rest)))).await;
        }
    }

    /// Connects to any node that runs.
    fn connect(&mut self) -> Option<Connection> {
        let nodes = &self.world.nodes;
        let node = &nodes[self.dice.below(nodes.len())];
        let open = node.open()?;
        let now = self.world.clock.now();
        let worker = format!("{}-{}", self.name, self.lives);
        let hello = Hello {
            protocol_version: "2".to_owned(),
            agent_version: "1.13.0".to_owned(),
            framework: "bare".to_owned(),
            engines: vec!["celery".to_owned()],
            schedulers: Vec::new(),
            capabilities: BTreeMap::new(),
            host: serde_json::Map::new(),
            worker_id: Some(worker.clone()),
            worker_role: None,
            worker_pid: None,
            worker_started_at: None,
            runtime_features: Vec::new(),
        };
        let facts = SessionFacts {
            session: SessionId::from_bytes(self.dice.bytes()),
            project: PROJECT,
            agent: self.agent,
            worker_id: Some(worker),
            worker_role: None,
            engines: hello.engines.clone(),
            capabilities: Default::default(),
            said_hello: true,
            connected_at: now,
        };
        let key = SessionKey::new(SECRET, self.agent, PROJECT, &facts.session.to_string());
        let (handle, orders) = SessionHandle::new(facts.clone());
        let (line, pipe) = connect(&self.world, facts.session, Dice::new(self.dice.roll()));
        let greeting = Bytes::from_static(b"greeting");
        let opening = Opening { handle, orders, hello, key: key.clone(), greeting };
        let task = tokio::spawn(run(open.mesh.clone(), Box::new(opening), pipe)).abort_handle();
        node.adopt(task.clone());
        Some(Connection { line, side: AgentSide::new(key), open, task, facts })
    }

    async fn serve(&mut self, connection: &mut Connection) -> End {
        let life = self.dice.duration(&(Duration::from_secs(2)..=Duration::from_secs(90)));
        let until = Instant::now() + life;
        let mut beat = Instant::now() + HEARTBEAT;
        let down = connection.open.down.clone();
        loop {
            let due = self.owed.iter().map(|owed| owed.at).min();
            let end = (!self.world.is_calm()).then_some(until);
            let wake = [Some(beat), due, end].into_iter().flatten().min().unwrap_or(beat);
            tokio::select! {
                biased;
                () = down.cancelled() => return End::Cut,
                frame = connection.line.receive() => match frame {
                    Some(frame) => {
                        if let Some(end) = self.hear(connection, &frame) {
                            return end;
                        }
                    }
                    None => return End::Cut,
                },
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    self.pay(connection, now);
                    if beat <= now {
                        beat = now + HEARTBEAT;
                        self.beat(connection);
                    }
                    if until <= now && !self.world.is_calm() {
                        return End::Cut;
                    }
                }
            }
        }
    }

    /// Lets a connection go, one way or another.
    fn part(&mut self, connection: Connection) {
        if self.world.is_calm() {
            return;
        }
        let Connection { line, open, task, facts, .. } = connection;
        match self.dice.below(4) {
            0 => {
                self.world.count("link: half open");
                line.go_dark(self.dice.duration(&(Duration::from_secs(1)..=Duration::from_secs(120))));
            }
            1 => {
                self.world.count("session: task lost");
                task.abort();
                let time = self.dice.duration(&(Duration::ZERO..=Duration::from_secs(3)));
                tokio::spawn(forget_session(open.mesh, facts, time));
            }
            _ => self.world.count("link: closed"),
        }
    }

    fn hear(&mut self, connection: &mut Connection, frame: &Bytes) -> Option<End> {
        if frame.as_ref() == b"greeting" {
            return None;
        }
        let now = self.world.clock.now();
        let command = match connection.side.accept(frame, now) {
            Ok(BrainFrame::Command(command)) => command,
            Ok(BrainFrame::EventBatchAck { .. } | BrainFrame::Error { .. } | BrainFrame::Ignored) => return None,
            Err(error) => {
                self.world.judge().accuse(format!("an agent refuses a frame: {error}"));
                return Some(End::Cut);
            }
        };
        let frame = command.id.into_owned();
        let Some(claim) = command.claim.and_then(|claim| claim.parse().ok()) else {
            self.world.judge().accuse(format!("frame {frame} has no claim"));
            return None;
        };
        if !self.seen.insert(frame.clone()) {
            self.world.count("agent: repeat recognised");
            self.owe(&frame, claim, Words::Ack, Duration::ZERO);
            return None;
        }
        let is_quiet = command.target.get().contains(QUIET);
        let parameters: serde_json::Value = serde_json::from_str(command.parameters.get()).unwrap_or_default();
        let ids = parameters["filter"]["task_ids"].as_array().cloned().unwrap_or_default();
        let ids: Vec<String> = ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        self.act(frame, claim, &ids, is_quiet)
    }

    fn act(&mut self, frame: String, claim: Claim, ids: &[String], is_quiet: bool) -> Option<End> {
        let world = Arc::clone(&self.world);
        let done = Words::Done(ids.len());
        let luck = if world.is_calm() { 0 } else { self.dice.below(100) };
        if (45..50).contains(&luck) {
            world.count("agent: dies before it acts");
            return Some(End::Died);
        }
        world.judge().done(claim, ids);
        if is_quiet || (50..60).contains(&luck) {
            world.count("agent: never answers");
            if self.dice.chance(0.5) {
                self.owe(&frame, claim, Words::Ack, Duration::ZERO);
            }
            return None;
        }
        let soon = self.dice.duration(&(Duration::ZERO..=Duration::from_secs(2)));
        let long = self.dice.duration(&(Duration::from_secs(10)..=Duration::from_secs(50)));
        match luck {
            0..45 => {
                self.owe(&frame, claim, Words::Ack, Duration::ZERO);
                self.owe(&frame, claim, done, soon);
            }
            60..65 => {
                world.count("agent: dies after it acted");
                return Some(End::Died);
            }
            65..72 => {
                world.count("agent: cut off after it acted, answers on its next session");
                self.owe(&frame, claim, done, soon);
                return Some(End::Cut);
            }
            72..78 => {
                world.count("agent: answers late");
                self.owe(&frame, claim, done, long);
            }
            78..84 => {
                world.count("agent: answers twice");
                self.owe(&frame, claim, done, soon);
                self.owe(&frame, claim, done, soon);
            }
            84..88 => {
                world.count("agent: answers again much later");
                self.owe(&frame, claim, done, soon);
                self.owe(&frame, claim, done, long);
            }
            88..91 => {
                world.count("agent: changes its mind");
                self.owe(&frame, claim, Words::Failed, soon);
                self.owe(&frame, claim, done, soon * 2);
            }
            91..94 => {
                self.owe(&frame, claim, done, soon);
                let foreign = world.judge().foreign(self.agent, self.dice.below(100));
                if let Some(foreign) = foreign {
                    world.count("agent: answers for another agent");
                    self.owe(&foreign.command.to_string(), foreign, Words::Foreign, Duration::ZERO);
                }
            }
            94..97 => self.owe(&frame, claim, Words::Failed, soon),
            _ => self.owe(&frame, claim, Words::Unsupported, soon),
        }
        None
    }

    fn owe(&mut self, frame: &str, claim: Claim, words: Words, delay: Duration) {
        self.owed.push(Owed { at: Instant::now() + delay, frame: frame.to_owned(), claim, words });
    }

    /// Says what is due.
    fn pay(&mut self, connection: &mut Connection, now: Instant) {
        let (due, later): (Vec<Owed>, Vec<Owed>) =
            std::mem::take(&mut self.owed).into_iter().partition(|owed| owed.at <= now);
        self.owed = later;
        for owed in due {
            self.say(connection, &owed);
        }
    }

    fn say(&mut self, connection: &mut Connection, owed: &Owed) {
        let (now, claim) = (self.world.clock.now(), owed.claim.to_string());
        let (frame, mut bytes) = (owed.frame.as_str(), Vec::new());
        let side = &mut connection.side;
        let error = match owed.words {
            Words::Ack => {
                side.command_ack(&mut bytes, frame, Some(&claim), now);
                return connection.line.send(bytes, &mut self.dice);
            }
            Words::Done(_) | Words::Foreign => None,
            Words::Failed => Some("it did not work"),
            Words::Unsupported => Some("adapter 'celery' does not support action 'x'"),
        };
        if owed.words != Words::Foreign {
            self.world.judge().said(owed.claim, error.is_none());
            connection.line.wire.answered(owed.claim);
        }
        let result = match owed.words {
            Words::Done(ids) => Some(json!({ "succeeded": ids })),
            Words::Ack | Words::Failed | Words::Unsupported | Words::Foreign => None,
        };
        side.command_result(&mut bytes, frame, result.as_ref(), error, Some(&claim), now);
        connection.line.send(bytes, &mut self.dice);
    }

    fn beat(&mut self, connection: &mut Connection) {
        let payload = Payload::new(r#"{"adapter_health":{},"buffer_size":0,"dropped_events":0}"#);
        let mut bytes = Vec::new();
        let id = uuid::Uuid::from_bytes(self.dice.bytes()).to_string();
        let now = self.world.clock.now();
        connection.side.heartbeat(&mut bytes, &id, &payload.expect("it can be signed"), now);
        connection.line.send(bytes, &mut self.dice);
    }
}

/// What remains of a session whose task is gone, until somebody notices.
async fn forget_session(mesh: Mesh, facts: SessionFacts, time: Duration) {
    sleep(time).await;
    if mesh.directory().down(facts.agent, facts.session) {
        mesh.session_down(&facts).await;
    }
}
