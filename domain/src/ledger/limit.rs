//! Bulk actions counted per route and principal (contract D24).
//!
//! The counts follow from the ledger, so the limit is exact however many nodes decide: an append on a stale
//! fold is lost.

use std::collections::{BTreeMap, VecDeque};

use crate::command::Action;
use crate::id::UserId;
use crate::time::Timestamp;

/// A limit counts what happened within this many seconds.
pub const WINDOW_SECS: i64 = 60;

/// A limited route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Route {
    BulkRetry,
    PurgeQueue,
    BulkDelete,
}

impl Route {
    /// The route of a command, if it is limited.
    pub const fn of(action: Action) -> Option<Self> {
        match action {
            Action::BulkRetry => Some(Self::BulkRetry),
            Action::PurgeQueue => Some(Self::PurgeQueue),
            Action::RetryTask
            | Action::CancelTask
            | Action::RestartWorker
            | Action::PoolGrow
            | Action::PoolShrink
            | Action::AddConsumer
            | Action::CancelConsumer
            | Action::RateLimit => None,
        }
    }
}

/// A refusal by a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many bulk actions; retry in {retry_after_secs} seconds")]
pub struct Limited {
    pub limit: u32,
    /// At least 1.
    pub retry_after_secs: u32,
}

/// When each principal acted within the window, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits(BTreeMap<Route, BTreeMap<UserId, VecDeque<Timestamp>>>);

impl Limits {
    /// Whether one more is allowed at `now`; how many are left after it.
    pub fn check(&self, route: Route, user: UserId, now: Timestamp, limit: u32) -> Result<u32, Limited> {
        let since = now.plus_secs(-WINDOW_SECS);
        let taken = self.0.get(&route).and_then(|users| users.get(&user));
        let mut recent = taken.into_iter().flatten().filter(|at| **at > since).peekable();
        let oldest = recent.peek().copied().copied();
        let count = u32::try_from(recent.count()).unwrap_or(u32::MAX);
        match oldest {
            Some(oldest) if count >= limit => {
                let wait = oldest.plus_secs(WINDOW_SECS).since(now);
                let secs = u32::try_from(wait.div_euclid(1_000_000) + 1).unwrap_or(1);
                Err(Limited { limit, retry_after_secs: secs.max(1) })
            }
            None if limit == 0 => Err(Limited { limit, retry_after_secs: WINDOW_SECS as u32 }),
            Some(_) | None => Ok(limit - count - 1),
        }
    }

    /// Counts one, and forgets what left the window.
    pub fn take(&mut self, route: Route, user: UserId, at: Timestamp) {
        let since = at.plus_secs(-WINDOW_SECS);
        let users = self.0.entry(route).or_default();
        users.entry(user).or_default().push_back(at);
        users.retain(|_, taken| {
            while taken.front().is_some_and(|first| *first <= since) {
                taken.pop_front();
            }
            !taken.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserId = UserId::from_bytes([1; 16]);

    #[test]
    fn the_eleventh_within_a_minute_waits_for_the_first_to_leave() {
        let mut limits = Limits::default();
        let start = Timestamp::from_secs(1000);
        for n in 0..10 {
            assert_eq!(limits.check(Route::PurgeQueue, USER, start.plus_secs(n), 10), Ok(9 - n as u32));
            limits.take(Route::PurgeQueue, USER, start.plus_secs(n));
        }
        let refused = limits.check(Route::PurgeQueue, USER, start.plus_secs(10), 10);
        assert_eq!(refused, Err(Limited { limit: 10, retry_after_secs: 51 }));
        assert_eq!(limits.check(Route::PurgeQueue, USER, start.plus_secs(60), 10), Ok(0));
        assert!(limits.check(Route::BulkRetry, USER, start.plus_secs(10), 10).is_ok(), "each route counts alone");
        assert!(limits.check(Route::PurgeQueue, UserId::NIL, start.plus_secs(10), 10).is_ok());
    }
}
