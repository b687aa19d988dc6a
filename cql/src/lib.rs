//! The store of Thalamus: one seam of four operations, typed tables, three engines.
//!
//! ```text
//! accounts  users, logins, keys, projects, memberships, agents
//! dead_letter  events that can never be stored
//! fleet     processes, engine workers, queues, as agents name them
//! ledger    a project's ledger and its projections: commands, idempotency, audit
//! record    the value format of low-volume rows
//! tasks     tasks: rows, places, trees, segments, and the plans that read them
//! stats     counters of a project, caches of its task rows
//! store     the seam: get, scan, write, commit
//! table     the closed list of tables and their one-byte tags
//! engine    memory (seeded faults), fjall (one machine), cql (ScyllaDB, Cassandra)
//! ```

pub mod accounts;
#[cfg(test)]
mod contract;
pub mod dead_letter;
pub mod engine;
pub mod fleet;
pub mod ledger;
mod record;
pub mod stats;
pub mod store;
pub mod table;
pub mod tasks;

pub use store::{Commit, Committed, Expect, Guard, Key, Order, Range, Row, Store, StoreError, Ttl, Write, WriteOp};
pub use table::Table;
