//! The agent wire protocol, version 2: frames, signatures, replay guard.
//!
//! ```text
//! canonical   the bytes both sides sign
//! key         a session's keyed signature
//! replay      what makes a well-signed frame acceptable only once
//! hello       the unsigned handshake: hello in, hello_ack out
//! frame       what an agent says, borrowed from the wire
//! receiver    wire bytes in, verified frame out
//! sender      brain frames out: acks, commands, errors
//! client      the agent's side of the same, for load and tests
//! close       close codes
//! ```
//!
//! Order of checks of an incoming frame: JSON object, `v`, `type`, payload is an object, signature, status of a
//! result, shape of `telemetry_loss`, replay guard. A malformed item inside a well-signed batch never ends the
//! session: the agent would send it again for ever.

pub mod canonical;
pub mod client;
mod close;
mod envelope;
mod frame;
mod hello;
mod key;
mod lenient;
mod receiver;
mod replay;
mod scratch;
mod seal;
mod sender;

pub use close::{CloseCode, FrameError};
pub use frame::{
    AgentStatus, CommandAck, CommandResult, ErrorFrame, EventBatch, EventItem, Frame, Heartbeat, RegistryDelta,
    ResultStatus, TelemetryLoss,
};
pub use hello::{Hello, HelloAck};
pub use key::SessionKey;
pub use receiver::Receiver;
pub use sender::{CommandBody, Outbound, Sender};

/// The envelope's version, `v`.
pub const VERSION: u8 = 2;
/// The protocol named in hello and hello_ack.
pub const PROTOCOL: &str = "2";
/// The largest frame either side accepts unless hello_ack says otherwise.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Un-acked batches an agent sends before it waits.
pub const UNACKED_MAX: usize = 256;
/// Characters of a frame id.
pub const ID_MAX: usize = 64;
/// Characters of a command error.
pub const ERROR_MAX: usize = 8192;
