//! Who and what is there: agent processes, engine workers, queues, as heartbeats and events name them.
//!
//! **Owns** the newest facts of this node's sessions. **Invariant** facts are soft: each is repeated by a
//! later heartbeat, so they are written now and then (see `fact`), at once only when something appears or goes.
//! **Talks to** the store. Reads lay this node's facts over the stored rows.
//!
//! ```text
//! fact      a row in memory that is written when it is due
//! health    what a heartbeat says of a process and of engine workers
//! read      stored rows with this node's facts over them
//! standing  what a command asks of an agent
//! view      rows of several agents and nodes united: who is online
//! ```

mod fact;
mod health;
mod read;
mod standing;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cql::fleet::process::{self, ProcessHealth};
use cql::fleet::{Capabilities, ProcessRow, QueueRow, WorkerRow, queue, worker};
use cql::{Store, StoreError, Write};
use dashmap::DashMap;
use domain::engine::Engine;
use domain::id::{AgentId, NodeId, ProjectId};
use domain::time::Timestamp;
use domain::wire::{AgentStatus, Heartbeat, Hello};

use fact::{Due, Fact};
pub use standing::Standing;
pub use view::{AgentPresence, OnlineState, QueueView, WorkerView};

use crate::changes::{Changes, Topic};
use crate::clock::Clock;
use crate::session::SessionFacts;

/// Names of one kind kept in memory per project; more are not remembered until others go.
const NAMES_MAX: usize = 20_000;
/// Lists of capabilities that are shared; agents of one version and engine list the same.
const SHARED_MAX: usize = 256;
/// How often facts that are due are looked for.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The node's facts; cheap to clone.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

/// What presence works with.
pub struct PresenceConfig {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub changes: Changes,
    pub node: NodeId,
    /// No other node shares the store, so a session of another node is a session of the past.
    pub alone: bool,
}

struct Inner {
    config: PresenceConfig,
    projects: DashMap<ProjectId, Facts>,
    capabilities: Mutex<HashSet<Capabilities>>,
}

#[derive(Default)]
struct Facts {
    /// By agent, so that one agent's processes stand together.
    processes: BTreeMap<(AgentId, Option<String>), Fact<ProcessRow>>,
    workers: HashMap<(Engine, AgentId, String), Fact<WorkerRow>>,
    queues: HashMap<(Engine, AgentId, String), Fact<QueueRow>>,
}

/// Facts of a project that are to be written.
struct AllDue {
    processes: Vec<Due<ProcessRow>>,
    workers: Vec<Due<WorkerRow>>,
    queues: Vec<Due<QueueRow>>,
}

/// What a session knows beside a heartbeat's own words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noticed {
    pub tally: EventTally,
    /// How far the agent's clock is ahead of ours.
    pub ahead_micros: Option<i64>,
}

/// What a session counted of its events, to tell a worker without `-E` (WIRE 12.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct EventTally {
    pub received: u64,
    pub first_received_at: Option<Timestamp>,
    pub named_worker: u64,
}

impl Presence {
    pub fn new(config: PresenceConfig) -> Self {
        Self(Arc::new(Inner { config, projects: DashMap::new(), capabilities: Mutex::default() }))
    }

    pub fn node(&self) -> NodeId {
        self.0.config.node
    }

    /// The copy of a list of capabilities that equal lists share.
    pub fn share(&self, listed: BTreeMap<String, Vec<String>>) -> Capabilities {
        let listed = Arc::new(listed);
        let mut shared = self.0.capabilities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.get(&listed) {
            return Arc::clone(known);
        }
        if shared.len() >= SHARED_MAX {
            shared.clear();
        }
        shared.insert(Arc::clone(&listed));
        listed
    }

    /// Writes what is due, for ever.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush_due().await;
        }
    }

    /// A process connected and introduced itself.
    pub async fn process_up(&self, facts: &SessionFacts, hello: &Hello) {
        let now = self.0.config.clock.now();
        let slot = (facts.agent, facts.worker_id.clone());
        let known = process::get(&*self.0.config.store, facts.project, facts.agent, facts.worker_id.as_deref()).await;
        let created_at = match known {
            Ok(Some(row)) => row.created_at,
            Ok(None) => now,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "process not readable");
                now
            }
        };
        let row = ProcessRow {
            id: process::id(facts.agent, facts.worker_id.as_deref()),
            agent: facts.agent,
            worker_id: facts.worker_id.clone(),
            role: hello.worker_role.clone(),
            framework: hello.framework.clone(),
            pid: hello.worker_pid,
            started_at: hello.started_at(),
            host_name: hello.host_name().map(str::to_owned),
            agent_version: hello.agent_version.clone(),
            protocol_version: hello.protocol_version.clone(),
            engines: hello.engines.clone(),
            schedulers: hello.schedulers.clone(),
            capabilities: facts.capabilities.clone(),
            runtime_features: hello.runtime_features.clone(),
            node: self.0.config.node,
            session: facts.session,
            online: true,
            last_seen_at: now,
            last_connect_at: now,
            created_at,
            updated_at: now,
            health: ProcessHealth::default(),
        };
        self.with(facts.project, |all| all.processes.insert(slot, Fact::known(row)));
        self.0.config.changes.tell(facts.project, Topic::Agent);
        self.flush_agent(facts).await;
    }

    /// The session of a process ended.
    pub async fn process_down(&self, facts: &SessionFacts) {
        let now = self.0.config.clock.now();
        let changed = self.with_process(facts, |row| {
            row.online = false;
            row.last_seen_at = now;
            row.updated_at = now;
        });
        if changed {
            self.0.config.changes.tell(facts.project, Topic::Agent);
            self.flush_agent(facts).await;
        }
    }

    /// A heartbeat: liveness, loss counters, worker details, queue depths.
    pub fn heartbeat(&self, facts: &SessionFacts, heartbeat: &Heartbeat<'_>, noticed: Noticed, now: Timestamp) {
        let Noticed { tally, ahead_micros } = noticed;
        self.with_process(facts, |row| {
            row.last_seen_at = now;
            row.updated_at = now;
            row.health.clock_offset_ms = ahead_micros.map(|micros| micros / 1000).or(row.health.clock_offset_ms);
            health::read(&mut row.health, heartbeat, tally);
        });
        for (engine, details) in health::worker_details(heartbeat) {
            for detail in details {
                self.worker_detailed(facts, engine, detail, now);
            }
        }
        for (engine, queue, depth) in health::queue_depths(heartbeat) {
            self.queue(facts, engine, &queue, now, |row| {
                row.depth = Some(depth);
                row.measured_at = Some(now);
            });
        }
    }

    /// An agent's report about itself: what it adds to a heartbeat is its losses.
    pub fn status(&self, facts: &SessionFacts, status: &AgentStatus<'_>, now: Timestamp) {
        self.with_process(facts, |row| {
            row.last_seen_at = now;
            health::lose(&mut row.health, status.telemetry_loss.as_ref());
        });
    }

    /// What a session counted of its events so far.
    pub fn counted(&self, facts: &SessionFacts, tally: EventTally) {
        self.with_process(facts, |row| health::count(&mut row.health, tally));
    }

    /// An event named a worker.
    pub fn worker_named(&self, facts: &SessionFacts, engine: Engine, name: &str, now: Timestamp) {
        let process = process::id(facts.agent, facts.worker_id.as_deref());
        self.worker(facts, engine, name, now, |row| row.process = Some(process));
    }

    /// An event named a queue.
    pub fn queue_named(&self, facts: &SessionFacts, engine: Engine, name: &str, now: Timestamp) {
        self.queue(facts, engine, name, now, |_| {});
    }

    fn worker_detailed(&self, facts: &SessionFacts, engine: Engine, detail: health::WorkerDetail, now: Timestamp) {
        for queue in &detail.queues {
            self.queue_named(facts, engine, queue, now);
        }
        let name = detail.name.clone();
        self.worker(facts, engine, &name, now, |row| {
            row.last_detailed = Some(now);
            row.hostname = detail.hostname.or(row.hostname.take());
            row.pid = detail.pid.or(row.pid);
            row.concurrency = detail.concurrency.or(row.concurrency);
            row.queues = detail.queues;
            row.load_average = detail.load_average.or(row.load_average.take());
            row.active_tasks = detail.active_tasks.or(row.active_tasks);
            row.metadata = Some(detail.metadata);
        });
    }

    fn worker(
        &self,
        facts: &SessionFacts,
        engine: Engine,
        name: &str,
        now: Timestamp,
        change: impl FnOnce(&mut WorkerRow),
    ) {
        self.with(facts.project, |all| {
            let slot = (engine, facts.agent, name.to_owned());
            if all.workers.len() >= NAMES_MAX && !all.workers.contains_key(&slot) {
                return;
            }
            let fact = all.workers.entry(slot).or_insert_with(|| {
                Fact::unread(WorkerRow {
                    id: worker::id(facts.project, engine, name),
                    engine,
                    name: name.to_owned(),
                    agent: facts.agent,
                    hostname: None,
                    pid: None,
                    concurrency: None,
                    queues: Vec::new(),
                    load_average: None,
                    active_tasks: None,
                    metadata: None,
                    last_heartbeat: now,
                    last_detailed: None,
                    process: None,
                    created_at: now,
                })
            });
            let row = fact.change();
            row.last_heartbeat = row.last_heartbeat.max(now);
            change(row);
        });
    }

    fn queue(
        &self,
        facts: &SessionFacts,
        engine: Engine,
        name: &str,
        now: Timestamp,
        change: impl FnOnce(&mut QueueRow),
    ) {
        self.with(facts.project, |all| {
            let slot = (engine, facts.agent, name.to_owned());
            if all.queues.len() >= NAMES_MAX && !all.queues.contains_key(&slot) {
                return;
            }
            let fact = all.queues.entry(slot).or_insert_with(|| {
                Fact::unread(QueueRow {
                    id: queue::id(facts.project, engine, name),
                    engine,
                    name: name.to_owned(),
                    agent: facts.agent,
                    broker_type: None,
                    depth: None,
                    measured_at: None,
                    last_seen_at: now,
                    created_at: now,
                })
            });
            let row = fact.change();
            row.last_seen_at = row.last_seen_at.max(now);
            change(row);
        });
    }

    fn with<T>(&self, project: ProjectId, work: impl FnOnce(&mut Facts) -> T) -> T {
        work(&mut self.0.projects.entry(project).or_default())
    }

    /// Changes the row of a session's process; false if another session has taken its slot.
    fn with_process(&self, facts: &SessionFacts, change: impl FnOnce(&mut ProcessRow)) -> bool {
        let slot = (facts.agent, facts.worker_id.clone());
        self.with(facts.project, |all| match all.processes.get_mut(&slot) {
            Some(fact) if fact.row().session == facts.session => {
                change(fact.change());
                true
            }
            Some(_) | None => false,
        })
    }

    async fn flush_due(&self) {
        let projects: Vec<ProjectId> = self.0.projects.iter().map(|entry| *entry.key()).collect();
        for project in projects {
            self.flush(project).await;
        }
    }

    /// Writes what is due of a project.
    async fn flush(&self, project: ProjectId) {
        let now = self.0.config.clock.now();
        let after = fact::write_every(self.0.config.alone);
        let due = self.with(project, |all| AllDue {
            processes: fact::due(all.processes.values_mut(), now, after),
            workers: fact::due(all.workers.values_mut(), now, after),
            queues: fact::due(all.queues.values_mut(), now, after),
        });
        self.put(project, due).await;
    }

    /// Writes at once what changed of a process, and of the workers and queues that its agent named.
    async fn flush_agent(&self, facts: &SessionFacts) {
        let now = self.0.config.clock.now();
        let slot = (facts.agent, facts.worker_id.clone());
        let due = self.with(facts.project, |all| {
            let workers = all.workers.iter_mut().filter(|((_, agent, _), _)| *agent == facts.agent);
            let queues = all.queues.iter_mut().filter(|((_, agent, _), _)| *agent == facts.agent);
            AllDue {
                processes: fact::due(all.processes.get_mut(&slot).into_iter(), now, 0),
                workers: fact::due(workers.map(|(_, fact)| fact), now, 0),
                queues: fact::due(queues.map(|(_, fact)| fact), now, 0),
            }
        });
        self.put(facts.project, due).await;
    }

    async fn put(&self, project: ProjectId, due: AllDue) {
        let AllDue { processes, workers, queues } = due;
        if processes.is_empty() && workers.is_empty() && queues.is_empty() {
            return;
        }
        if let Err(error) = self.write(project, &processes, workers, queues).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "facts not written, the next heartbeat repeats them"
            );
            // Workers and queues come again with the next event or heartbeat; a process's end does not.
            self.with(project, |facts| {
                for Due { row, .. } in processes {
                    if let Some(fact) = facts.processes.get_mut(&(row.agent, row.worker_id)) {
                        fact.change();
                    }
                }
            });
        }
    }

    async fn write(
        &self,
        project: ProjectId,
        processes: &[Due<ProcessRow>],
        workers: Vec<Due<WorkerRow>>,
        queues: Vec<Due<QueueRow>>,
    ) -> Result<(), StoreError> {
        let store = &*self.0.config.store;
        let mut writes: Vec<Write> = processes.iter().map(|due| process::put(project, &due.row)).collect();
        for mut due in workers {
            if due.unread
                && let Some(known) = worker::get(store, project, due.row.engine, due.row.agent, &due.row.name).await?
            {
                due.row = fact::unite_worker(known, due.row);
                self.with(project, |facts| {
                    let slot = (due.row.engine, due.row.agent, due.row.name.clone());
                    if let Some(fact) = facts.workers.get_mut(&slot) {
                        fact.learn(|row| *row = fact::unite_worker(due.row.clone(), row.clone()));
                    }
                });
            }
            writes.push(worker::put(project, &due.row));
        }
        for mut due in queues {
            if due.unread
                && let Some(known) = queue::get(store, project, due.row.engine, due.row.agent, &due.row.name).await?
            {
                due.row = fact::unite_queue(known, due.row);
                self.with(project, |facts| {
                    let slot = (due.row.engine, due.row.agent, due.row.name.clone());
                    if let Some(fact) = facts.queues.get_mut(&slot) {
                        fact.learn(|row| *row = fact::unite_queue(due.row.clone(), row.clone()));
                    }
                });
            }
            writes.push(queue::put(project, &due.row));
        }
        store.write(writes).await
    }
}

#[cfg(test)]
mod tests;
