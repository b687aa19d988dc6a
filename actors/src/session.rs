//! One agent connection: a plain task per socket.

pub mod handle;

pub use handle::{CommandFrame, Sent, SessionFacts, SessionHandle, SessionMessage};
