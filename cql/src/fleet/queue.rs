//! Queues, and their depths where an engine can tell (contract D18).

use domain::engine::Engine;
use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

/// What one agent says of one queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueRow {
    pub id: Uuid,
    pub engine: Engine,
    pub name: String,
    pub agent: AgentId,
    pub broker_type: Option<String>,
    /// Waiting messages, as the agent measured them last.
    pub depth: Option<u64>,
    pub measured_at: Option<Timestamp>,
    pub last_seen_at: Timestamp,
    pub created_at: Timestamp,
}

const WHAT: &str = "queue";

pub fn id(project: ProjectId, engine: Engine, name: &str) -> Uuid {
    super::row_id(project, "queue", engine, name)
}

fn key(project: ProjectId, engine: Engine, agent: AgentId, name: &str) -> Key {
    Key::new(Table::Queue, project.bytes().to_vec(), super::named_by(engine, agent, name))
}

pub async fn get(
    store: &dyn Store,
    project: ProjectId,
    engine: Engine,
    agent: AgentId,
    name: &str,
) -> Result<Option<QueueRow>, StoreError> {
    record::read(store, &key(project, engine, agent, name), WHAT).await
}

pub fn put(project: ProjectId, row: &QueueRow) -> Write {
    Write::put(key(project, row.engine, row.agent, &row.name), record::encode(row))
}

/// Every (queue, agent that names it) of the project.
pub async fn of_project(store: &dyn Store, project: ProjectId) -> Result<Vec<QueueRow>, StoreError> {
    record::records(store, Table::Queue, project.bytes().to_vec().into(), WHAT).await
}
