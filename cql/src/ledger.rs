//! A project's ledger and its projections, as typed tables.
//!
//! ```text
//! entries     the append, the tail, the verification walk
//! head        where a fold may start
//! projection  the rows that follow from entries, stamped with their seq
//! commands    list and detail of commands, frozen ids of bulk commands
//! audit       entries as auditors read them
//! open        projects with open commands
//! note        one entry from a process without actors
//! ```
//!
//! Entries are the truth. The other tables are caches of them: whoever folds an entry can write its rows again,
//! and the row of the larger seq wins.

pub mod audit;
pub mod commands;
pub mod entries;
pub mod head;
pub mod note;
pub mod open;
pub mod projection;

pub use audit::AuditPage;
pub use commands::CommandPage;
pub use entries::{Appended, Receipt};
pub use projection::Projector;

/// Entries of one partition of the ledger; an append never crosses it.
pub const CHUNK_ENTRIES: u64 = 10_000;

/// Most entries of one append.
pub const APPEND_MAX: usize = 64;

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod tests;
