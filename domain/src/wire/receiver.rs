//! Wire bytes in, verified frames out: the brain's half of a session's inbound direction.

use super::envelope::{Envelope, Kind};
use super::replay::ReplayGuard;
use super::{FRAME_BYTES_MAX, Frame, FrameError, SessionKey, scratch};
use crate::time::Timestamp;

/// Verifies what one agent sends in one session.
pub struct Receiver {
    verifier: Verifier,
    ahead_micros: Option<i64>,
}

impl Receiver {
    pub fn new(key: SessionKey) -> Self {
        Self { verifier: Verifier::new(key), ahead_micros: None }
    }

    /// How far the agent's clock was ahead of ours at its newest heartbeat.
    pub const fn ahead_micros(&self) -> Option<i64> {
        self.ahead_micros
    }

    /// Checks a frame and reads it; an error ends the session with its close code.
    pub fn accept<'a>(&mut self, wire: &'a [u8], now: Timestamp) -> Result<Frame<'a>, FrameError> {
        let envelope = self.verifier.open(wire)?;
        let frame = Frame::read(&envelope)?;
        self.verifier.admit(&envelope, now)?;
        if let Frame::Heartbeat(_) = frame {
            self.ahead_micros = Timestamp::parse(&envelope.ts()?).ok().map(|theirs| theirs.since(now));
        }
        Ok(frame)
    }
}

/// What both directions share: the key and what was accepted so far.
pub(super) struct Verifier {
    key: SessionKey,
    guard: ReplayGuard,
}

impl Verifier {
    pub(super) fn new(key: SessionKey) -> Self {
        Self { key, guard: ReplayGuard::default() }
    }

    pub(super) fn open<'a>(&self, wire: &'a [u8]) -> Result<Envelope<'a>, FrameError> {
        if wire.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        scratch::with(|scratch| Envelope::open(wire, &self.key, &mut scratch.canonicaliser))
    }

    /// The last check, so that a frame refused for its content can be sent again.
    pub(super) fn admit(&mut self, envelope: &Envelope<'_>, now: Timestamp) -> Result<(), FrameError> {
        if matches!(envelope.kind, Kind::Hello | Kind::HelloAck) {
            return Ok(());
        }
        self.guard.admit(envelope.seq()?, &envelope.nonce()?, &envelope.ts()?, now)
    }
}
