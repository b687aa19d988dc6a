//! A project's log: hash-chained entries, and everything that follows from them (DESIGN section 6).
//!
//! ```text
//! entry       the closed set of what can stand in a ledger, and its bytes
//! json        JSON kept as it was written
//! chain       hashes and MACs; where a chain breaks
//! fold        what the entries come to: open commands, deadlines, idempotency, limits
//! limit       bulk actions counted per route and principal
//! snapshot    a fold as bytes, to start from
//! decide      the only place where an outcome is chosen
//! log         a fold and its chain, kept together
//! audit       an entry as auditors read it
//! tree        a Merkle tree that grows
//! checkpoint  how far a chain had come, signed
//! roll        a file of checkpoints, and what is wrong with it
//! inspect     the walk that finds what was done to a chain
//! ```
//!
//! One ledger per project is its command log, its audit chain and its limiter at once. Entries are appended
//! at the next sequence number only, so whoever decided on a stale fold loses the append and decides again.

pub mod audit;
pub mod chain;
pub mod checkpoint;
pub mod decide;
pub mod entry;
pub mod fold;
pub mod inspect;
pub mod json;
pub mod limit;
pub mod log;
pub mod roll;
pub mod snapshot;
pub mod tree;

pub use audit::{AuditFilter, AuditItem};
pub use chain::{Broken, Fault, Hash, LedgerKey, Sealed};
pub use checkpoint::{Checkpoint, CheckpointKey, Point, PublicKey};
pub use decide::{Answer, Issuance, Prepared, Refusal, Returned, Terms};
pub use entry::{Entry, Kind, Proposal};
pub use fold::{Change, Fold, KeyHolder, Open};
pub use inspect::{Finding, Inspected, Inspection};
pub use json::Json;
pub use limit::{Limited, Route};
pub use log::Log;
pub use roll::{Remark, Roll, Rolled, Signed, Witness};
pub use tree::Tree;
