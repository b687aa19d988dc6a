//! The four priorities of a task (contract D9).

use std::fmt;
use std::str::FromStr;

/// A task's stored priority. The tag is stored and never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    Critical = 0,
    High = 1,
    #[default]
    Normal = 2,
    Low = 3,
}

/// A word that names no priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("priority must be one of critical, high, normal, low")]
pub struct UnknownPriority;

impl Priority {
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    pub const fn tag(self) -> u8 {
        self as u8
    }

    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Case-insensitive, as the reference brain reads it.
impl FromStr for Priority {
    type Err = UnknownPriority;
    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        Self::ALL.into_iter().find(|priority| priority.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownPriority)
    }
}

impl serde::Serialize for Priority {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A set of priorities; a filter admits the union of its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrioritySet(u8);

impl PrioritySet {
    pub const EMPTY: Self = Self(0);

    pub const fn with(self, priority: Priority) -> Self {
        Self(self.0 | 1 << priority.tag())
    }

    pub const fn contains(self, priority: Priority) -> bool {
        self.0 & 1 << priority.tag() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Priority> {
        Priority::ALL.into_iter().filter(move |priority| self.contains(*priority))
    }

    /// Bits by tag: the form that goes into a filter's canonical bytes.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }
}

/// Reads a comma-separated list, `critical,high`; an unknown or empty member is refused.
impl FromStr for PrioritySet {
    type Err = UnknownPriority;
    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        text.split(',').try_fold(Self::EMPTY, |set, word| Ok(set.with(word.trim().parse()?)))
    }
}

impl FromIterator<Priority> for PrioritySet {
    fn from_iter<I: IntoIterator<Item = Priority>>(priorities: I) -> Self {
        priorities.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_union_and_an_unknown_member_is_refused() {
        let set: PrioritySet = "critical, HIGH".parse().expect("valid");
        assert_eq!(set.iter().collect::<Vec<_>>(), [Priority::Critical, Priority::High]);
        for bad in ["", "critical,", "urgent", "critical,urgent"] {
            assert_eq!(bad.parse::<PrioritySet>(), Err(UnknownPriority), "{bad}");
        }
    }
}
