//! The agent's side of the protocol, for the load generator and for tests.
//!
//! Frames are written in the member order of the real agents, so that the brain has to put them in order as it
//! does for those.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::canonical::{Refusal, canonical};
use super::envelope::{Envelope, Kind};
use super::receiver::Verifier;
use super::seal::{Draft, Order, Sealer};
use super::{FrameError, Hello, HelloAck, SessionKey, VERSION};
use crate::time::Timestamp;

/// One agent worker's half of a session.
pub struct AgentSide {
    sealer: Sealer,
    verifier: Verifier,
}

/// A payload rendered once and sent often: its wire text and its canonical text.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    pub wire: Vec<u8>,
    pub canonical: Vec<u8>,
}

impl Payload {
    pub fn new(wire: impl Into<Vec<u8>>) -> Result<Self, Refusal> {
        let wire = wire.into();
        let canonical = canonical(&wire)?;
        Ok(Self { wire, canonical })
    }
}

/// What the brain says.
#[derive(Debug)]
pub enum BrainFrame<'a> {
    EventBatchAck {
        acked_id: Cow<'a, str>,
        received: u64,
        accepted: u64,
        rejected: u64,
    },
    Command(Command<'a>),
    Error {
        code: String,
        message: String,
        fatal: bool,
    },
    /// Well signed, but of a type an agent has no use for.
    Ignored,
}

/// A command as the agent reads it.
#[derive(Debug)]
pub struct Command<'a> {
    pub id: Cow<'a, str>,
    pub action: String,
    pub target: &'a RawValue,
    pub parameters: &'a RawValue,
    pub timeout_seconds: u32,
    pub issued_by: Option<String>,
    pub claim: Option<String>,
}

#[derive(Deserialize)]
struct AckPayload<'a> {
    #[serde(borrow)]
    acked_id: Cow<'a, str>,
    received: u64,
    accepted: u64,
    rejected: u64,
}

#[derive(Deserialize)]
struct CommandPayload<'a> {
    action: String,
    #[serde(borrow)]
    target: &'a RawValue,
    #[serde(borrow)]
    parameters: &'a RawValue,
    timeout_seconds: u32,
    issued_by: Option<String>,
    delivery_claim_token: Option<String>,
}

#[derive(Deserialize)]
struct ErrorPayload {
    code: String,
    message: String,
    fatal: bool,
}

/// The text of a hello frame.
pub fn hello_text(id: &str, hello: &Hello) -> String {
    serde_json::json!({"v": VERSION, "id": id, "ts": null, "type": Kind::Hello.as_str(), "payload": hello}).to_string()
}

impl AgentSide {
    pub fn new(key: SessionKey) -> Self {
        Self { sealer: Sealer::new(key.clone()), verifier: Verifier::new(key) }
    }

    /// The session that a hello_ack opened.
    pub fn opened(secret: &[u8], ack: &HelloAck) -> Self {
        Self::new(SessionKey::new(secret, ack.agent, ack.project, &ack.session.to_string()))
    }

    /// Appends an `event_batch` frame; the payload is `{"events":[...]}`.
    pub fn event_batch(&mut self, out: &mut Vec<u8>, id: &str, payload: &Payload, now: Timestamp) {
        self.seal(out, Kind::EventBatch, id, payload, now);
    }

    pub fn heartbeat(&mut self, out: &mut Vec<u8>, id: &str, payload: &Payload, now: Timestamp) {
        self.seal(out, Kind::Heartbeat, id, payload, now);
    }

    pub fn agent_status(&mut self, out: &mut Vec<u8>, id: &str, payload: &Payload, now: Timestamp) {
        self.seal(out, Kind::AgentStatus, id, payload, now);
    }

    pub fn command_ack(&mut self, out: &mut Vec<u8>, id: &str, claim: Option<&str>, now: Timestamp) {
        self.seal(out, Kind::CommandAck, id, &rendered(&serde_json::json!({"delivery_claim_token": claim})), now);
    }

    /// Appends a result; an `error` makes it a failed one.
    pub fn command_result(
        &mut self,
        out: &mut Vec<u8>,
        id: &str,
        result: Option<&serde_json::Value>,
        error: Option<&str>,
        claim: Option<&str>,
        now: Timestamp,
    ) {
        let status = if error.is_none() { "success" } else { "failed" };
        let payload =
            serde_json::json!({"status": status, "result": result, "error": error, "delivery_claim_token": claim});
        self.seal(out, Kind::CommandResult, id, &rendered(&payload), now);
    }

    /// Verifies what the brain sent.
    pub fn accept<'a>(&mut self, wire: &'a [u8], now: Timestamp) -> Result<BrainFrame<'a>, FrameError> {
        let envelope = self.verifier.open(wire)?;
        let frame = BrainFrame::read(&envelope)?;
        self.verifier.admit(&envelope, now)?;
        Ok(frame)
    }

    fn seal(&mut self, out: &mut Vec<u8>, kind: Kind, id: &str, payload: &Payload, now: Timestamp) {
        let draft = Draft { kind, id, payload: &payload.canonical, wire_payload: &payload.wire };
        self.sealer.seal(out, Order::Agent, draft, now);
    }
}

fn rendered(payload: &serde_json::Value) -> Payload {
    Payload::new(payload.to_string()).expect("a parsed value can always be signed")
}

impl<'a> BrainFrame<'a> {
    fn read(envelope: &Envelope<'a>) -> Result<Self, FrameError> {
        let bad = |_| FrameError::Member("payload");
        Ok(match envelope.kind {
            Kind::EventBatchAck => {
                let ack: AckPayload<'a> = serde_json::from_str(envelope.payload).map_err(bad)?;
                let AckPayload { acked_id, received, accepted, rejected } = ack;
                Self::EventBatchAck { acked_id, received, accepted, rejected }
            }
            Kind::Command => {
                let command: CommandPayload<'a> = serde_json::from_str(envelope.payload).map_err(bad)?;
                Self::Command(Command {
                    id: envelope.id()?,
                    action: command.action,
                    target: command.target,
                    parameters: command.parameters,
                    timeout_seconds: command.timeout_seconds,
                    issued_by: command.issued_by,
                    claim: command.delivery_claim_token,
                })
            }
            Kind::Error => {
                let ErrorPayload { code, message, fatal } = serde_json::from_str(envelope.payload).map_err(bad)?;
                Self::Error { code, message, fatal }
            }
            Kind::Hello
            | Kind::HelloAck
            | Kind::EventBatch
            | Kind::Heartbeat
            | Kind::AgentStatus
            | Kind::CommandAck
            | Kind::CommandResult
            | Kind::RegistryDelta => Self::Ignored,
        })
    }
}
