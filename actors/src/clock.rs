//! Where time and chance come from: the machine, or in tests and the simulation a paused clock and a seed.

use std::sync::{Arc, Mutex, PoisonError};

use cql::engine::memory::Dice;
use domain::time::Timestamp;
use tokio::time::Instant;

/// A source of wall-clock time and of random bytes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// `None`: the operating system's.
    dice: Option<Arc<Mutex<Dice>>>,
}

#[derive(Clone, Debug)]
enum Source {
    Machine,
    /// `base` plus tokio's time since `started`, so that a paused runtime moves it.
    Tokio {
        base: Timestamp,
        started: Instant,
    },
}

impl Clock {
    /// The machine's clock.
    pub const fn machine() -> Self {
        Self { source: Source::Machine, dice: None }
    }

    /// Starts at `base` and moves with tokio's clock.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { source: Source::Tokio { base, started: Instant::now() }, dice: None }
    }

    /// The same, with ids that follow from a seed.
    pub fn seeded(base: Timestamp, seed: u64) -> Self {
        Self { dice: Some(Arc::new(Mutex::new(Dice::new(seed)))), ..Self::starting_at(base) }
    }

    /// The same clock seen by a node that is off by `micros`.
    pub fn skewed(&self, micros: i64) -> Self {
        let source = match &self.source {
            Source::Machine => Source::Machine,
            Source::Tokio { base, started } => Source::Tokio { base: base.plus_micros(micros), started: *started },
        };
        Self { source, dice: self.dice.clone() }
    }

    /// Random bytes, for ids.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        match &self.dice {
            Some(dice) => dice.lock().unwrap_or_else(PoisonError::into_inner).bytes(),
            None => domain::id::random(),
        }
    }

    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::Machine => machine_now(),
            Source::Tokio { base, started } => {
                base.plus_micros(i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn machine_now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
