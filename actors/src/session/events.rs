//! From verified event batches to recorders: one send per recorder and wake-up.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use domain::engine::Engine;
use domain::id::ProjectId;
use domain::id::address::{Shard, TaskKey};
use domain::redact;
use domain::task::{EventFields, Kind, Reporter, Sighting};
use domain::time::Timestamp;
use domain::wire::{EventBatch, EventItem};
use tokio::time::Instant;

use super::SessionFacts;
use crate::presence::{EventTally, Presence};
use crate::recorder::{Ack, AckSink, Batch, Item, Recorders, Seen, Tally, Ticket, Work};

/// Frames under way per session beyond which more are left for the agent to send again. A real agent stops at 256.
const FRAMES_UNDER_WAY_MAX: u32 = 1024;
/// So many `received` without a named worker are passed on as they come.
const SILENT_RECEIVED_MAX: u64 = 100;
/// A name is passed on at most this often.
const TELL_EVERY_MICROS: i64 = 1_000_000;
/// Names remembered as told.
const TOLD_MAX: usize = 1_000;
/// An event that can never be stored is kept up to this size.
const ASIDE_BYTES_MAX: usize = 16 << 10;

/// Event frames of one session on their way to the disk.
pub(super) struct Events {
    project: ProjectId,
    facts: Arc<SessionFacts>,
    reporter: Reporter,
    recorders: Recorders,
    presence: Presence,
    sink: Arc<AckSink>,
    /// What was heard since the last hand-over, by recorder.
    gathered: Vec<Vec<Item>>,
    /// When the first of what was gathered was taken from the wire.
    since: Option<Instant>,
    under_way: u32,
    tally: EventTally,
    /// Workers and queues that events named, and when presence was told last.
    told: HashMap<Name, Timestamp>,
}

/// What an event named.
#[derive(PartialEq, Eq, Hash)]
enum Name {
    Worker(Engine, Box<str>),
    Queue(Engine, Box<str>),
}

impl Events {
    pub(super) fn new(facts: Arc<SessionFacts>, recorders: Recorders, presence: Presence) -> Self {
        Self {
            project: facts.project,
            reporter: Reporter { agent: facts.agent, worker_id: facts.worker_id.as_deref().map(Arc::from) },
            facts,
            gathered: Vec::new(),
            recorders,
            presence,
            sink: Arc::new(AckSink::default()),
            since: None,
            under_way: 0,
            tally: EventTally::default(),
            told: HashMap::new(),
        }
    }

    /// What was counted of the session's events so far.
    pub(super) fn tally(&self) -> EventTally {
        self.tally
    }

    pub(super) fn sink(&self) -> Arc<AckSink> {
        self.sink.clone()
    }

    /// Frames not acked yet.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    pub(super) fn acked(&mut self, frames: usize) {
        self.under_way = self.under_way.saturating_sub(u32::try_from(frames).unwrap_or(u32::MAX));
    }

    /// Takes a frame's events in. Nothing waits here.
    pub(super) fn take(&mut self, batch: &EventBatch<'_>, now: Timestamp) {
        if self.under_way >= FRAMES_UNDER_WAY_MAX {
            metrics::counter!("thalamus_frames_left_total").increment(1);
            return;
        }
        self.under_way += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        let received = u32::try_from(batch.received()).unwrap_or(u32::MAX);
        if batch.events.is_empty() {
            self.sink.push(vec![Ack { id: batch.id.as_ref().into(), received, accepted: 0 }], since);
            return;
        }
        if let ([event], 0) = (&batch.events[..], batch.malformed) {
            self.gather(event, Ticket::Whole(batch.id.as_ref().into()), now);
            return;
        }
        let open = u32::try_from(batch.events.len()).unwrap_or(u32::MAX);
        let tally = Tally::new(batch.id.as_ref().into(), received, open);
        for event in &batch.events {
            self.gather(event, Ticket::Part(tally.clone()), now);
        }
    }

    fn gather(&mut self, event: &EventItem<'_>, ticket: Ticket, now: Timestamp) {
        let fields = EventFields {
            id: event.id.as_deref(),
            kind: event.kind.as_deref(),
            engine: event.engine.as_deref(),
            task_id: event.task_id.as_deref(),
            occurred_at: event.occurred_at.as_deref(),
            data: event.data.map(|data| data.get()),
        };
        let (shard, seen) = match Sighting::from_event(&fields, &self.reporter, now) {
            Ok(sighting) => {
                self.notice(&sighting, now);
                (Shard::of_key(self.project, sighting.key), Seen::Report(Box::new(sighting)))
            }
            Err(reason) => {
                let event = render(&fields);
                (
                    Shard::of_key(self.project, TaskKey::from_bytes([0; 16])),
                    Seen::Unstorable { event: event.into(), reason: reason.to_string().into() },
                )
            }
        };
        let recorder = self.recorders.of(shard);
        if self.gathered.is_empty() {
            self.gathered.resize_with(self.recorders.count(), Vec::new);
        }
        self.gathered[recorder].push(Item { ticket, seen });
    }

    /// Workers and queues that events name.
    fn notice(&mut self, sighting: &Sighting, now: Timestamp) {
        let (report, engine) = (&sighting.report, sighting.engine);
        if report.kind() == Kind::Received {
            self.tally.received += 1;
            self.tally.first_received_at.get_or_insert(now);
        }
        if let Some(worker) = report.worker() {
            self.tally.named_worker += 1;
            if self.is_news(Name::Worker(engine, worker.as_ref().into()), now) {
                self.presence.worker_named(&self.facts, engine, &worker, now);
            }
        }
        if let Some(queue) = report.queue(engine)
            && self.is_news(Name::Queue(engine, queue.as_ref().into()), now)
        {
            self.presence.queue_named(&self.facts, engine, &queue, now);
        }
    }

    /// Presence is told of a name once a second, not once an event.
    fn is_news(&mut self, name: Name, now: Timestamp) -> bool {
        if let Some(told) = self.told.get_mut(&name) {
            let news = now.since(*told) >= TELL_EVERY_MICROS;
            if news {
                *told = now;
            }
            return news;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(name, now);
        true
    }

    /// Hands what was gathered to the recorders. Waits while they are behind; the socket waits with it.
    pub(super) async fn hand_over(&mut self) {
        let since = self.since.take().unwrap_or_else(Instant::now);
        for recorder in 0..self.gathered.len() {
            if self.gathered[recorder].is_empty() {
                continue;
            }
            let items = std::mem::take(&mut self.gathered[recorder]);
            let work = Work::Events { sink: self.sink.clone(), since, items };
            self.recorders.send(recorder, Batch { project: self.project, work }).await;
        }
        // A worker without -E is to be told soon; once a worker is named, heartbeats are often enough.
        if self.tally.named_worker == 0 && (1..=SILENT_RECEIVED_MAX).contains(&self.tally.received) {
            self.presence.counted(&self.facts, self.tally);
        }
        // An idle session keeps nothing.
        self.gathered = Vec::new();
    }
}

/// An event as it came, scrubbed and cut, for the record of what could not be stored.
fn render(fields: &EventFields<'_>) -> String {
    let data = fields.data.map_or(Cow::Borrowed("null"), redact::json);
    let names = [fields.id, fields.kind, fields.engine, fields.task_id, fields.occurred_at];
    let [id, kind, engine, task_id, occurred_at] = names.map(|name| name.map(redact::text));
    let text = format!("{id:?} {kind:?} {engine:?} {task_id:?} {occurred_at:?} {data}");
    text.chars().take(ASIDE_BYTES_MAX / 4).collect()
}
