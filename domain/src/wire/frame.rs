//! What an agent says, borrowed from the wire.

mod events;
mod loss;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use events::{EventBatch, EventItem};
pub use loss::TelemetryLoss;

use super::FrameError;
use super::envelope::{Envelope, Kind};
use super::lenient::{Lenient, Text};

/// A verified frame.
#[derive(Debug)]
pub enum Frame<'a> {
    EventBatch(EventBatch<'a>),
    Heartbeat(Heartbeat<'a>),
    AgentStatus(AgentStatus<'a>),
    CommandAck(CommandAck<'a>),
    CommandResult(CommandResult<'a>),
    RegistryDelta(RegistryDelta<'a>),
    Error(ErrorFrame<'a>),
    /// A hello in mid-session carries no signature; it is ignored.
    Hello,
    /// Well signed, but a type that only the brain sends.
    Ignored,
}

/// Liveness, queue depths, worker details.
#[derive(Debug, Default)]
pub struct Heartbeat<'a> {
    pub buffer_size: Option<u64>,
    pub last_flush_at: Option<Cow<'a, str>>,
    pub dropped_events: Option<u64>,
    pub telemetry_loss: Option<TelemetryLoss>,
    /// `<engine>.<fact>` and its text, in wire order; nested data is a JSON document inside the text.
    pub adapter_health: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// An agent's report about itself. Pure observation: kept as it came.
#[derive(Debug)]
pub struct AgentStatus<'a> {
    pub payload: &'a RawValue,
    pub telemetry_loss: Option<TelemetryLoss>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct CommandAck<'a> {
    /// The command frame's id.
    pub id: Cow<'a, str>,
    pub claim: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultStatus {
    Success,
    Failed,
}

#[derive(Debug)]
pub struct CommandResult<'a> {
    /// The command frame's id.
    pub id: Cow<'a, str>,
    pub status: ResultStatus,
    /// The result's JSON; null is nothing.
    pub result: Option<&'a RawValue>,
    pub error: Option<Cow<'a, str>>,
    pub claim: Option<Cow<'a, str>>,
}

/// What changed in an engine's registry; logged only.
#[derive(Debug)]
pub struct RegistryDelta<'a> {
    pub engine: Option<Cow<'a, str>>,
}

/// An error frame; no agent was seen to send one.
#[derive(Debug)]
pub struct ErrorFrame<'a> {
    pub code: Option<Cow<'a, str>>,
    pub message: Option<Cow<'a, str>>,
    pub fatal: bool,
}

impl<'a> Frame<'a> {
    /// Reads the payload of a frame whose signature was good.
    pub(super) fn read(envelope: &Envelope<'a>) -> Result<Self, FrameError> {
        let payload = envelope.payload;
        Ok(match envelope.kind {
            Kind::EventBatch => Self::EventBatch(EventBatch::read(envelope.id()?, payload)),
            Kind::Heartbeat => Self::Heartbeat(Heartbeat::read(payload)?),
            Kind::AgentStatus => Self::AgentStatus(AgentStatus::read(payload)?),
            Kind::CommandAck => Self::CommandAck(CommandAck::read(envelope.id()?, payload)),
            Kind::CommandResult => Self::CommandResult(CommandResult::read(envelope.id()?, payload)?),
            Kind::RegistryDelta => Self::RegistryDelta(RegistryDelta::read(payload)),
            Kind::Error => Self::Error(ErrorFrame::read(payload)),
            Kind::Hello => Self::Hello,
            Kind::HelloAck | Kind::EventBatchAck | Kind::Command => Self::Ignored,
        })
    }
}

/// Every payload member that is read, in whatever shape. A member given twice empties it all: no agent does that.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    buffer_size: Lenient<u64>,
    #[serde(borrow)]
    last_flush_at: Text<'a>,
    dropped_events: Lenient<u64>,
    #[serde(borrow)]
    telemetry_loss: Option<&'a RawValue>,
    #[serde(borrow)]
    adapter_health: events::Texts<'a>,
    #[serde(borrow)]
    delivery_claim_token: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Text<'a>,
    #[serde(borrow)]
    engine: Text<'a>,
    #[serde(borrow)]
    code: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    fatal: Lenient<bool>,
}

impl<'a> Payload<'a> {
    fn read(json: &'a str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }
}

impl<'a> Heartbeat<'a> {
    fn read(json: &'a str) -> Result<Self, FrameError> {
        let payload = Payload::read(json);
        Ok(Self {
            buffer_size: payload.buffer_size.0,
            last_flush_at: payload.last_flush_at.0,
            dropped_events: payload.dropped_events.0,
            telemetry_loss: TelemetryLoss::read(payload.telemetry_loss)?,
            adapter_health: payload.adapter_health.0,
        })
    }
}

impl<'a> AgentStatus<'a> {
    fn read(json: &'a str) -> Result<Self, FrameError> {
        let telemetry_loss = TelemetryLoss::read(Payload::read(json).telemetry_loss)?;
        let payload = serde_json::from_str(json).map_err(|_| FrameError::Payload)?;
        Ok(Self { payload, telemetry_loss })
    }
}

impl<'a> CommandAck<'a> {
    fn read(id: Cow<'a, str>, json: &'a str) -> Self {
        Self { id, claim: Payload::read(json).delivery_claim_token.0 }
    }
}

impl<'a> CommandResult<'a> {
    fn read(id: Cow<'a, str>, json: &'a str) -> Result<Self, FrameError> {
        let payload = Payload::read(json);
        let status = match payload.status.0.as_deref() {
            Some("success") => ResultStatus::Success,
            Some("failed") => ResultStatus::Failed,
            Some(_) | None => return Err(FrameError::ResultStatus),
        };
        Ok(Self { id, status, result: payload.result, error: payload.error.0, claim: payload.delivery_claim_token.0 })
    }
}

impl<'a> RegistryDelta<'a> {
    fn read(json: &'a str) -> Self {
        Self { engine: Payload::read(json).engine.0 }
    }
}

impl<'a> ErrorFrame<'a> {
    fn read(json: &'a str) -> Self {
        let payload = Payload::read(json);
        Self { code: payload.code.0, message: payload.message.0, fatal: payload.fatal.0 == Some(true) }
    }
}
