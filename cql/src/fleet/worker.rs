//! Engine workers, by their engine-native names (contract D15, M133).

use domain::engine::Engine;
use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

/// What one agent says of one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    pub id: Uuid,
    pub engine: Engine,
    pub name: String,
    pub agent: AgentId,
    pub hostname: Option<String>,
    pub pid: Option<i64>,
    pub concurrency: Option<u32>,
    pub queues: Vec<String>,
    pub load_average: Option<Vec<f64>>,
    pub active_tasks: Option<u32>,
    /// Allow-listed inspect data (`stats`, `active`, `active_queues`, `registered`, `conf`) as JSON text.
    pub metadata: Option<String>,
    /// Newest time that a heartbeat or an event named it.
    pub last_heartbeat: Timestamp,
    /// Newest time that a heartbeat's `worker_details` named it; `None`: known from events only.
    pub last_detailed: Option<Timestamp>,
    /// The process slot whose events named it last.
    pub process: Option<Uuid>,
    pub created_at: Timestamp,
}

const WHAT: &str = "worker";

pub fn id(project: ProjectId, engine: Engine, name: &str) -> Uuid {
    super::row_id(project, "worker", engine, name)
}

fn key(project: ProjectId, engine: Engine, agent: AgentId, name: &str) -> Key {
    Key::new(Table::Worker, project.bytes().to_vec(), super::named_by(engine, agent, name))
}

pub async fn get(
    store: &dyn Store,
    project: ProjectId,
    engine: Engine,
    agent: AgentId,
    name: &str,
) -> Result<Option<WorkerRow>, StoreError> {
    record::read(store, &key(project, engine, agent, name), WHAT).await
}

pub fn put(project: ProjectId, row: &WorkerRow) -> Write {
    Write::put(key(project, row.engine, row.agent, &row.name), record::encode(row))
}

/// Every (worker, agent that names it) of the project.
pub async fn of_project(store: &dyn Store, project: ProjectId) -> Result<Vec<WorkerRow>, StoreError> {
    record::records(store, Table::Worker, project.bytes().to_vec().into(), WHAT).await
}
