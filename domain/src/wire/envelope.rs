//! The outermost object of a frame: read, and its signature checked.

use std::borrow::Cow;

use super::canonical::Canonicaliser;
use super::key::OVERLAY;
use super::{FrameError, SessionKey};

/// The eleven frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    HelloAck,
    EventBatch,
    EventBatchAck,
    Heartbeat,
    AgentStatus,
    Command,
    CommandAck,
    CommandResult,
    RegistryDelta,
    Error,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::HelloAck => "hello_ack",
            Self::EventBatch => "event_batch",
            Self::EventBatchAck => "event_batch_ack",
            Self::Heartbeat => "heartbeat",
            Self::AgentStatus => "agent_status",
            Self::Command => "command",
            Self::CommandAck => "command_ack",
            Self::CommandResult => "command_result",
            Self::RegistryDelta => "registry_delta",
            Self::Error => "error",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "event_batch" => Self::EventBatch,
            "event_batch_ack" => Self::EventBatchAck,
            "heartbeat" => Self::Heartbeat,
            "agent_status" => Self::AgentStatus,
            "command" => Self::Command,
            "command_ack" => Self::CommandAck,
            "command_result" => Self::CommandResult,
            "registry_delta" => Self::RegistryDelta,
            "error" => Self::Error,
            "hello" => Self::Hello,
            "hello_ack" => Self::HelloAck,
            _ => return None,
        })
    }
}

/// A frame whose envelope is sound and whose signature is good; hello and hello_ack carry none.
pub(crate) struct Envelope<'w> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'w str,
    id: &'w str,
    ts: &'w str,
    nonce: &'w str,
    seq: &'w str,
}

impl<'w> Envelope<'w> {
    /// Checks in the protocol's order: object, `v`, `type`, payload, signature.
    pub(crate) fn open(wire: &'w [u8], key: &SessionKey, work: &mut Canonicaliser) -> Result<Self, FrameError> {
        let mut frame = work.frame(wire).map_err(FrameError::Malformed)?;
        let mut members = Members::default();
        frame.each(|name, value| members.note(name, value));
        let envelope = members.envelope()?;
        if matches!(envelope.kind, Kind::Hello | Kind::HelloAck) {
            return Ok(envelope);
        }
        let [agent, project, session] = key.identity();
        let overlay = [(OVERLAY[0], agent), (OVERLAY[1], project), (OVERLAY[2], session)];
        let claimed = string(members.hmac).ok_or(FrameError::Signature)?;
        if key.verify(frame.signed(b"hmac", &overlay), &claimed) { Ok(envelope) } else { Err(FrameError::Signature) }
    }

    /// Reads a frame that carries no signature.
    pub(crate) fn unsigned(wire: &'w [u8]) -> Result<Self, FrameError> {
        let mut work = Canonicaliser::new();
        let frame = work.frame(wire).map_err(FrameError::Malformed)?;
        let mut members = Members::default();
        frame.each(|name, value| members.note(name, value));
        members.envelope()
    }

    pub(crate) fn id(&self) -> Result<Cow<'w, str>, FrameError> {
        string(self.id).ok_or(FrameError::Member("id"))
    }

    pub(crate) fn seq(&self) -> Result<u64, FrameError> {
        self.seq.parse().map_err(|_| FrameError::Sequence)
    }

    pub(crate) fn nonce(&self) -> Result<Cow<'w, str>, FrameError> {
        string(self.nonce).ok_or(FrameError::Nonce)
    }

    pub(crate) fn ts(&self) -> Result<Cow<'w, str>, FrameError> {
        string(self.ts).ok_or(FrameError::Skew)
    }
}

/// The JSON texts of the members a frame has; empty where it lacks one.
#[derive(Default)]
struct Members<'w> {
    hmac: &'w str,
    id: &'w str,
    nonce: &'w str,
    payload: &'w str,
    seq: &'w str,
    ts: &'w str,
    kind: &'w str,
    version: &'w str,
}

impl<'w> Members<'w> {
    fn note(&mut self, name: &[u8], value: &'w str) {
        let member = match name {
            b"hmac" => &mut self.hmac,
            b"id" => &mut self.id,
            b"nonce" => &mut self.nonce,
            b"payload" => &mut self.payload,
            b"seq" => &mut self.seq,
            b"ts" => &mut self.ts,
            b"type" => &mut self.kind,
            b"v" => &mut self.version,
            _ => return,
        };
        *member = value;
    }

    fn envelope(&self) -> Result<Envelope<'w>, FrameError> {
        match self.version {
            "2" => {}
            other if other.parse::<i64>().is_ok() => return Err(FrameError::Version),
            _ => return Err(FrameError::Member("v")),
        }
        let kind = string(self.kind).ok_or(FrameError::Member("type"))?;
        let kind = Kind::parse(&kind).ok_or(FrameError::UnknownType)?;
        if !self.payload.starts_with('{') {
            return Err(FrameError::Payload);
        }
        Ok(Envelope { kind, payload: self.payload, id: self.id, ts: self.ts, nonce: self.nonce, seq: self.seq })
    }
}

/// The text of a JSON string that was read before; nothing if it is another value.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
}
