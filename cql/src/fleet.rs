//! What agents say of the machinery around tasks: their processes, engine workers, queues.
//!
//! Facts, not history: one row per (thing, agent that named it), rewritten whole. Several nodes may write a row;
//! the last one wins, which is right for facts that every heartbeat repeats. Readers unite the rows of one worker
//! or queue, since several agents on one broker name the same ones.
//!
//! ```text
//! process   a process that connected with an agent's token
//! worker    an engine worker, by its engine-native name
//! queue     a queue, and its depth where the engine can tell
//! ```

pub mod process;
pub mod queue;
pub mod worker;

pub use process::{Capabilities, ProcessRow};
pub use queue::QueueRow;
pub use worker::WorkerRow;

use uuid::Uuid;

use domain::engine::Engine;
use domain::id::ProjectId;
use domain::id::derived::derived_in;

/// The stable id of a named thing of a project, as old as the project.
fn row_id(project: ProjectId, kind: &str, engine: Engine, name: &str) -> Uuid {
    derived_in(project.uuid(), format!("{kind}\0{engine}\0{name}"))
}

/// Clustering key of what one agent says of a named thing: engine, 0x00, agent, name.
fn named_by(engine: Engine, agent: domain::id::AgentId, name: &str) -> Vec<u8> {
    let mut key = engine.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&agent.bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use domain::id::AgentId;

    use super::*;

    #[test]
    fn the_formats_are_for_ever() {
        let project = ProjectId::from_bytes([7; 16]);
        assert_eq!(
            row_id(project, "worker", Engine::Celery, "w1@vm").to_string(),
            "07070707-0707-720e-85ee-1b4d4fa35822"
        );
        let key = named_by(Engine::Rq, AgentId::from_bytes([1; 16]), "w");
        assert_eq!(hex::encode(key), "7271000101010101010101010101010101010177");
    }
}
