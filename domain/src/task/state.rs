//! The seven states of a task (contract D1).

use std::fmt;
use std::str::FromStr;

/// What a task is doing, as far as we heard. The tag is stored and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    Received = 0,
    Started = 1,
    Succeeded = 2,
    Failed = 3,
    Cancelled = 4,
    Retried = 5,
    /// Started, and its worker has been gone for long. Not terminal: any later report beats it.
    Lost = 6,
}

/// A word that names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state must be one of received, started, succeeded, failed, cancelled, retried, lost")]
pub struct UnknownState;

impl State {
    pub const ALL: [Self; 7] =
        [Self::Received, Self::Started, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Retried, Self::Lost];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
            Self::Lost => "lost",
        }
    }

    pub const fn tag(self) -> u8 {
        self as u8
    }

    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }

    /// Whether the engine still has something to do: most tasks leave such a state soon, some stay for days.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Received | Self::Started | Self::Retried => true,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Lost => false,
        }
    }

    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Received | Self::Started | Self::Retried | Self::Lost => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads our words and, as aliases, those of the reference brain.
impl FromStr for State {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Ok(match text {
            "received" | "pending" => Self::Received,
            "started" => Self::Started,
            "succeeded" | "success" => Self::Succeeded,
            "failed" | "failure" | "rejected" => Self::Failed,
            "cancelled" | "revoked" => Self::Cancelled,
            "retried" | "retry" => Self::Retried,
            "lost" | "unknown" => Self::Lost,
            _ => return Err(UnknownState),
        })
    }
}

impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_read_and_never_written() {
        for (alias, word) in [
            ("success", "succeeded"),
            ("failure", "failed"),
            ("revoked", "cancelled"),
            ("retry", "retried"),
            ("unknown", "lost"),
            ("pending", "received"),
            ("rejected", "failed"),
        ] {
            assert_eq!(alias.parse::<State>().map(State::as_str), Ok(word));
        }
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(State::from_tag(state.tag()), Some(state));
        }
        for bad in ["", "Received", "sucess", "all"] {
            assert_eq!(bad.parse::<State>(), Err(UnknownState));
        }
        assert_eq!(State::from_tag(7), None);
    }
}
