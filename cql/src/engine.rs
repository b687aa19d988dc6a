//! The engines behind the store seam; which one runs is a setting, what it answers is not.
//!
//! ```text
//! memory    nothing on disk; faults by seed or by name, for tests and the simulation
//! cql       a cluster of ScyllaDB or Cassandra
//! fjall     one machine: a folder, one writer, one sync for all that waits
//! ```

pub mod cql;
pub mod fjall;
pub mod memory;
