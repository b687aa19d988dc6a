//! The engines behind the store seam; which one runs is a setting, what it answers is not.
//!
//! ```text
//! memory    nothing on disk; faults by seed or by name, for tests and the simulation
//! ```

pub mod memory;
