//! A delivery that may leave: its entry is durable.

use cql::ledger::Receipt;
use domain::command::{Attempt, Claim, Command, chunk::Chunk, claim, wire};
use domain::id::SessionId;
use domain::time::Timestamp;

use super::seat::Delivery;
use crate::session::CommandFrame;

/// What of a frame does not stand in the command's row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// The opened secret members of the parameters.
    pub secrets: Option<&'a str>,
    pub chunk: Option<&'a Chunk>,
}

/// A command on its way to one session. Only a receipt of the append that holds its `dispatched` entry makes one,
/// so nothing unsaved can be sent.
#[derive(Debug)]
pub struct Dispatched {
    frame: CommandFrame,
    session: SessionId,
    claim: Claim,
}

impl Dispatched {
    /// `seq` is the number of the `dispatched` entry, `chunk` the frozen ids of a bulk command's chunk. `None` if the
    /// receipt is not of that append, or the command has no form that can be signed.
    pub fn new(
        command: &Command,
        session: SessionId,
        parts: Parts<'_>,
        now: Timestamp,
        seq: u64,
        receipt: &Receipt,
    ) -> Option<Self> {
        if !receipt.covers(seq) {
            return None;
        }
        let claim = Claim { command: command.id, chunk: command.chunk, attempt: command.attempt };
        let body = match wire::frame_body(command, parts.secrets, parts.chunk, claim, now) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(command.id = %command.id, error = %error, "command has no form that can be signed");
                return None;
            }
        };
        let bulk_chunk = command.is_bulk().then_some(command.chunk);
        let id = claim::frame_id(command.id, bulk_chunk).to_string();
        Some(Self { frame: CommandFrame { command: command.id, id, body }, session, claim })
    }

    pub const fn session(&self) -> SessionId {
        self.session
    }

    pub(super) const fn delivery(&self) -> Delivery {
        let Claim { command, chunk, attempt } = self.claim;
        Delivery { command, chunk, attempt, given: true }
    }

    pub const fn attempt(&self) -> Attempt {
        self.claim.attempt
    }

    pub(super) fn into_frame(self) -> CommandFrame {
        self.frame
    }
}
