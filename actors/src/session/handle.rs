//! What the rest of the mesh knows of a session, and how it reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cql::fleet::Capabilities;
use domain::id::{AgentId, CommandId, ProjectId, SessionId};
use domain::time::Timestamp;
use domain::wire::{CloseCode, CommandBody};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::orders::{self, OrderSender, Orders};

/// How long a frame waits for a poll. Agents poll again at once, so one that does not is gone, or slow to come back.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

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
    pub capabilities: Capabilities,
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
    /// Its bytes went to the socket, or a poll takes them; so the agent may act on it.
    Written,
    /// Not a byte has left.
    NotSent,
}

/// Orders to a session from the rest of the mesh. Acks do not travel here.
#[derive(Debug)]
pub enum SessionMessage {
    /// Dropping the reply unanswered means "bytes may have left", but for a poll, which answers before it signs.
    /// Boxed: a session waits for these all its life, with room for several.
    Command { frame: Box<CommandFrame>, reply: oneshot::Sender<Sent> },
    /// Closes the socket with a close code of WIRE section 5.
    Close(CloseCode),
}

/// The way to a live session; cheap to clone. A handle to a session that has ended answers `NotSent`.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    pub facts: Arc<SessionFacts>,
    sender: OrderSender,
    /// Whether a poll is held now; `None` for sockets.
    polls: Option<Arc<AtomicBool>>,
}

impl SessionHandle {
    /// A handle and the receiving end that the session's task drains.
    pub fn new(facts: SessionFacts) -> (Self, Orders) {
        let (sender, orders) = orders::channel();
        (Self { facts: Arc::new(facts), sender, polls: None }, orders)
    }

    /// The same for a session without a socket; `polls` says whether a poll is held.
    pub fn polled(facts: SessionFacts, polls: Arc<AtomicBool>) -> (Self, Orders) {
        let (handle, orders) = Self::new(facts);
        (Self { polls: Some(polls), ..handle }, orders)
    }

    /// Whether the agent is certainly there to take a frame: it polls.
    pub fn is_polling(&self) -> bool {
        self.polls.as_ref().is_some_and(|polls| polls.load(Ordering::Acquire))
    }

    /// Whether a frame would have to wait for a poll that may never come.
    pub fn is_away(&self) -> bool {
        self.polls.is_some() && !self.is_polling()
    }

    pub fn id(&self) -> SessionId {
        self.facts.session
    }

    /// Hands a frame to the socket; resolves when its bytes were written or certainly will not be.
    /// `None` means that bytes may have left.
    pub async fn send(&self, frame: CommandFrame) -> Option<Sent> {
        let (reply, mut answer) = oneshot::channel();
        if self.sender.send(SessionMessage::Command { frame: Box::new(frame), reply }).is_err() {
            return Some(Sent::NotSent);
        }
        if self.polls.is_none() {
            return answer.await.ok();
        }
        if let Ok(sent) = timeout(TAKEN_WITHIN, &mut answer).await {
            return Some(sent.unwrap_or(Sent::NotSent));
        }
        // From here on a poll that finds the frame cannot answer, and leaves it; one that was quicker has answered.
        answer.close();
        Some(answer.try_recv().unwrap_or(Sent::NotSent))
    }

    /// Asks the session to close; one that is gone already needs no asking.
    pub fn close(&self, code: CloseCode) {
        // It is given back by a session that has ended.
        drop(self.sender.send(SessionMessage::Close(code)));
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

#[cfg(test)]
pub(super) mod tests {

    use domain::time::Timestamp;
    use serde_json::value::RawValue;

    use super::*;

    fn facts() -> SessionFacts {
        let now = Timestamp::EPOCH;
        SessionFacts {
            session: SessionId::mint(now),
            project: ProjectId::mint(now),
            agent: AgentId::mint(now),
            worker_id: None,
            worker_role: None,
            engines: Vec::new(),
            capabilities: Default::default(),
            said_hello: false,
            connected_at: now,
        }
    }

    fn frame() -> CommandFrame {
        let empty = RawValue::from_string("{}".to_owned()).unwrap();
        let body = CommandBody::new("cancel_task", &empty, &empty, 1, None, None).unwrap();
        CommandFrame { command: CommandId::NIL, id: "f".to_owned(), body }
    }

    /// A command for a session, and where its answer goes.
    pub(in crate::session) fn command() -> (Box<CommandFrame>, oneshot::Sender<Sent>, oneshot::Receiver<Sent>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(frame()), reply, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_no_poll_takes_was_not_sent_and_cannot_be_taken_later() {
        let (handle, mut orders) = SessionHandle::polled(facts(), Arc::default());
        assert!(handle.is_away());
        assert_eq!(handle.send(frame()).await, Some(Sent::NotSent));
        let SessionMessage::Command { reply, .. } = orders.recv().await else { panic!("the frame is still there") };
        assert_eq!(reply.send(Sent::Written), Err(Sent::Written));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_a_poll_takes_at_the_last_moment_was_sent() {
        let (handle, mut orders) = SessionHandle::polled(facts(), Arc::default());
        let sending = tokio::spawn(async move { handle.send(frame()).await });
        tokio::time::sleep(TAKEN_WITHIN - Duration::from_millis(1)).await;
        let SessionMessage::Command { reply, .. } = orders.recv().await else { panic!("a frame") };
        assert_eq!(reply.send(Sent::Written), Ok(()));
        assert_eq!(sending.await.unwrap(), Some(Sent::Written));
    }

    #[tokio::test(start_paused = true)]
    async fn a_polled_session_that_ends_has_sent_nothing_of_what_it_was_given() {
        let (handle, orders) = SessionHandle::polled(facts(), Arc::default());
        let sending = tokio::spawn(async move { handle.send(frame()).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(orders);
        assert_eq!(sending.await.unwrap(), Some(Sent::NotSent));
    }

    #[tokio::test]
    async fn a_socket_that_ends_may_have_sent_what_it_was_given() {
        let (handle, orders) = SessionHandle::new(facts());
        let sending = tokio::spawn(async move { handle.send(frame()).await });
        tokio::task::yield_now().await;
        drop(orders);
        assert_eq!(sending.await.unwrap(), None);
    }
}
