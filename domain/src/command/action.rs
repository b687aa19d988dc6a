//! The closed set of actions an agent can be asked for.

use std::fmt;
use std::str::FromStr;

/// What an agent is asked to do, in its own word on the wire (WIRE 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    RetryTask,
    CancelTask,
    BulkRetry,
    PurgeQueue,
    RestartWorker,
    PoolGrow,
    PoolShrink,
    AddConsumer,
    CancelConsumer,
    RateLimit,
}

/// A route below `/commands`, in the word of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    RetryTask,
    CancelTask,
    BulkRetry,
    PurgeQueue,
    RestartWorker,
    PoolResize,
    AddConsumer,
    CancelConsumer,
    RateLimit,
}

/// What a dropped session means for a command whose bytes may have left (contract D23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redelivery {
    /// Doing it twice is doing it once: may go to another worker.
    Idempotent,
    /// Delivered at most once: waits for its result until the deadline.
    AtMostOnce,
}

/// A word that is none of the actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown action")]
pub struct UnknownAction;

impl Action {
    pub const ALL: [Self; 10] = [
        Self::RetryTask,
        Self::CancelTask,
        Self::BulkRetry,
        Self::PurgeQueue,
        Self::RestartWorker,
        Self::PoolGrow,
        Self::PoolShrink,
        Self::AddConsumer,
        Self::CancelConsumer,
        Self::RateLimit,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryTask => "retry_task",
            Self::CancelTask => "cancel_task",
            Self::BulkRetry => "bulk_retry",
            Self::PurgeQueue => "purge_queue",
            Self::RestartWorker => "restart_worker",
            Self::PoolGrow => "pool_grow",
            Self::PoolShrink => "pool_shrink",
            Self::AddConsumer => "add_consumer",
            Self::CancelConsumer => "cancel_consumer",
            Self::RateLimit => "rate_limit",
        }
    }

    pub const fn redelivery(self) -> Redelivery {
        match self {
            Self::CancelTask | Self::RateLimit | Self::AddConsumer | Self::CancelConsumer => Redelivery::Idempotent,
            Self::RetryTask
            | Self::BulkRetry
            | Self::PurgeQueue
            | Self::RestartWorker
            | Self::PoolGrow
            | Self::PoolShrink => Redelivery::AtMostOnce,
        }
    }
}

impl Verb {
    pub const ALL: [Self; 9] = [
        Self::RetryTask,
        Self::CancelTask,
        Self::BulkRetry,
        Self::PurgeQueue,
        Self::RestartWorker,
        Self::PoolResize,
        Self::AddConsumer,
        Self::CancelConsumer,
        Self::RateLimit,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryTask => "retry-task",
            Self::CancelTask => "cancel-task",
            Self::BulkRetry => "bulk-retry",
            Self::PurgeQueue => "purge-queue",
            Self::RestartWorker => "restart-worker",
            Self::PoolResize => "pool-resize",
            Self::AddConsumer => "add-consumer",
            Self::CancelConsumer => "cancel-consumer",
            Self::RateLimit => "rate-limit",
        }
    }

    /// Whether the verb asks for an admin; the others ask for an operator (contract M82 to M110).
    pub const fn needs_admin(self) -> bool {
        match self {
            Self::RetryTask | Self::CancelTask | Self::BulkRetry => false,
            Self::PurgeQueue
            | Self::RestartWorker
            | Self::PoolResize
            | Self::AddConsumer
            | Self::CancelConsumer
            | Self::RateLimit => true,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;
    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(UnknownAction)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_idempotent_actions_may_be_redelivered() {
        let redelivered: Vec<_> =
            Action::ALL.into_iter().filter(|action| action.redelivery() == Redelivery::Idempotent).collect();
        assert_eq!(redelivered, [Action::CancelTask, Action::AddConsumer, Action::CancelConsumer, Action::RateLimit]);
    }

    #[test]
    fn an_action_reads_back_from_its_wire_word() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
            assert_eq!(serde_json::to_string(&action).unwrap(), format!("\"{action}\""));
        }
        assert_eq!("pool_resize".parse::<Action>(), Err(UnknownAction));
    }
}
