//! The five statuses of a command and the words clients may use for them (contract D2).

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Issued,
    Dispatched,
    Succeeded,
    Failed,
    TimedOut,
}

/// A word that is no status; the message lists what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status must be one of issued, dispatched, succeeded, failed, timed_out")]
pub struct UnknownStatus;

impl Status {
    pub const ALL: [Self; 5] = [Self::Issued, Self::Dispatched, Self::Succeeded, Self::Failed, Self::TimedOut];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Dispatched => "dispatched",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }

    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Issued | Self::Dispatched => false,
            Self::Succeeded | Self::Failed | Self::TimedOut => true,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads our words and the reference's aliases.
impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "issued" | "pending" => Ok(Self::Issued),
            "dispatched" => Ok(Self::Dispatched),
            "succeeded" | "completed" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            "timed_out" | "timeout" => Ok(Self::TimedOut),
            _ => Err(UnknownStatus),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_read_and_never_written() {
        for (alias, status) in
            [("pending", Status::Issued), ("completed", Status::Succeeded), ("timeout", Status::TimedOut)]
        {
            assert_eq!(alias.parse(), Ok(status));
            assert_ne!(status.as_str(), alias);
        }
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for bad in ["", "cancelled", "Issued", "issued "] {
            assert_eq!(bad.parse::<Status>(), Err(UnknownStatus), "{bad}");
        }
    }
}
