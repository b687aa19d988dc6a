//! Reports: single things that were said about a task, and how an agent's event becomes one.
//!
//! A report is packed once, when it is heard, and from then on copied as bytes; beside the bytes stands what its
//! body says, once somebody asked for it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::body::{self, Body, Member};
use super::kind::Kind;
use super::limit;
use super::pack::{self, Malformed, Reader};
use super::priority::Priority;
use super::said::{Said, Span, token};
use crate::engine::Engine;
use crate::id::address::TaskKey;
use crate::id::derived::derived;
use crate::id::{AgentId, EventId};
use crate::redact;
use crate::time::Timestamp;

/// The longest engine task id we store (contract M85).
pub const TASK_ID_CHARS_MAX: usize = 200;
/// Events older than this are dated to it (DESIGN 2).
const PAST_MAX_SECS: i64 = 400 * 86_400;
/// Events further ahead than this are dated to it.
pub(super) const FUTURE_MAX_SECS: i64 = 60;
/// The scope of events' ids that are derived because their own is not a UUID; fixed for ever.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x7468_616c_616d_5573_8576_656e_7469_6431);

/// Who told us: one worker process of one agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reporter {
    pub agent: AgentId,
    /// The process, as its hello named it.
    pub worker_id: Option<Arc<str>>,
}

/// An event as the wire carries it: any member may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFields<'a> {
    pub id: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub engine: Option<&'a str>,
    pub task_id: Option<&'a str>,
    pub occurred_at: Option<&'a str>,
    /// Raw JSON.
    pub data: Option<&'a str>,
}

/// Why an event can never be stored as a task's report. It is acked all the same (WIRE 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    #[error("no engine")]
    NoEngine,
    #[error("unknown engine")]
    UnknownEngine,
    #[error("no kind")]
    NoKind,
    /// Also `worker.*`, `queue.*` and `schedule.*`, which speak of no task.
    #[error("not a task event")]
    NotATask,
    #[error("no task id")]
    NoTaskId,
    #[error("task id too long")]
    TaskIdTooLong,
    /// No path could ever name it.
    #[error("task id holds a NUL")]
    TaskIdNul,
}

/// One report, and the task it is about.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub engine: Engine,
    pub task_id: String,
    pub key: TaskKey,
    pub report: Report,
}

impl Sighting {
    /// Scrubs and packs one event.
    pub fn from_event(event: &EventFields<'_>, reporter: &Reporter, now: Timestamp) -> Result<Self, Unstorable> {
        let engine = event.engine.filter(|engine| !engine.is_empty()).ok_or(Unstorable::NoEngine)?;
        let kind = event.kind.filter(|kind| !kind.is_empty()).ok_or(Unstorable::NoKind)?;
        let engine: Engine = engine.parse().map_err(|_| Unstorable::UnknownEngine)?;
        let kind = Kind::from_wire(kind).ok_or(Unstorable::NotATask)?;
        let task_id = event.task_id.filter(|id| !id.is_empty()).ok_or(Unstorable::NoTaskId)?;
        if task_id.len() > TASK_ID_CHARS_MAX && task_id.chars().count() > TASK_ID_CHARS_MAX {
            return Err(Unstorable::TaskIdTooLong);
        }
        if task_id.contains('\0') {
            return Err(Unstorable::TaskIdNul);
        }
        let data = redact::event_data(event.data.unwrap_or("{}"));
        let body = limit::shorten(&data, limit::BODY_BYTES_MAX);
        let occurred_at = occurred_at(event.occurred_at, now);
        let draft = Draft {
            id: event_id(event, task_id),
            agent: reporter.agent,
            worker_id: reporter.worker_id.as_deref(),
            kind,
            occurred_at,
            body: Some(&body),
            cut: matches!(body, Cow::Owned(_)),
            worker: None,
        };
        let report = Report::pack(&draft);
        Ok(Self { engine, key: TaskKey::new(engine, task_id), task_id: task_id.to_owned(), report })
    }
}

/// When the event says it happened: no offset means UTC, unreadable means now, and what is out of range is
/// dated to the nearer bound. Nothing else ever rewrites it.
fn occurred_at(text: Option<&str>, now: Timestamp) -> Timestamp {
    text.and_then(stated_at).map_or(now, |at| at.clamp(now.plus_secs(-PAST_MAX_SECS), now.plus_secs(FUTURE_MAX_SECS)))
}

/// The time an event states, UTC when it has no offset.
fn stated_at(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|_| Timestamp::parse(&format!("{text}Z"))).ok()
}

/// The event's own id, or one that a re-send of the same event yields again: with the event's time where no own id
/// stands for it, else with none, for what has one id is one event whatever else it says.
fn event_id(event: &EventFields<'_>, task_id: &str) -> EventId {
    let own = event.id.unwrap_or("");
    if let Ok(id) = own.parse() {
        return id;
    }
    let uuid = if own.is_empty() {
        let at = event.occurred_at.and_then(stated_at).unwrap_or(Timestamp::EPOCH);
        let parts = [event.engine, event.kind, Some(task_id), event.occurred_at, event.data];
        let name = parts.map(|part| part.unwrap_or("")).join("\0");
        derived(at, EVENT_NAMESPACE, name)
    } else {
        derived(Timestamp::EPOCH, EVENT_NAMESPACE, own)
    };
    EventId::from_uuid(uuid)
}

/// What goes into a packed report.
struct Draft<'a> {
    id: EventId,
    agent: AgentId,
    worker_id: Option<&'a str>,
    kind: Kind,
    occurred_at: Timestamp,
    body: Option<&'a str>,
    cut: bool,
    /// The worker's JSON token, kept when the body is not.
    worker: Option<&'a str>,
}

/// One thing that was said about a task; never changed afterwards.
#[derive(Clone)]
pub struct Report {
    packed: Bytes,
    id: EventId,
    agent: AgentId,
    kind: Kind,
    occurred_at: Timestamp,
    worker_id: Span,
    body: Span,
    /// The worker's JSON token, kept when the body is not.
    worker: Span,
    said: OnceLock<Said>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies hold users' arguments, which no log may show.
        write!(f, "Report({} {} at {} by {})", self.id, self.kind, self.occurred_at, self.agent)
    }
}

/// Two reports are equal when all that was said is.
impl PartialEq for Report {
    fn eq(&self, other: &Self) -> bool {
        self.packed == other.packed
    }
}

impl Eq for Report {}

impl Report {
    /// Our own report that a started task's worker is gone (contract D33). Any later report beats it.
    pub fn lost(id: EventId, at: Timestamp) -> Self {
        Self::ours(id, Kind::Lost, at, "{}")
    }

    /// Our own report that an operator deleted the task (contract D31).
    pub fn deleted(id: EventId, at: Timestamp) -> Self {
        Self::ours(id, Kind::Deleted, at, "{}")
    }

    /// Our own report that a command scheduled the task; `data` may carry `task_name`, `queue`, `priority`, `eta`.
    pub fn scheduled(id: EventId, at: Timestamp, data: &str) -> Self {
        Self::ours(id, Kind::Scheduled, at, &redact::event_data(data))
    }

    fn ours(id: EventId, kind: Kind, occurred_at: Timestamp, body: &str) -> Self {
        let draft = Draft {
            id,
            agent: AgentId::NIL,
            worker_id: None,
            kind,
            occurred_at,
            body: Some(body),
            cut: false,
            worker: None,
        };
        Self::pack(&draft)
    }

    pub const fn id(&self) -> EventId {
        self.id
    }

    /// The agent that told us; the nil id for our own reports.
    pub const fn agent(&self) -> AgentId {
        self.agent
    }

    pub const fn kind(&self) -> Kind {
        self.kind
    }

    pub const fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    /// The process that told us, as its hello named it.
    pub fn worker_id(&self) -> Option<&str> {
        self.worker_id.text(&self.packed)
    }

    /// The event's `data` as JSON text, scrubbed; `None` when it was dropped to bound the task's size.
    pub fn body(&self) -> Option<&str> {
        self.body.text(&self.packed)
    }

    /// The engine worker the event names (`data.worker`).
    pub fn worker(&self) -> Option<Cow<'_, str>> {
        if self.body.is_absent() {
            return self.worker.text(&self.packed).and_then(body::unquote);
        }
        self.said().text(Member::Worker, &self.packed)
    }

    /// The queue the event names, as a user knows it.
    pub fn queue(&self, engine: Engine) -> Option<Cow<'_, str>> {
        self.said().text(Member::Queue, &self.packed).map(|queue| user_queue(engine, queue))
    }

    /// The task's name, placeholder or real.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        self.said().text(Member::TaskName, &self.packed)
    }

    /// The root of the tree the event speaks of, the task itself included.
    pub(super) fn root(&self) -> Option<Cow<'_, str>> {
        self.said().text(Member::RootTaskId, &self.packed)
    }

    /// Whether it has a name that is no placeholder.
    pub(super) fn has_name(&self) -> bool {
        self.said().has_name
    }

    pub(super) fn has_queue(&self) -> bool {
        self.said().has_queue
    }

    pub(super) fn priority(&self) -> Option<Priority> {
        self.said().priority
    }

    /// What the engine measured.
    pub(super) fn runtime_ms(&self) -> Option<u32> {
        self.said().runtime_ms
    }

    /// A member of the body, as its JSON text.
    pub(super) fn member(&self, member: Member) -> Option<&str> {
        self.said().member(member, &self.packed)
    }

    /// The members of the body.
    pub(super) fn read(&self) -> Body<'_> {
        self.body().map(Body::read).unwrap_or_default()
    }

    fn said(&self) -> &Said {
        self.said.get_or_init(|| Said::read(self.body(), &self.packed))
    }

    pub(super) fn packed(&self) -> &[u8] {
        &self.packed
    }

    pub(super) const fn body_bytes(&self) -> usize {
        self.body.length()
    }

    /// Order within a task.
    pub(super) const fn place(&self) -> (Timestamp, EventId) {
        (self.occurred_at, self.id)
    }

    /// Whether both came from one process over one channel (in-process signal or broker stream).
    pub(super) fn same_source(&self, other: &Self) -> bool {
        self.agent == other.agent
            && self.worker_token().is_some() == other.worker_token().is_some()
            && self.worker_id() == other.worker_id()
    }

    /// Which of two reports with one event id stays: the smaller by (reporter, occurred_at, hash of the body).
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        self.agent
            .cmp(&other.agent)
            .then_with(|| self.worker_id().cmp(&other.worker_id()))
            .then_with(|| self.occurred_at.cmp(&other.occurred_at))
            .then_with(|| match (self.body(), other.body()) {
                (Some(mine), Some(theirs)) if mine != theirs => {
                    Sha256::digest(mine).as_slice().cmp(Sha256::digest(theirs).as_slice())
                }
                // A dropped body says nothing about which report is the smaller: they are one report.
                (Some(_) | None, Some(_) | None) => Ordering::Equal,
            })
            .then_with(|| self.kind.cmp(&other.kind))
    }

    /// The JSON token of the worker's name.
    fn worker_token(&self) -> Option<&str> {
        if self.body.is_absent() { self.worker.text(&self.packed) } else { token(self.member(Member::Worker)) }
    }

    /// The same report without its body; what grouping needs stays.
    pub(super) fn without_body(&self) -> Self {
        let draft = Draft {
            id: self.id,
            agent: self.agent,
            worker_id: self.worker_id(),
            kind: self.kind,
            occurred_at: self.occurred_at,
            body: None,
            cut: true,
            worker: self.worker_token(),
        };
        Self::pack(&draft)
    }

    fn pack(draft: &Draft<'_>) -> Self {
        let body_bytes = draft.body.map_or(0, str::len);
        let mut out = Vec::with_capacity(96 + draft.worker_id.map_or(0, str::len) + body_bytes);
        let optional = [draft.worker_id.is_some(), draft.body.is_some(), draft.cut, draft.worker.is_some()];
        pack::map(&mut out, 4 + optional.into_iter().map(u8::from).sum::<u8>());
        pack::str(&mut out, "i");
        pack::bin16(&mut out, &draft.id.bytes());
        pack::str(&mut out, "a");
        pack::bin16(&mut out, &draft.agent.bytes());
        pack::str(&mut out, "k");
        pack::u8(&mut out, draft.kind.tag());
        pack::str(&mut out, "o");
        pack::i64(&mut out, draft.occurred_at.micros());
        if let Some(worker_id) = draft.worker_id {
            pack::str(&mut out, "p");
            pack::str(&mut out, worker_id);
        }
        if let Some(worker) = draft.worker {
            pack::str(&mut out, "w");
            pack::str(&mut out, worker);
        }
        if let Some(body) = draft.body {
            pack::str(&mut out, "b");
            pack::str(&mut out, body);
        }
        if draft.cut {
            pack::str(&mut out, "c");
            pack::bool(&mut out, true);
        }
        Self::unpack(Bytes::from(out)).expect("what was just packed is whole")
    }

    /// Reads a packed report; members that a later version may add are kept and skipped.
    pub(super) fn unpack(packed: Bytes) -> Result<Self, Malformed> {
        let (mut id, mut agent, mut kind, mut occurred_at) = (None, None, None, None);
        let (mut worker_id, mut worker, mut json) = (None, None, None);
        let mut reader = Reader::new(&packed);
        for _ in 0..reader.map()? {
            match reader.name()? {
                b"i" => id = Some(EventId::from_bytes(reader.bin16()?)),
                b"a" => agent = Some(AgentId::from_bytes(reader.bin16()?)),
                b"k" => kind = Some(Kind::from_tag(reader.u8()?).ok_or(Malformed)?),
                b"o" => occurred_at = Some(Timestamp::from_micros(reader.i64()?)),
                b"p" => worker_id = Some(reader.str()?),
                b"w" => worker = Some(reader.str()?),
                b"b" => json = Some(reader.str()?),
                _ => reader.skip()?,
            }
        }
        if !reader.is_done() {
            return Err(Malformed);
        }
        let (Some(id), Some(agent), Some(kind), Some(occurred_at)) = (id, agent, kind, occurred_at) else {
            return Err(Malformed);
        };
        let span = |part: Option<&str>| part.map_or_else(Span::default, |part| Span::of(part, &packed));
        let (worker_id, worker, body) = (span(worker_id), span(worker), span(json));
        Ok(Self { id, agent, kind, occurred_at, worker_id, body, worker, said: OnceLock::new(), packed })
    }
}

/// The 64-bit hash of a text in headers; 0 is kept for "none".
pub(crate) fn hash64(text: &str) -> u64 {
    let hash = Sha256::digest(text);
    let mut head = [0; 8];
    head.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(head).max(1)
}

/// Dramatiq waits with a retry in `<queue>.DQ`: to a user that is the same queue.
fn user_queue(engine: Engine, queue: Cow<'_, str>) -> Cow<'_, str> {
    match (engine, queue) {
        (Engine::Dramatiq, Cow::Borrowed(queue)) => Cow::Borrowed(queue.strip_suffix(".DQ").unwrap_or(queue)),
        (Engine::Dramatiq, Cow::Owned(queue)) => {
            Cow::Owned(queue.strip_suffix(".DQ").map(str::to_owned).unwrap_or(queue))
        }
        (Engine::Celery | Engine::Rq | Engine::Huey | Engine::Arq | Engine::Taskiq, queue) => queue,
    }
}
