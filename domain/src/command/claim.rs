//! How a result finds its command, chunk and attempt after any restart.
//!
//! Agents echo the claim token of a command frame in its ack and its result, so the token carries all
//! three; nothing has to be remembered between the frame and its answer.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::id::CommandId;
use crate::id::derived::derived_in;

/// One delivery of a command, counted from 1 and used as the fence. Zero: never delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    pub const NONE: Self = Self(0);

    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// `<command uuid>.<chunk>.<attempt>`, at most 64 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub command: CommandId,
    pub chunk: u32,
    pub attempt: Attempt,
}

/// A text that no command frame of ours carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a claim token")]
pub struct BadClaim;

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.command, self.chunk, self.attempt.0)
    }
}

impl FromStr for Claim {
    type Err = BadClaim;
    fn from_str(text: &str) -> Result<Self, BadClaim> {
        let mut parts = text.split('.');
        let (Some(command), Some(chunk), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadClaim);
        };
        let claim = Self {
            command: command.parse().map_err(|_| BadClaim)?,
            chunk: chunk.parse().map_err(|_| BadClaim)?,
            attempt: Attempt(attempt.parse().map_err(|_| BadClaim)?),
        };
        // One text per claim: signs, leading zeros and upper case are not ours.
        if claim.to_string() == text { Ok(claim) } else { Err(BadClaim) }
    }
}

/// The id of a command frame, unchanged on redelivery so that agents recognise a repeat: the command's own
/// id, for chunk n of a bulk command the id derived from (command id, decimal n).
pub fn frame_id(command: CommandId, bulk_chunk: Option<u32>) -> Uuid {
    match bulk_chunk {
        None => command.uuid(),
        Some(chunk) => derived_in(command.uuid(), chunk.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str = "019d9629-927b-71c8-bfff-ffffffffffff";

    #[test]
    fn a_claim_reads_back_and_fits_into_64_characters() {
        let claim = Claim { command: COMMAND.parse().unwrap(), chunk: 41, attempt: Attempt(u32::MAX) };
        assert_eq!(claim.to_string(), format!("{COMMAND}.41.4294967295"));
        assert!(claim.to_string().len() <= 64);
        assert_eq!(claim.to_string().parse(), Ok(claim));
    }

    #[test]
    fn only_one_text_is_a_claim() {
        for bad in [
            "",
            "x.0.1",
            "019d9629-927b-71c8-bfff-ffffffffffff",
            "019d9629-927b-71c8-bfff-ffffffffffff.00.1",
            "019d9629-927b-71c8-bfff-ffffffffffff.0.+1",
            "019D9629-927b-71c8-bfff-ffffffffffff.0.1",
            "019d9629-927b-71c8-bfff-ffffffffffff.0.1.2",
        ] {
            assert_eq!(bad.parse::<Claim>(), Err(BadClaim), "{bad}");
        }
    }

    #[test]
    fn frame_ids_are_golden() {
        let command: CommandId = COMMAND.parse().unwrap();
        assert_eq!(frame_id(command, None).to_string(), COMMAND);
        assert_eq!(frame_id(command, Some(0)).to_string(), "019d9629-927b-781d-a18b-9cd54aef3e91");
        assert_eq!(frame_id(command, Some(12)).to_string(), "019d9629-927b-7ef4-8690-b691c8e9ce0a");
    }
}
