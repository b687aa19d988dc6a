//! Facts of several agents and nodes united: who is online, what is wrong (contract D15, D30).

use std::collections::{BTreeMap, BTreeSet};

use cql::fleet::{ProcessRow, QueueRow, WorkerRow};
use domain::engine::Engine;
use domain::id::AgentId;
use domain::time::Timestamp;
use uuid::Uuid;

/// A worker that heartbeats describe is offline when none named it for this long.
const WORKER_SILENCE_SECS: i64 = 50;
/// This many `received` without one event that names a worker mean that events are not enabled (WIRE 12.1) ...
const EVENTLESS_RECEIVED_MIN: u64 = 3;
/// ... once the first of them is this old.
const EVENTLESS_SECS: i64 = 5;

/// Whether something is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnlineState {
    /// It never connected.
    Unknown,
    Offline,
    Online,
}

impl OnlineState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Offline => "offline",
            Self::Online => "online",
        }
    }

    const fn of(online: bool) -> Self {
        if online { Self::Online } else { Self::Offline }
    }
}

/// An agent as its processes describe it; the newest connection speaks for what they share.
#[derive(Clone, Debug)]
pub struct AgentPresence {
    pub state: OnlineState,
    /// The newest connection's row; `None`: never connected.
    pub newest: Option<ProcessRow>,
    pub last_seen_at: Option<Timestamp>,
    pub last_connect_at: Option<Timestamp>,
    /// Over the processes that are online (or, if none is, of the newest one).
    pub engines: Vec<String>,
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// Each of its processes and whether it is online.
    pub processes: Vec<(ProcessRow, bool)>,
    /// What is wrong, and what to do about it, in words.
    pub problems: Vec<String>,
}

/// A worker, whatever agents name it.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub row: WorkerRow,
    pub state: OnlineState,
    /// Agents whose heartbeats or events name it.
    pub agents: Vec<AgentId>,
}

/// A queue, whatever agents name it; the newest measurement counts.
#[derive(Clone, Debug)]
pub struct QueueView {
    pub row: QueueRow,
    pub agents: Vec<AgentId>,
}

impl AgentPresence {
    /// An agent none of whose processes ever connected.
    pub fn never() -> Self {
        Self::of(Vec::new(), Timestamp::EPOCH)
    }

    pub(super) fn of(processes: Vec<(ProcessRow, bool)>, now: Timestamp) -> Self {
        let newest = processes.iter().max_by_key(|(row, online)| (*online, row.last_connect_at)).map(|(row, _)| row);
        let newest = newest.cloned();
        let any_online = processes.iter().any(|(_, online)| *online);
        let state = if processes.is_empty() { OnlineState::Unknown } else { OnlineState::of(any_online) };
        let speakers = processes.iter().filter(|(row, online)| {
            if any_online { *online } else { newest.as_ref().is_some_and(|newest| newest.id == row.id) }
        });
        let (mut engines, mut capabilities) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
        for (row, _) in speakers {
            engines.extend(row.engines.iter().cloned());
            for (engine, actions) in row.capabilities.iter() {
                capabilities.entry(engine.clone()).or_default().extend(actions.iter().cloned());
            }
        }
        Self {
            state,
            last_seen_at: processes.iter().map(|(row, _)| row.last_seen_at).max(),
            last_connect_at: processes.iter().map(|(row, _)| row.last_connect_at).max(),
            engines: engines.into_iter().collect(),
            capabilities: capabilities.into_iter().map(|(engine, list)| (engine, list.into_iter().collect())).collect(),
            problems: problems(&processes, now),
            newest,
            processes,
        }
    }
}

fn problems(processes: &[(ProcessRow, bool)], now: Timestamp) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (row, _) in processes.iter().filter(|(_, online)| *online) {
        let health = &row.health;
        let eventless = row.engines.iter().any(|engine| engine == Engine::Celery.as_str())
            && health.received_count >= EVENTLESS_RECEIVED_MIN
            && health.named_worker_count == 0
            && health.first_received_at.is_some_and(|at| now.since(at) >= EVENTLESS_SECS * 1_000_000);
        if eventless {
            found.insert(
                "tasks are received but the worker sends no task events: start the worker with -E \
                 (celery -A app worker -E), or set worker_send_task_events = True"
                    .to_owned(),
            );
        }
        if health.dropped_events.is_some_and(|dropped| dropped > 0) {
            found.insert(format!(
                "the agent dropped {} events because its buffer was full: give it more room or a better connection",
                health.dropped_events.unwrap_or_default()
            ));
        }
        for (engine, error) in &health.adapter_errors {
            found.insert(format!("{engine}: {error}"));
        }
        for engine in health.broker_connected.iter().filter(|(_, connected)| !**connected).map(|(engine, _)| engine) {
            found.insert(format!("{engine}: the agent has no connection to its broker"));
        }
        if health.clock_offset_ms.is_some_and(|offset| offset.abs() > 10_000) {
            found.insert(format!(
                "the agent's clock is off by {} ms: beyond 60 s its frames are refused; set its clock by NTP",
                health.clock_offset_ms.unwrap_or_default()
            ));
        }
    }
    found.into_iter().collect()
}

pub(super) fn unite_workers(rows: Vec<WorkerRow>, online: &BTreeSet<Uuid>, now: Timestamp) -> Vec<WorkerView> {
    let mut by_name: BTreeMap<(Engine, String), Vec<WorkerRow>> = BTreeMap::new();
    for row in rows {
        by_name.entry((row.engine, row.name.clone())).or_default().push(row);
    }
    by_name.into_values().filter_map(|rows| unite_worker(rows, online, now)).collect()
}

fn unite_worker(rows: Vec<WorkerRow>, online: &BTreeSet<Uuid>, now: Timestamp) -> Option<WorkerView> {
    let agents = rows.iter().map(|row| row.agent).collect();
    let heard = |row: &WorkerRow| now.since(row.last_heartbeat) < WORKER_SILENCE_SECS * 1_000_000;
    let is_online = rows.iter().any(|row| match row.last_detailed {
        Some(_) => heard(row),
        None => row.process.is_some_and(|process| online.contains(&process)),
    });
    let created_at = rows.iter().map(|row| row.created_at).min()?;
    let last_heartbeat = rows.iter().map(|row| row.last_heartbeat).max()?;
    let newest = rows.into_iter().max_by_key(|row| (row.last_detailed, row.last_heartbeat))?;
    let row = WorkerRow { created_at, last_heartbeat, ..newest };
    Some(WorkerView { row, state: OnlineState::of(is_online), agents })
}

pub(super) fn unite_queues(rows: Vec<QueueRow>) -> Vec<QueueView> {
    let mut by_name: BTreeMap<(Engine, String), QueueView> = BTreeMap::new();
    for row in rows {
        match by_name.entry((row.engine, row.name.clone())) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(QueueView { agents: vec![row.agent], row });
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let view = place.get_mut();
                view.agents.push(row.agent);
                view.row.created_at = view.row.created_at.min(row.created_at);
                view.row.last_seen_at = view.row.last_seen_at.max(row.last_seen_at);
                if row.measured_at > view.row.measured_at {
                    (view.row.depth, view.row.measured_at) = (row.depth, row.measured_at);
                }
            }
        }
    }
    by_name.into_values().collect()
}
