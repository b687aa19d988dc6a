//! Where the time comes from: the machine's clock, or a paused one in tests and the simulation.

use domain::time::Timestamp;
use tokio::time::Instant;

/// A source of wall-clock time; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

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
        Self(Source::Machine)
    }

    /// Starts at `base` and moves with tokio's clock.
    pub fn starting_at(base: Timestamp) -> Self {
        Self(Source::Tokio { base, started: Instant::now() })
    }

    /// The same clock seen by a node that is off by `micros`.
    pub fn skewed(&self, micros: i64) -> Self {
        match &self.0 {
            Source::Machine => Self(Source::Machine),
            Source::Tokio { base, started } => {
                Self(Source::Tokio { base: base.plus_micros(micros), started: *started })
            }
        }
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
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
