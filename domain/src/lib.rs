//! Decisions and formats of Thalamus, without I/O.
//!
//! ```text
//! id        typed ids; id::address: a task's id is its address
//! time      instants in microseconds and their RFC 3339 text
//! engine    the six task engines
//! secret    keys derived from the master secret, tokens, hashes
//! stats     what a task adds to the counters, and how they move
//! wire      the agent protocol: canonical JSON, signatures, frames, replay guard
//! task      reports in, row out: report, group, derive, stored value, filter
//! command   what may be asked of an agent, and the only table of status changes
//! ledger    a project's hash-chained log: entries, chain, folds, decisions
//! lint      what is unwise about how workers are configured
//! number    whole numbers among doubles
//! cursor    authenticated page cursors
//! redact    what is scrubbed before anything is stored or shown
//! ```
//!
//! Nothing here reads a clock, a socket or a disk: time arrives as an argument.

pub mod command;
pub mod cursor;
pub mod engine;
pub mod id;
pub mod ledger;
pub mod lint;
pub mod number;
pub mod redact;
pub mod secret;
pub mod stats;
pub mod task;
pub mod time;
pub mod wire;
