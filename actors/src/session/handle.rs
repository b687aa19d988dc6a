//! What the rest of the mesh knows of a session, and how it reaches it.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::id::{AgentId, CommandId, ProjectId, SessionId};
use domain::time::Timestamp;
use domain::wire::{CloseCode, CommandBody};
use tokio::sync::{mpsc, oneshot};

/// What a session said of itself in its hello, and whose it is; fixed for the session's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    pub session: SessionId,
    pub project: ProjectId,
    pub agent: AgentId,
    /// `<framework>-<pid>-<start>`; one slot per (agent, worker id), `None` being a slot of its own.
    pub worker_id: Option<String>,
    /// `web`, `task`, `scheduler`, `beat` or `other`.
    pub worker_role: Option<String>,
    pub engines: Vec<String>,
    /// Action tokens by engine, as the hello lists them.
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// Long-poll sessions say no hello: what they can do is unknown.
    pub said_hello: bool,
    pub connected_at: Timestamp,
}

/// A command as it goes over the wire, not yet signed: the session signs in write order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFrame {
    /// The command's id; the claim token says which chunk and attempt this frame is.
    pub command: CommandId,
    /// Frame id: the command's id, or the chunk's own.
    pub id: String,
    /// The rendered payload; the session adds number, time and signature as it writes.
    pub body: CommandBody,
}

/// What became of a frame given to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its bytes went to the socket, so the agent may act on it.
    Written,
    /// Not a byte has left.
    NotSent,
}

/// Orders to a session from the rest of the mesh. Acks do not travel here.
#[derive(Debug)]
pub enum SessionMessage {
    /// Dropping the reply unanswered means "bytes may have left".
    Command { frame: CommandFrame, reply: oneshot::Sender<Sent> },
    /// Closes the socket with a close code of WIRE section 5.
    Close(CloseCode),
}

/// The way to a live session; cheap to clone. A handle to a session that has ended answers `NotSent`.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    pub facts: Arc<SessionFacts>,
    sender: mpsc::Sender<SessionMessage>,
}

impl SessionHandle {
    /// A handle and the receiving end that the session's task drains.
    pub fn new(facts: SessionFacts) -> (Self, mpsc::Receiver<SessionMessage>) {
        // One command is in flight per session, so a short queue never fills in health.
        let (sender, receiver) = mpsc::channel(8);
        (Self { facts: Arc::new(facts), sender }, receiver)
    }

    pub fn id(&self) -> SessionId {
        self.facts.session
    }

    /// Hands a frame to the socket; resolves when its bytes were written or certainly will not be.
    /// `None` means that bytes may have left.
    pub async fn send(&self, frame: CommandFrame) -> Option<Sent> {
        let (reply, answer) = oneshot::channel();
        if self.sender.try_send(SessionMessage::Command { frame, reply }).is_err() {
            return Some(Sent::NotSent);
        }
        answer.await.ok()
    }

    /// Asks the session to close; one that is gone already needs no asking.
    pub fn close(&self, code: CloseCode) {
        if let Err(mpsc::error::TrySendError::Full(message)) = self.sender.try_send(SessionMessage::Close(code)) {
            let sender = self.sender.clone();
            tokio::spawn(async move { sender.send(message).await });
        }
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
