//! Processes that connected with an agent's token: who is there, and how they fare.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::id::derived::derived_in;
use domain::id::{AgentId, NodeId, ProjectId, SessionId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

/// Actions by engine, as a hello lists them. Most processes list the same, so they share one copy.
pub type Capabilities = Arc<BTreeMap<String, Vec<String>>>;

/// One process of an agent, as its hello and heartbeats describe it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessRow {
    pub id: Uuid,
    pub agent: AgentId,
    pub worker_id: Option<String>,
    pub role: Option<String>,
    pub framework: String,
    pub pid: Option<i64>,
    /// As the process wrote it.
    pub started_at: Option<Timestamp>,
    pub host_name: Option<String>,
    pub agent_version: String,
    pub protocol_version: String,
    pub engines: Vec<String>,
    pub schedulers: Vec<String>,
    pub capabilities: Capabilities,
    pub runtime_features: Vec<String>,
    /// Where the session is; a node that is gone takes its sessions with it.
    pub node: NodeId,
    pub session: SessionId,
    /// False once the session has ended in the ordinary way.
    pub online: bool,
    pub last_seen_at: Timestamp,
    pub last_connect_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub health: ProcessHealth,
}

/// What the newest heartbeat and status told, and what we noticed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessHealth {
    pub buffer_size: Option<u64>,
    pub dropped_events: Option<u64>,
    /// The `telemetry_loss` object as JSON text.
    pub telemetry_loss: Option<String>,
    /// The process's clock minus ours at its newest frame, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// By engine: what the adapter says is wrong with its broker.
    pub adapter_errors: BTreeMap<String, String>,
    pub broker_connected: BTreeMap<String, bool>,
    /// Events of the present session: Celery `received`, and those that carry a worker's name.
    pub received_count: u64,
    pub first_received_at: Option<Timestamp>,
    pub named_worker_count: u64,
}

const WHAT: &str = "agent process";

/// The stable id of a process slot, as old as its agent.
pub fn id(agent: AgentId, worker_id: Option<&str>) -> Uuid {
    derived_in(agent.uuid(), worker_id.map(|worker| format!("w{worker}")).unwrap_or_default())
}

fn key(project: ProjectId, agent: AgentId, worker_id: Option<&str>) -> Key {
    let mut clustering = agent.bytes().to_vec();
    if let Some(worker_id) = worker_id {
        clustering.push(b'w');
        clustering.extend_from_slice(worker_id.as_bytes());
    }
    Key::new(Table::AgentWorker, project.bytes().to_vec(), clustering)
}

pub async fn get(
    store: &dyn Store,
    project: ProjectId,
    agent: AgentId,
    worker_id: Option<&str>,
) -> Result<Option<ProcessRow>, StoreError> {
    record::read(store, &key(project, agent, worker_id), WHAT).await
}

pub fn put(project: ProjectId, row: &ProcessRow) -> Write {
    Write::put(key(project, row.agent, row.worker_id.as_deref()), record::encode(row))
}

/// Every process that ever connected to the project, by agent.
pub async fn of_project(store: &dyn Store, project: ProjectId) -> Result<Vec<ProcessRow>, StoreError> {
    record::records(store, Table::AgentWorker, project.bytes().to_vec().into(), WHAT).await
}

/// Every process that ever connected with the agent's token.
pub async fn of_agent(store: &dyn Store, project: ProjectId, agent: AgentId) -> Result<Vec<ProcessRow>, StoreError> {
    let lower = agent.bytes();
    let upper = [&lower[..], &[b'w' + 1]].concat(); // after the agent's id comes nothing or a `w`
    let rows = record::rows_between(store, Table::AgentWorker, project.bytes().to_vec().into(), &lower, &upper);
    rows.await?.iter().map(|row| record::decode(&row.value, WHAT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_are_for_ever() {
        let agent = AgentId::from_bytes([1; 16]);
        assert_eq!(id(agent, None).to_string(), "01010101-0101-7c8c-941c-ef907c4d2160");
        assert_eq!(id(agent, Some("p1")).to_string(), "01010101-0101-7870-bbe7-621247e04e14");
    }
}
