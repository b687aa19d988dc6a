//! The session's loop.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::redact;
use domain::time::Timestamp;
use domain::wire::{CloseCode, Frame, Hello, Outbound, Receiver, Sender, SessionKey};
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, timeout};

use super::answers::Answers;
use super::events::Events;
use super::handle::{Sent, SessionFacts, SessionHandle, SessionMessage};
use super::orders::Orders;
use crate::directory::Arrival;
use crate::mesh::Mesh;
use crate::meters;
use crate::presence::Noticed;
use crate::recorder::Acks;

/// A session from which nothing came for this long is closed with 4408.
const SILENCE: Duration = Duration::from_secs(90);
/// Frames taken from the socket before acks get their turn.
const FRAMES_PER_TURN: usize = 64;
/// A socket that takes no bytes for this long is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a draining session waits for its last acks.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// A connection whose hello was read and whose agent is known.
pub struct Opening {
    pub handle: SessionHandle,
    pub orders: Orders,
    pub hello: Hello,
    pub key: SessionKey,
    /// The hello_ack: written once the session has its place, and before anything else.
    pub greeting: Bytes,
}

/// Serves one agent connection until it ends; the caller closes the socket with the answer.
pub async fn run<S, E>(mesh: Mesh, opening: Box<Opening>, mut socket: S) -> CloseCode
where
    S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
{
    // What opening needs is gone before the session begins, which may last for days.
    match Box::pin(open(mesh, opening, &mut socket)).await {
        Ok(mut session) => {
            let code = session.serve(&mut socket).await;
            Box::pin(session.end()).await;
            code
        }
        Err(code) => code,
    }
}

/// Takes the session's place, greets the agent and makes it known.
async fn open<S, E>(mesh: Mesh, opening: Box<Opening>, socket: &mut S) -> Result<Box<Session>, CloseCode>
where
    S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
{
    let Opening { handle, orders, hello, key, greeting } = *opening;
    match mesh.directory().up(handle.clone()) {
        Arrival::Full => return Err(CloseCode::TooManyConnections),
        Arrival::Connected(Some(displaced)) => displaced.close(CloseCode::Displaced),
        Arrival::Connected(None) => {}
    }
    // Known before it is greeted: whoever sees the agent connect may ask for it at once.
    mesh.presence().process_up(&handle.facts, &hello).await;
    if !matches!(timeout(WRITE_PATIENCE, socket.send(greeting)).await, Ok(Ok(()))) {
        leave(&mesh, &handle.facts).await;
        return Err(CloseCode::Normal);
    }
    mesh.session_up(&handle.facts).await;
    Ok(Box::new(Session {
        receiver: Receiver::new(key.clone()),
        sender: Sender::new(key),
        events: Events::new(handle.facts.clone(), mesh.recorders().clone(), mesh.presence().clone()),
        orders,
        answers: Answers::new(mesh.clone(), handle.facts.clone()),
        mesh,
        heard_at: Instant::now(),
        scratch: Vec::new(),
        handle,
    }))
}

struct Session {
    handle: SessionHandle,
    orders: Orders,
    receiver: Receiver,
    sender: Sender,
    events: Events,
    answers: Answers,
    mesh: Mesh,
    heard_at: Instant,
    scratch: Vec<u8>,
}

/// Why a turn was the last.
type Ended = CloseCode;

impl Session {
    async fn serve<S, E>(&mut self, socket: &mut S) -> CloseCode
    where
        S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
    {
        let drain = self.mesh.drain();
        let sink = self.events.sink();
        // A session waits here for days: what it does in a turn is boxed, so that it is not kept room for meanwhile.
        loop {
            let silent_at = self.heard_at + SILENCE;
            let turn = tokio::select! {
                biased;
                () = drain.cancelled() => return Box::pin(self.drain(socket)).await,
                () = sink.ready() => Ok(()),
                order = self.orders.recv() => Box::pin(self.obey(order, socket)).await,
                frame = socket.next() => match frame {
                    Some(frame) => Box::pin(self.take(frame, socket)).await,
                    None => Err(CloseCode::Normal),
                },
                () = tokio::time::sleep_until(silent_at) => Err(CloseCode::Silent),
            };
            let acks = sink.take();
            let written = if acks.list.is_empty() { Ok(()) } else { Box::pin(self.write_acks(acks, socket)).await };
            if let Err(code) = turn.and(written) {
                return code;
            }
        }
    }

    /// Takes what the socket has ready, then hands it over in one go.
    async fn take<S, E>(&mut self, first: Bytes, socket: &mut S) -> Result<(), Ended>
    where
        S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
    {
        self.heard_at = Instant::now();
        let now = self.mesh.clock().now();
        let mut next = Some(first);
        let mut turn = Ok(());
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = next.take() else { break };
            turn = self.hear(&frame, now);
            if turn.is_err() {
                break;
            }
            match socket.next().now_or_never() {
                Some(Some(frame)) => next = Some(frame),
                Some(None) => {
                    turn = Err(CloseCode::Normal);
                    break;
                }
                None => {}
            }
        }
        // A frame was taken from the socket for which there was no turn left.
        if turn.is_ok()
            && let Some(frame) = next
        {
            turn = self.hear(&frame, now);
        }
        self.events.hand_over().await;
        self.answers.hand_over().await;
        turn
    }

    fn hear(&mut self, wire: &[u8], now: Timestamp) -> Result<(), Ended> {
        let frame = self.receiver.accept(wire, now).map_err(|error| {
            tracing::warn!(
                agent.id = %self.handle.facts.agent,
                session.id = %self.handle.facts.session,
                error = &error as &dyn std::error::Error,
                "agent frame refused"
            );
            error.close_code()
        })?;
        match frame {
            Frame::EventBatch(batch) => self.events.take(&batch, now),
            Frame::Heartbeat(heartbeat) => {
                let noticed = Noticed { tally: self.events.tally(), ahead_micros: self.receiver.ahead_micros() };
                self.mesh.presence().heartbeat(&self.handle.facts, &heartbeat, noticed, now);
            }
            Frame::AgentStatus(status) => self.mesh.presence().status(&self.handle.facts, &status, now),
            Frame::CommandAck(ack) => self.answers.ack(ack),
            Frame::CommandResult(result) => self.answers.result(result),
            Frame::RegistryDelta(_) | Frame::Hello | Frame::Ignored => {}
            Frame::Error(error) => tracing::warn!(
                agent.id = %self.handle.facts.agent,
                code = error.code.as_deref().map(redact::text).as_deref(),
                fatal = error.fatal,
                "agent reports an error"
            ),
        }
        Ok(())
    }

    async fn obey<S, E>(&mut self, order: SessionMessage, socket: &mut S) -> Result<(), Ended>
    where
        S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
    {
        match order {
            SessionMessage::Command { frame, reply } => {
                self.scratch.clear();
                let body = Outbound::Command { id: &frame.id, body: &frame.body };
                self.sender.seal_into(&mut self.scratch, &body, self.mesh.clock().now());
                let bytes = Bytes::copy_from_slice(&self.scratch);
                // From here on bytes may leave, so an error leaves the reply unanswered.
                match timeout(WRITE_PATIENCE, socket.send(bytes)).await {
                    Ok(Ok(())) => {
                        // The asker may have given up; the frame is out all the same.
                        let _unheard = reply.send(Sent::Written);
                        Ok(())
                    }
                    Ok(Err(_)) | Err(_) => Err(CloseCode::Normal),
                }
            }
            SessionMessage::Close(code) => Err(code),
        }
    }

    /// Signs and writes acks, with one flush.
    async fn write_acks<S, E>(&mut self, acks: Acks, socket: &mut S) -> Result<(), Ended>
    where
        S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
    {
        let Acks { list: acks, since } = acks;
        self.events.acked(acks.len());
        let now = self.mesh.clock().now();
        let writing = async {
            for ack in &acks {
                let body = Outbound::EventBatchAck {
                    acked_id: &ack.id,
                    received: u64::from(ack.received),
                    accepted: u64::from(ack.accepted),
                };
                self.scratch.clear();
                self.sender.seal_into(&mut self.scratch, &body, now);
                socket.feed(Bytes::copy_from_slice(&self.scratch)).await?;
            }
            socket.flush().await
        };
        match timeout(WRITE_PATIENCE, writing).await {
            Ok(Ok(())) => {
                meters::acked(since.map_or(Duration::ZERO, |since| since.elapsed()));
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(CloseCode::Normal),
        }
    }

    /// Takes nothing more, waits for what is under way, and says goodbye.
    async fn drain<S, E>(&mut self, socket: &mut S) -> CloseCode
    where
        S: Stream<Item = Bytes> + Sink<Bytes, Error = E> + Unpin + Send,
    {
        let sink: Arc<_> = self.events.sink();
        let until = Instant::now() + DRAIN_PATIENCE;
        while self.events.under_way() > 0 {
            if tokio::time::timeout_at(until, sink.ready()).await.is_err() {
                break;
            }
            let acks = sink.take();
            if !acks.list.is_empty()
                && let Err(code) = self.write_acks(acks, socket).await
            {
                return code;
            }
        }
        CloseCode::ServerShutdown
    }

    async fn end(self: Box<Self>) {
        leave(&self.mesh, &self.handle.facts).await;
        self.mesh.session_down(&self.handle.facts).await;
    }
}

/// Gives the session's place up, unless a newer one has it.
pub(super) async fn leave(mesh: &Mesh, facts: &SessionFacts) {
    if mesh.directory().down(facts.agent, facts.session) {
        mesh.presence().process_down(facts).await;
    }
}
