//! Attempts per client address in the last minute. Per node: what must be exact across nodes is counted from
//! the ledger instead.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::edge::error::{ApiError, ApiResult, Limited};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose attempts lie outside the window are forgotten once in so many attempts.
const SWEEP_EVERY: u32 = 4096;

/// A rolling window per address: exact, and a refused attempt does not count.
pub struct Throttle {
    attempts: DashMap<IpAddr, VecDeque<Instant>>,
    limit: u32,
    calls: AtomicU32,
}

impl Throttle {
    pub fn per_minute(limit: u32) -> Self {
        Self { attempts: DashMap::new(), limit, calls: AtomicU32::new(0) }
    }

    /// Counts an attempt, or refuses it.
    pub fn check(&self, ip: IpAddr) -> ApiResult<()> {
        let now = Instant::now();
        if self.calls.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.attempts.retain(|_, attempts| attempts.back().is_some_and(|last| now - *last < WINDOW));
        }
        let mut attempts = self.attempts.entry(network(ip)).or_default();
        while attempts.front().is_some_and(|first| now - *first >= WINDOW) {
            attempts.pop_front();
        }
        match attempts.front() {
            Some(first) if attempts.len() >= self.limit as usize => {
                let wait = WINDOW - (now - *first);
                let retry_after = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
                Err(ApiError::RateLimited(Limited { limit: self.limit, window_seconds: WINDOW.as_secs(), retry_after }))
            }
            Some(_) | None => {
                attempts.push_back(now);
                Ok(())
            }
        }
    }
}

/// A household has one version 4 address but 2^64 of version 6: those are counted by /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_attempt_after_the_limit_is_refused_until_the_window_has_moved() {
        let throttle = Throttle::per_minute(3);
        let ip = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..3 {
            assert!(throttle.check(ip).is_ok());
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        match throttle.check(ip) {
            Err(ApiError::RateLimited(limited)) => assert_eq!(limited.retry_after, 30),
            other => panic!("{other:?}"),
        }
        assert!(throttle.check(IpAddr::from([192, 0, 2, 2])).is_ok());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(throttle.check(ip).is_ok());
        assert!(throttle.check(ip).is_err());
    }
}
