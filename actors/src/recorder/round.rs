//! One round of a recorder: find, unite, commit, ack.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cql::dead_letter;
use cql::tasks::{self, Found};
use cql::{Commit, Committed, StoreError, Write};
use domain::engine::Engine;
use domain::id::address::{TaskId, TaskKey};
use domain::id::{EventId, ProjectId};
use domain::stats::{self, Contribution};
use domain::task::{Kind, Report, Sighting, State, Task};
use domain::time::Timestamp;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::changes::Topic;
use crate::meters::{self, RecorderMeters};

use super::counters::Counters;
use super::marks::{Marks, Moved};
use super::memory::{Key, Memory};
use super::{Ack, AckSink, Batch, Deletions, Seen, Wiring, Work};

/// Reads under way at once while unknown tasks are looked up.
const READS_AT_ONCE: usize = 64;

pub(super) struct Round<'a> {
    wiring: &'a Wiring,
    memory: &'a mut Memory,
    counters: &'a mut Counters,
    marks: &'a mut Marks,
    meters: &'a mut RecorderMeters,
    now: Timestamp,
    /// Tasks that no commit holds yet, with what was heard of them.
    first: HashMap<Key, FirstSight>,
    /// Known tasks whose stored value changes, and what they counted before.
    touched: HashMap<Key, Option<Contribution>>,
    /// Known tasks that a `received` was added to: it may name their root.
    rooted: HashSet<Key>,
    /// Tasks whose reports did not become durable: their events are not acked.
    failed: HashSet<Key>,
    /// Tasks that have an id but no row: a crash or another home stopped half-way.
    placed: HashMap<Key, TaskId>,
    /// Tasks that were read from a store where a row can be there without what follows it, which is written again.
    repaired: HashSet<Key>,
    aside: Vec<Write>,
}

struct FirstSight {
    engine: Engine,
    task_id: String,
    reports: Vec<Report>,
}

/// First sights, ready to be claimed.
#[derive(Default)]
struct Claims {
    keys: Vec<Key>,
    fresh: Vec<Task>,
    commits: Vec<Commit>,
}

/// An event after it was taken: whose fate it shares.
struct Taken {
    ticket: super::Ticket,
    key: Option<Key>,
    /// What is counted when it is durable and was new.
    counted: Option<(Engine, Kind)>,
    accepted: bool,
}

/// Who is waiting for the round to be durable.
enum Waiting {
    Session {
        sink: Arc<AckSink>,
        since: Instant,
        taken: Vec<Taken>,
    },
    /// Each task spoken of, and whether its deletion hides it.
    Deleter(oneshot::Sender<Deletions>, Vec<(Key, bool)>),
}

impl<'a> Round<'a> {
    pub(super) fn new(
        wiring: &'a Wiring,
        memory: &'a mut Memory,
        counters: &'a mut Counters,
        marks: &'a mut Marks,
        meters: &'a mut RecorderMeters,
    ) -> Self {
        let now = wiring.clock.now();
        Self {
            wiring,
            memory,
            counters,
            marks,
            meters,
            now,
            first: HashMap::new(),
            touched: HashMap::new(),
            rooted: HashSet::new(),
            failed: HashSet::new(),
            placed: HashMap::new(),
            repaired: HashSet::new(),
            aside: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, batches: Vec<Batch>) {
        self.find(&batches).await;
        let mut waiting = Vec::with_capacity(batches.len());
        for Batch { project, work } in batches {
            match work {
                Work::Events { sink, since, items } => {
                    let taken = items.into_iter().map(|item| self.take(project, item)).collect();
                    waiting.push(Waiting::Session { sink, since, taken });
                }
                Work::Deletions { keys, deletion, reply } => {
                    let delete = |key| ((project, key), self.delete((project, key), deletion));
                    waiting.push(Waiting::Deleter(reply, keys.into_iter().map(delete).collect()));
                }
                Work::Lost { tasks } => {
                    for (key, seen_at) in tasks {
                        self.lose((project, key), seen_at);
                    }
                }
                Work::Scheduled(sighting) => drop(self.unite((project, sighting.key), *sighting)),
            }
        }
        let projects: HashSet<ProjectId> = self.first.keys().chain(self.touched.keys()).map(|key| key.0).collect();
        let aside_kept = self.commit().await;
        for project in projects {
            self.wiring.changes.tell(project, Topic::Task);
        }
        for waiting in waiting {
            match waiting {
                Waiting::Session { sink, since, taken } => sink.push(self.acks(taken, aside_kept), since),
                // Whoever asked may have gone; the tasks are deleted all the same.
                Waiting::Deleter(reply, keys) => drop(reply.send(self.deletions(&keys))),
            }
        }
    }

    fn acks(&mut self, taken: Vec<Taken>, aside_kept: bool) -> Vec<Ack> {
        let mut acks = Vec::new();
        for Taken { ticket, key, counted, accepted } in taken {
            if !key.as_ref().map_or(aside_kept, |key| !self.failed.contains(key)) {
                continue;
            }
            if let (true, Some((project, _)), Some((engine, kind))) = (accepted, key, counted) {
                self.meters.event(project, engine, kind);
            }
            acks.extend(ticket.settle(accepted));
        }
        acks
    }

    fn deletions(&self, keys: &[(Key, bool)]) -> Deletions {
        let mut deletions = Deletions::default();
        for (key, hidden) in keys {
            if self.failed.contains(key) {
                deletions.failed.push(key.1);
            } else {
                deletions.hidden += u64::from(*hidden);
            }
        }
        deletions
    }

    /// Brings the tasks that are spoken of into memory, as far as they exist.
    async fn find(&mut self, batches: &[Batch]) {
        let mut unknown = HashSet::new();
        for batch in batches {
            let keys: &mut dyn Iterator<Item = TaskKey> = match &batch.work {
                Work::Events { items, .. } => &mut items.iter().filter_map(|item| match &item.seen {
                    Seen::Report(sighting) => Some(sighting.key),
                    Seen::Unstorable { .. } => None,
                }),
                Work::Deletions { keys, .. } => &mut keys.iter().copied(),
                Work::Lost { tasks } => &mut tasks.iter().map(|(key, _)| *key),
                Work::Scheduled(sighting) => &mut std::iter::once(sighting.key),
            };
            unknown.extend(keys.map(|key| (batch.project, key)).filter(|key| !self.memory.contains(key)));
        }
        let tasks = &self.wiring.tasks;
        let mut found = stream::iter(unknown)
            .map(|key| async move { (key, tasks.find(key.0, key.1).await) })
            .buffer_unordered(READS_AT_ONCE);
        while let Some((key, answer)) = found.next().await {
            match answer {
                Ok(Found::Known(task)) => {
                    self.repair(key, &task);
                    self.memory.insert(key, *task, self.now);
                }
                Ok(Found::Shared(task)) => {
                    self.repair(key, &task);
                    self.memory.insert_shared(key, *task, self.now);
                }
                Ok(Found::Placed(id)) => drop(self.placed.insert(key, id)),
                Ok(Found::Unknown) => {}
                Err(error) => {
                    self.complain(&error, "task not readable, its events wait");
                    self.failed.insert(key);
                }
            }
        }
    }

    /// On a cluster whoever wrote the row may have died before its place in lists and trees: an event of it that is
    /// sent again finds the row, and is not acked before that place is durable.
    fn repair(&mut self, key: Key, task: &Task) {
        let tasks = &self.wiring.tasks;
        if tasks.is_alone() {
            return;
        }
        self.aside.extend(tasks.segment(key.0, task.id(), self.now));
        self.aside.extend(tasks.root(key.0, task, self.now));
        self.repaired.insert(key);
    }

    fn take(&mut self, project: ProjectId, item: super::Item) -> Taken {
        let ticket = item.ticket;
        match item.seen {
            Seen::Report(sighting) => {
                let key = (project, sighting.key);
                let counted = Some((sighting.engine, sighting.report.kind()));
                let accepted = !self.failed.contains(&key) && self.unite(key, *sighting);
                Taken { ticket, key: Some(key), counted, accepted }
            }
            Seen::Unstorable { event, reason } => {
                self.aside.push(dead_letter::put(project, &event, &reason, self.now));
                Taken { ticket, key: None, counted: None, accepted: false }
            }
        }
    }

    /// Hides a task. Returns whether it was visible until this deletion, also when an earlier try of it has hidden
    /// the task and nobody could say: a task that is not durable yet was not visible.
    fn delete(&mut self, key: Key, deletion: EventId) -> bool {
        let Some(task) = self.memory.touch(&key, self.now) else { return false };
        if task.reports().iter().any(|report| report.id() == deletion) {
            return true;
        }
        let before = Contribution::of(task);
        if before.header().hidden {
            return false;
        }
        // What an agent's fast clock dated to the future is deleted too (contract D31: at once).
        let newest = task.reports().last().map_or(self.now, Report::occurred_at);
        let report = Report::deleted(deletion, newest.max(self.now));
        if !task.record(report, self.now).is_write() {
            return false;
        }
        let hidden = task.is_hidden();
        self.touched.entry(key).or_insert(Some(before));
        hidden
    }

    /// Adds a report to its task. Returns whether it was new.
    fn unite(&mut self, key: Key, sighting: Sighting) -> bool {
        if let Some(task) = self.memory.touch(&key, self.now) {
            let before = Contribution::of(task);
            let names_root = sighting.report.kind() == Kind::Received;
            let changed = task.record(sighting.report, self.now).is_write();
            if changed {
                self.touched.entry(key).or_insert(Some(before));
                if names_root {
                    self.rooted.insert(key);
                }
            }
            return changed;
        }
        let first = self.first.entry(key).or_insert_with(|| FirstSight {
            engine: sighting.engine,
            task_id: sighting.task_id,
            reports: Vec::with_capacity(2),
        });
        let known = first.reports.iter().any(|report| report.id() == sighting.report.id());
        // Of two reports with one id the task keeps the smaller, so both are handed on.
        first.reports.push(sighting.report);
        !known
    }

    /// Calls a started task lost, unless something was heard of it meanwhile.
    fn lose(&mut self, key: Key, seen_at: Timestamp) {
        let Some(task) = self.memory.touch(&key, self.now) else { return };
        let before = Contribution::of(task);
        if task.updated_at() != seen_at || before.header().state != State::Started {
            return;
        }
        let report = Report::lost(EventId::mint(self.now), self.now);
        if task.record(report, self.now).is_write() {
            self.touched.entry(key).or_insert(Some(before));
        }
    }

    /// Makes the round durable. Returns whether what was put aside is.
    async fn commit(&mut self) -> bool {
        let Claims { keys, fresh, mut commits } = self.claims();
        let mut writes = std::mem::take(&mut self.aside);
        let (mut moves, mut moved) = (Vec::new(), Vec::new());
        for (key, task) in keys.iter().zip(&fresh) {
            moves.extend(stats::changes(task.id(), None, &Contribution::of(task)).into_iter().map(|by| (key.0, by)));
            moved.push(Moved::first(key.0, task, false));
        }
        for (key, before) in &self.touched {
            if let Some(task) = self.memory.get(key) {
                let changes = stats::changes(task.id(), before.as_ref(), &Contribution::of(task));
                moves.extend(changes.into_iter().map(|by| (key.0, by)));
                let before = before.as_ref().map(|before| *before.header());
                moved.push(Moved { before, ..Moved::first(key.0, task, self.memory.is_shared(key)) });
                writes.extend(self.rows(key, task, before.is_none()));
            }
        }
        // Before the counters, which follow whatever becomes durable.
        match self.mark(&moved).await {
            Ok(marks) => writes.extend(marks),
            Err(error) => {
                self.complain(&error, "tasks not marked, their events wait");
                self.failed.extend(keys);
                self.abandon();
                return false;
            }
        }
        match self.counters.apply(&*self.wiring.store, self.wiring.counter, moves).await {
            Ok(cells) => writes.extend(cells),
            // Counters are a cache of rows; events do not wait for them.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "counters not readable"),
        }
        // One call, so that rows and counters share one atomic batch where the engine has one.
        if !writes.is_empty() {
            commits.push(Commit::unguarded(writes));
        }
        let started = Instant::now();
        let mut outcomes = self.wiring.store.commit(commits).await;
        meters::committed(started.elapsed());
        let written = match outcomes.split_off(keys.len().min(outcomes.len())).pop() {
            Some(Ok(Committed::Done)) | None => true,
            Some(Ok(Committed::Lost(_) | Committed::Unknown)) => false,
            Some(Err(error)) => {
                self.complain(&error, "round not durable, its events wait");
                false
            }
        };
        if !written {
            self.abandon();
        }
        for (key, before) in &self.touched {
            if let Some(task) = self.memory.get(key) {
                self.meters.task(key.0, before.as_ref().map(Contribution::header), task);
            }
        }
        for ((key, task), outcome) in keys.into_iter().zip(fresh).zip(outcomes) {
            self.settle_claim(key, task, outcome).await;
        }
        if written {
            self.marks.settle(&self.wiring.tasks, &*self.wiring.store, self.wiring.counter.recorder).await;
        }
        written
    }

    /// What tasks are found by. On a cluster it is durable when this returns: rows become durable one by one, and
    /// none may before its marks. On the embedded store it has to be written in the batch of the rows.
    async fn mark(&mut self, moved: &[Moved]) -> Result<Vec<Write>, StoreError> {
        let Wiring { tasks, store, counter, .. } = self.wiring;
        let writes = self.marks.apply(tasks, counter.recorder, moved, self.now).await?;
        if tasks.is_alone() {
            return Ok(writes);
        }
        store.write(writes).await?;
        Ok(Vec::new())
    }

    /// The known tasks of this round did not become durable.
    fn abandon(&mut self) {
        self.counters.forget();
        self.marks.forget(&self.wiring.tasks);
        for key in self.touched.drain().map(|(key, _)| key).chain(self.repaired.drain()) {
            self.memory.forget(&key);
            self.failed.insert(key);
        }
    }

    /// The tasks seen for the first time, and the commits that claim their ids. What is too old to be kept is
    /// dropped here, and acked like the rest.
    fn claims(&mut self) -> Claims {
        let mut claims = Claims::default();
        let Wiring { tasks, layout, .. } = self.wiring;
        for (key, sight) in std::mem::take(&mut self.first) {
            let FirstSight { engine, task_id, reports } = sight;
            // A first sight holds at least the report that made it.
            let Some(task) = Task::first(engine, &task_id, reports, *layout, tasks.retention_secs(), self.now) else {
                continue;
            };
            if let Some(id) = self.placed.remove(&key) {
                let task = task.moved_to(id);
                // Whoever placed it may be about to write its row.
                if tasks.is_alone() {
                    self.memory.insert(key, task, self.now);
                } else {
                    self.memory.insert_shared(key, task, self.now);
                }
                self.touched.insert(key, None);
            } else if let Some(mut commit) = tasks.first_sight(key.0, &task, self.now) {
                self.marks.trim(key.0, task.id(), &mut commit.follow);
                claims.commits.push(commit);
                claims.keys.push(key);
                claims.fresh.push(task);
            }
        }
        claims
    }

    /// What is written of a task that has its id.
    fn rows(&self, key: &Key, task: &Task, is_first: bool) -> Vec<Write> {
        let tasks = &self.wiring.tasks;
        if is_first {
            return tasks.rows(key.0, task, self.now).unwrap_or_default();
        }
        let row = tasks.rewrite(key.0, task, self.now);
        // A late `received` is the first to name the root.
        let root =
            (task.root_task_id().is_some() && self.rooted.contains(key)).then(|| tasks.root(key.0, task, self.now));
        row.into_iter().chain(root.flatten()).collect()
    }

    /// Says what fails, not how often: events come by the thousand.
    fn complain(&self, error: &StoreError, what: &'static str) {
        if self.wiring.complaint.is_due() {
            tracing::warn!(error = error as &dyn std::error::Error, "{what}");
        }
    }

    async fn settle_claim(&mut self, key: Key, task: Task, outcome: Result<Committed, StoreError>) {
        let settled = match outcome {
            Ok(Committed::Done) => {
                self.meters.task(key.0, None, &task);
                self.marks.note(key.0, task.id());
                self.memory.insert(key, task, self.now);
                return;
            }
            Ok(Committed::Lost(rows)) => match tasks::taken_by(&rows) {
                Ok(id) => self.join_winner(key, task, id).await.map(Some),
                Err(error) => Err(error),
            },
            Ok(Committed::Unknown) => Ok(None),
            Err(error) => Err(error),
        };
        match settled {
            Ok(Some(task)) => {
                self.meters.task(key.0, None, &task);
                self.memory.insert_shared(key, task, self.now);
                return;
            }
            Ok(None) => {}
            Err(error) => self.complain(&error, "task not durable, its events wait"),
        }
        self.counters.forget();
        self.marks.forget(&self.wiring.tasks);
        self.failed.insert(key);
    }

    /// Another first commit won: what was heard here goes under the winner's id (I-2).
    async fn join_winner(&mut self, key: Key, mine: Task, id: TaskId) -> Result<Task, StoreError> {
        let Wiring { tasks, store, .. } = self.wiring;
        self.marks.withdraw(key.0, mine.id());
        let mut task = mine.moved_to(id);
        if let Some(theirs) = tasks.load(key.0, id).await? {
            task.unite(theirs);
        }
        let mut rows = self.mark(&[Moved::first(key.0, &task, true)]).await?;
        rows.extend(tasks.rows(key.0, &task, self.now).unwrap_or_default());
        if !rows.is_empty() {
            store.write(rows).await?;
        }
        Ok(task)
    }
}
