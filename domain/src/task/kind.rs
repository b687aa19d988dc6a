//! What a report says happened to a task.

use std::fmt;

/// The kind of a report. The tag is stored and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Received = 1,
    Started = 2,
    Succeeded = 3,
    Failed = 4,
    Retried = 5,
    Revoked = 6,
    Rejected = 7,
    Sent = 8,
    /// Ours: started, and its worker is gone (contract D33).
    Lost = 64,
    /// Ours: an operator deleted the task (contract D31).
    Deleted = 65,
    /// Ours: a command of ours scheduled the task; the body carries its name, queue and eta (contract M38).
    Scheduled = 66,
}

impl Kind {
    /// Every kind an agent may send.
    pub const WIRE: [Self; 8] = [
        Self::Received,
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::Retried,
        Self::Revoked,
        Self::Rejected,
        Self::Sent,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "task.received",
            Self::Started => "task.started",
            Self::Succeeded => "task.succeeded",
            Self::Failed => "task.failed",
            Self::Retried => "task.retried",
            Self::Revoked => "task.revoked",
            Self::Rejected => "task.rejected",
            Self::Sent => "task.sent",
            Self::Lost => "task.lost",
            Self::Deleted => "task.deleted",
            Self::Scheduled => "task.scheduled",
        }
    }

    /// Reads the wire's word. Ours are not on the wire: an agent that sends one is not believed.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::WIRE.into_iter().find(|kind| kind.as_str() == text)
    }

    pub const fn tag(self) -> u8 {
        self as u8
    }

    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::WIRE.into_iter().chain([Self::Lost, Self::Deleted, Self::Scheduled]).find(|kind| kind.tag() == tag)
    }

    /// Whether the kind ends an attempt.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Revoked | Self::Rejected => true,
            Self::Received | Self::Started | Self::Retried | Self::Sent => false,
            Self::Lost | Self::Deleted | Self::Scheduled => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_back_and_ours_are_not_wire_words() {
        for kind in Kind::WIRE {
            assert_eq!(Kind::from_tag(kind.tag()), Some(kind));
            assert_eq!(Kind::from_wire(kind.as_str()), Some(kind));
        }
        for kind in [Kind::Lost, Kind::Deleted, Kind::Scheduled] {
            assert_eq!(Kind::from_tag(kind.tag()), Some(kind));
            assert_eq!(Kind::from_wire(kind.as_str()), None);
        }
        assert_eq!(Kind::from_tag(0), None);
    }
}
