//! Typed ids that cannot be swapped, each with one text form everywhere.
//!
//! All ids but a task's are UUIDs, version 7 unless an agent chose them: minted, or of things that nobody mints
//! [`derived`](derived::derived). A task's is its address, [`address::TaskId`].

pub mod address;
pub mod derived;

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::time::Timestamp;

macro_rules! typed_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            pub const NIL: Self = Self(Uuid::nil());

            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn uuid(self) -> Uuid {
                self.0
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Big-endian bytes: their order is the order of the ids.
            pub const fn bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// A new id whose order is the order of `now`.
            pub fn mint(now: Timestamp) -> Self {
                Self(uuid_v7(now, random()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        /// Accepts the hyphenated form only, in either case.
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                if text.len() != 36 {
                    return Err(BadId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| BadId)
            }
        }
    )+};
}

/// A text that is not a hyphenated UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct BadId;

typed_id! {
    /// The tenant boundary. The nil id is the system chain's (logins, users, projects created).
    ProjectId,
    /// A credential and its connections.
    AgentId,
    /// An operator's request to an agent. Version 7; `rand_a` holds the microseconds within the millisecond.
    CommandId,
    /// One authenticated connection of one agent worker; replaced, never reused.
    SessionId,
    /// One server process.
    NodeId,
    UserId,
    ApiKeyId,
    MembershipId,
    /// One login of a user; distinct from an agent's [`SessionId`].
    WebSessionId,
    /// One engine worker as stored (its engine-native name is the worker's name).
    WorkerRowId,
    QueueRowId,
    /// One physical thing that an agent told us, as the agent numbered it.
    EventId,
}

impl CommandId {
    /// The command's issue time, exact to the microsecond.
    pub fn issued_at(self) -> Timestamp {
        let bytes = self.bytes();
        let millis = bytes[..6].iter().fold(0_i64, |ms, byte| ms << 8 | i64::from(*byte));
        let micros = i64::from(bytes[6] & 0x0f) << 8 | i64::from(bytes[7]);
        Timestamp::from_millis(millis).plus_micros(micros)
    }

    /// The id with the smallest text at an instant: a lower bound for scans.
    pub fn floor(at: Timestamp) -> Self {
        Self(uuid_v7(at, [0; 8]))
    }
}

/// A version 7 UUID: 48 bits of milliseconds, 12 bits with the microseconds within, 62 random bits.
pub fn uuid_v7(at: Timestamp, random: [u8; 8]) -> Uuid {
    let micros = at.micros().max(0);
    let (millis, within) = (micros / 1000, (micros % 1000) as u16);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6..8].copy_from_slice(&(0x7000 | within).to_be_bytes());
    bytes[8..].copy_from_slice(&random);
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random source always answers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_id_keeps_its_issue_time_to_the_microsecond() {
        let at = Timestamp::from_micros(1_776_340_800_123_456);
        assert_eq!(CommandId::mint(at).issued_at(), at);
        let golden = CommandId::from_uuid(uuid_v7(at, [0xff; 8]));
        assert_eq!(golden.to_string(), "019d9629-927b-71c8-bfff-ffffffffffff");
        assert_eq!(golden.issued_at(), at);
    }

    #[test]
    fn only_the_hyphenated_form_is_read() {
        let text = "019d9629-927b-71c8-bfff-ffffffffffff";
        assert_eq!(text.parse::<AgentId>().map(|id| id.to_string()), Ok(text.to_owned()));
        for bad in ["", "019d9622b67b71c8bfffffffffffffff", "{019d9629-927b-71c8-bfff-ffffffffffff}", "x"] {
            assert_eq!(bad.parse::<AgentId>(), Err(BadId), "{bad}");
        }
    }
}
