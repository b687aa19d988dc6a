//! Why a frame is refused, and the close code that tells the agent.

use super::canonical::Refusal;

/// A WebSocket close code; what an agent does on each is in its reconnect policy, so they are not interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    Normal = 1000,
    ServerShutdown = 1001,
    TooBig = 1009,
    Internal = 1011,
    /// A newer connection with the same (agent, worker).
    Displaced = 4002,
    /// Agent revoked or project archived while connected.
    Revoked = 4003,
    /// Not a frame, or the first frame is no hello.
    Malformed = 4400,
    /// Before hello_ack only; afterwards it is [`CloseCode::Revoked`].
    Unauthenticated = 4401,
    /// Signature or replay violation; before the hello: source address refused.
    Forbidden = 4403,
    Silent = 4408,
    ProtocolUnsupported = 4426,
    AgentUnsupported = 4427,
    TooManyConnections = 4429,
}

impl CloseCode {
    pub const fn code(self) -> u16 {
        self as u16
    }
}

/// Why a frame ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not a frame")]
    Malformed(#[source] Refusal),
    #[error("larger than the announced frame limit")]
    TooLarge,
    #[error("member `{0}` is missing or has the wrong type")]
    Member(&'static str),
    #[error("envelope version is not 2")]
    Version,
    #[error("unknown frame type")]
    UnknownType,
    #[error("payload is not an object")]
    Payload,
    #[error("signature does not match")]
    Signature,
    #[error("command result status is neither success nor failed")]
    ResultStatus,
    #[error("telemetry_loss has a wrong shape")]
    TelemetryLoss,
    #[error("sequence number does not rise")]
    Sequence,
    #[error("nonce is missing, too long or used before")]
    Nonce,
    #[error("timestamp is missing, naive or off by more than 60 s")]
    Skew,
    #[error("first frame is not a hello")]
    NotHello,
    #[error("protocol version is not supported")]
    Protocol,
}

impl FrameError {
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Malformed(_) | Self::TooLarge | Self::Member(_) | Self::TelemetryLoss | Self::NotHello => {
                CloseCode::Malformed
            }
            Self::Version | Self::UnknownType | Self::Payload | Self::ResultStatus => CloseCode::Internal,
            Self::Signature | Self::Sequence | Self::Nonce | Self::Skew => CloseCode::Forbidden,
            Self::Protocol => CloseCode::ProtocolUnsupported,
        }
    }
}
