//! The actor mesh of Thalamus: projects decide, agents deliver, recorders record.
//!
//! ```text
//! NodeSupervisor
//!  |- ProjectActor(project)    the only writer of its ledger; supervises and times out its commands
//!  |    '- AgentActor(agent)   lanes and deliveries of one agent's sessions
//!  |- Recorder(shard group)    union of reports, group commit, acks
//!  '- sessions                 one plain task per socket, known to their AgentActor through the directory
//! ```
//!
//! The edge reaches all of it through [`Mesh`] and nothing else.

pub mod agent;
pub mod changes;
pub mod clock;
mod complaint;
pub mod directory;
mod lost;
pub mod mesh;
pub mod meters;
pub mod presence;
pub mod project;
mod recorder;
pub mod session;
#[cfg(test)]
mod sim;
mod supervisor;

pub use clock::Clock;
pub use directory::Directory;
pub use mesh::{Mesh, MeshConfig};
pub use recorder::Deletions;
