//! What would be said over and over while something is wrong is said at once, and then now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(30);

/// One thing to complain of.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    said: Mutex<Option<Instant>>,
}

impl Complaint {
    /// Whether it is to be said now; if so, it counts as said.
    pub(crate) fn is_due(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|at| at.elapsed() >= EVERY);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_said_at_once_and_then_every_half_minute() {
        let complaint = Complaint::default();
        assert!(complaint.is_due());
        let mut said = 0;
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            said += u32::from(complaint.is_due());
        }
        assert_eq!(said, 3);
    }
}
