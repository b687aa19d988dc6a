//! Long-poll sessions (WIRE section 9): the same agent, without a socket.
//!
//! **Owns** what a socket's task owns, behind two locks: uploads verify and record, polls sign and hand out.
//! **Invariants** I-1 holds as for sockets: an upload is answered after its events are durable. I-9: a poll signs
//! under the lock that it answers from. A session is known by its nonce, and gone for good after a violation, or
//! when it falls silent: there is no socket whose end could be seen.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use domain::id::AgentId;
use domain::wire::{CloseCode, Frame, FrameError, Hello, Outbound, Receiver, Sender, SessionKey};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::answers::Answers;
use super::events::Events;
use super::handle::{Sent, SessionFacts, SessionHandle, SessionMessage};
use super::orders::Orders;
use crate::directory::Arrival;
use crate::mesh::Mesh;
use crate::meters;
use crate::presence::Noticed;

/// Sessions per agent; a new one takes the place of the one that was quiet longest.
const PER_AGENT_MAX: usize = 16;
/// A session without a request for this long has ended. Agents hold a poll nearly all the time, and beat every 10 s.
const SILENT: Duration = Duration::from_secs(30);
/// After this long nothing of a session can be played again, and its nonce is forgotten.
const IDLE: Duration = Duration::from_secs(300);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long an upload waits for its events to become durable; the agent's own request limit is longer.
const DURABLE_WITHIN: Duration = Duration::from_secs(25);

/// Long-poll sessions of this node; cheap to clone.
#[derive(Clone, Default)]
pub struct PolledSessions(Arc<DashMap<(AgentId, String), Arc<Polled>>>);

/// Why an upload was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Signature or replay violation, or another process took the place: a new probe is needed.
    #[error("the session is not valid any more")]
    Violated,
    /// Its events are not durable yet; sending it again is safe.
    #[error("the events are not durable")]
    NotDurable,
}

/// One long-poll session.
pub struct Polled {
    mesh: Mesh,
    handle: SessionHandle,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outwards>,
    used_at: SyncMutex<Instant>,
    /// Requests under way.
    requests: AtomicUsize,
    /// A poll is held.
    polls: Arc<AtomicBool>,
    /// Its nonce is dead: a new session of the same nonce would have forgotten what it saw.
    over: AtomicBool,
}

struct Inbound {
    receiver: Receiver,
    events: Events,
    answers: Answers,
}

struct Outwards {
    sender: Sender,
    orders: Orders,
}

impl PolledSessions {
    /// The session of a nonce, if a probe opened it and it is not over.
    pub fn get(&self, agent: AgentId, nonce: &str) -> Option<Arc<Polled>> {
        let session = self.0.get(&(agent, nonce.to_owned()))?.clone();
        if session.over.load(Ordering::Acquire) {
            return None;
        }
        session.touch();
        Some(session)
    }

    /// Opens a session, or finds it. `None`: the nonce is dead.
    pub async fn open(
        &self,
        mesh: &Mesh,
        facts: SessionFacts,
        nonce: &str,
        key: SessionKey,
        features: Vec<String>,
    ) -> Option<Arc<Polled>> {
        let agent = facts.agent;
        if self.0.contains_key(&(agent, nonce.to_owned())) {
            return self.get(agent, nonce);
        }
        self.make_room(agent).await;
        let polls = Arc::new(AtomicBool::new(false));
        let (handle, orders) = SessionHandle::polled(facts, polls.clone());
        let facts = handle.facts.clone();
        let session = Arc::new(Polled {
            inbound: Mutex::new(Inbound {
                receiver: Receiver::new(key.clone()),
                events: Events::new(facts.clone(), mesh.recorders().clone(), mesh.presence().clone()),
                answers: Answers::new(mesh.clone(), facts.clone()),
            }),
            outbound: Mutex::new(Outwards { sender: Sender::new(key), orders }),
            used_at: SyncMutex::new(Instant::now()),
            requests: AtomicUsize::new(0),
            polls,
            over: AtomicBool::new(false),
            mesh: mesh.clone(),
            handle: handle.clone(),
        });
        self.0.insert((agent, nonce.to_owned()), session.clone());
        match mesh.directory().up(handle) {
            Arrival::Connected(Some(displaced)) => displaced.close(CloseCode::Displaced),
            // Without a place it can still upload; commands go to its siblings.
            Arrival::Connected(None) | Arrival::Full => {}
        }
        mesh.presence().process_up(&facts, &unsaid(features)).await;
        mesh.session_up(&facts).await;
        Some(session)
    }

    /// Ends a session; its nonce stays dead for as long as a frame of it could be played again.
    pub async fn close(&self, agent: AgentId, nonce: &str) {
        let session = self.0.get(&(agent, nonce.to_owned())).map(|session| session.clone());
        if let Some(session) = session
            && !session.over.swap(true, Ordering::AcqRel)
        {
            session.give_back();
            super::run::leave(&session.mesh, &session.handle.facts).await;
            session.mesh.session_down(&session.handle.facts).await;
        }
    }

    /// Ends sessions that fell silent, until the node drains, and then all of them.
    pub async fn sweep(self, mesh: Mesh) {
        let drain = mesh.drain();
        loop {
            let ending = tokio::select! {
                () = drain.cancelled() => true,
                () = tokio::time::sleep(SWEEP_EVERY) => false,
            };
            let over = |session: &Polled| ending || session.idle() >= SILENT;
            let gone: Vec<_> = self
                .0
                .iter()
                .filter(|session| over(session.value()))
                .map(|session| (session.key().clone(), session.idle() >= IDLE))
                .collect();
            for ((agent, nonce), is_forgotten) in gone {
                self.close(agent, &nonce).await;
                if is_forgotten || ending {
                    self.0.remove(&(agent, nonce));
                }
            }
            if ending {
                return;
            }
        }
    }

    async fn make_room(&self, agent: AgentId) {
        let mut of_agent: Vec<(Duration, String)> = self
            .0
            .iter()
            .filter(|session| session.key().0 == agent && !session.value().over.load(Ordering::Acquire))
            .map(|session| (session.value().idle(), session.key().1.clone()))
            .collect();
        of_agent.sort();
        while of_agent.len() >= PER_AGENT_MAX
            && let Some((_, nonce)) = of_agent.pop()
        {
            self.close(agent, &nonce).await;
        }
    }
}

/// What an agent that says no hello would say: nothing of engines.
fn unsaid(runtime_features: Vec<String>) -> Hello {
    Hello {
        protocol_version: "2".to_owned(),
        agent_version: "unknown".to_owned(),
        framework: "longpoll".to_owned(),
        engines: Vec::new(),
        schedulers: Vec::new(),
        capabilities: Default::default(),
        host: serde_json::Map::new(),
        worker_id: None,
        worker_role: None,
        worker_pid: None,
        worker_started_at: None,
        runtime_features,
    }
}

impl Polled {
    fn touch(&self) {
        *self.used_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Since when nothing is asked; zero while a request is under way.
    fn idle(&self) -> Duration {
        if self.requests.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        self.used_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// What no poll has taken was not sent, and another session may have it.
    fn give_back(&self) {
        // A poll that holds the lock takes or leaves them itself.
        if let Ok(outbound) = self.outbound.try_lock() {
            outbound.orders.close();
        }
    }

    /// Takes frames in and waits until their events are durable. Answers how many frames were of no use; they
    /// count as taken all the same, or the agent would send them for ever.
    pub async fn upload(&self, frames: &[String]) -> Result<usize, UploadError> {
        let _request = Request::new(self);
        let mut inbound = self.inbound.lock().await;
        let Inbound { receiver, events, answers } = &mut *inbound;
        let now = self.mesh.clock().now();
        let mut useless = 0;
        let mut verdict = Ok(());
        for frame in frames {
            match receiver.accept(frame.as_bytes(), now) {
                Ok(Frame::EventBatch(batch)) => events.take(&batch, now),
                Ok(Frame::Heartbeat(heartbeat)) => {
                    let noticed = Noticed { tally: events.tally(), ahead_micros: receiver.ahead_micros() };
                    self.mesh.presence().heartbeat(&self.handle.facts, &heartbeat, noticed, now);
                }
                Ok(Frame::AgentStatus(status)) => self.mesh.presence().status(&self.handle.facts, &status, now),
                Ok(Frame::CommandAck(ack)) => answers.ack(ack),
                Ok(Frame::CommandResult(result)) => answers.result(result),
                Ok(Frame::RegistryDelta(_) | Frame::Error(_) | Frame::Hello | Frame::Ignored) => {}
                Err(FrameError::Signature | FrameError::Sequence | FrameError::Nonce | FrameError::Skew) => {
                    verdict = Err(UploadError::Violated);
                    break;
                }
                Err(_) => useless += 1,
            }
        }
        events.hand_over().await;
        answers.hand_over().await;
        verdict?;
        let sink = events.sink();
        let until = Instant::now() + DURABLE_WITHIN;
        while events.under_way() > 0 {
            if timeout_at(until, sink.ready()).await.is_err() {
                return Err(UploadError::NotDurable);
            }
            let acks = sink.take();
            events.acked(acks.list.len());
            if let Some(since) = acks.since {
                meters::acked(since.elapsed());
            }
        }
        Ok(useless)
    }

    /// Signed command frames, as they come within `wait`. `None`: the session was told to end.
    pub async fn poll(&self, wait: Duration, frames_max: usize) -> Option<Vec<String>> {
        let mut frames = Vec::new();
        if frames_max == 0 {
            return Some(frames);
        }
        let _request = Request::new(self);
        let drain = self.mesh.drain();
        let until = Instant::now() + wait;
        // A second poll of one session waits for the first.
        let Ok(mut outbound) = timeout(wait.max(Duration::from_millis(50)), self.outbound.lock()).await else {
            return Some(frames);
        };
        let _held = Held::new(&self.polls);
        let Outwards { sender, orders } = &mut *outbound;
        loop {
            let order = tokio::select! {
                biased;
                order = orders.recv() => Some(order),
                () = drain.cancelled() => None,
                () = tokio::time::sleep_until(until) => None,
            };
            match order {
                Some(SessionMessage::Command { frame, reply }) => {
                    if reply.send(Sent::Written).is_err() {
                        // The agent was away for so long that this was given up; commands may wait for it.
                        self.mesh.session_up(&self.handle.facts).await;
                        continue;
                    }
                    // From here on it may reach the agent.
                    let body = Outbound::Command { id: &frame.id, body: &frame.body };
                    let sealed = sender.seal(&body, self.mesh.clock().now());
                    frames.push(String::from_utf8_lossy(&sealed).into_owned());
                    return Some(frames);
                }
                Some(SessionMessage::Close(_)) => return None,
                None => return Some(frames),
            }
        }
    }
}

/// A request under way; one whose caller hangs up is dropped, and over.
struct Request<'a>(&'a Polled);

impl<'a> Request<'a> {
    fn new(session: &'a Polled) -> Self {
        session.requests.fetch_add(1, Ordering::AcqRel);
        Self(session)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A poll that is held.
struct Held<'a>(&'a AtomicBool);

impl<'a> Held<'a> {
    fn new(polls: &'a AtomicBool) -> Self {
        polls.store(true, Ordering::Release);
        Self(polls)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
