//! The Thalamus server: settings, the first start, and the HTTP edge over the actor mesh.
//!
//! ```text
//! config       every setting, typed and checked
//! cli          the command line
//! telemetry    logs and metrics
//! master       the master secret and its fingerprint
//! private      files that hold a secret
//! store        opens the store that the settings name
//! first_start  the first administrator, the project `default`, and what is printed
//! checkpoints  signs how far the ledgers have come, outside the store
//! serve        starts everything, and drains
//! edge         HTTP
//! ```

pub mod checkpoints;
pub mod cli;
pub mod config;
pub mod edge;
pub mod first_start;
pub mod master;
mod private;
pub mod serve;
pub mod store;
pub mod telemetry;
