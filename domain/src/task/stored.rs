//! A task as it is stored: what was heard, and the header that follows.
//!
//! `0x01 | header (64) | MessagePack {"t": task id, "r": [report, ..]}`. The reports stand in the order of
//! (occurred_at, event id); the engine stands in the header, the id in the key. A report is a map: "i" event
//! id, "a" agent, "k" kind, "o" occurred_at, "p" the reporting process, "b" body as JSON text, "c" the body
//! was cut or dropped, "w" the worker when the body was dropped.

use std::borrow::Cow;

use bytes::Bytes;

use super::derive::{self, Outline};
use super::group::Grouping;
use super::header::{self, BadValue, Header};
use super::kind::Kind;
use super::limit;
use super::pack::{self, Malformed, Reader};
use super::report::{FUTURE_MAX_SECS, Report, hash64};
use super::row::{self, Parts, TaskEvent, TaskRow};
use crate::engine::Engine;
use crate::id::ProjectId;
use crate::id::address::{Layout, TaskId, TaskKey};
use crate::time::Timestamp;

/// What recording a report did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was known, or belongs to what was deleted: there is nothing to write.
    Nothing,
    /// It is kept, because later reports are grouped by it; no reader sees a difference.
    Joined,
    /// The row or the history changed, and with them `updated_at`.
    Changed,
}

impl Recorded {
    /// Whether the stored value is no longer what it was.
    pub const fn is_write(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Joined | Self::Changed => true,
        }
    }
}

/// What became of a report that was put into the set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inserted {
    Not,
    New,
    /// It took the place of a larger report with its event id.
    Instead,
}

/// A task: its reports, and what follows from them.
#[derive(Clone, Debug)]
pub struct Task {
    id: TaskId,
    task_id: Box<str>,
    reports: Vec<Report>,
    grouping: Grouping,
    deleted_at: Option<Timestamp>,
    body_bytes: usize,
    header: Header,
}

/// Equal as stored.
impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.task_id == other.task_id
            && self.header == other.header
            && self.reports == other.reports
    }
}

impl Task {
    /// The task of a first commit: its id is fixed here, from the smallest `occurred_at` of the commit's
    /// reports, clamped to [now - retention, now + 60 s] (contract D5).
    ///
    /// `None` without a report.
    pub fn first(
        engine: Engine,
        task_id: &str,
        reports: Vec<Report>,
        layout: Layout,
        retention_secs: i64,
        now: Timestamp,
    ) -> Option<Self> {
        let earliest = reports.iter().map(Report::occurred_at).min()?;
        let received_at = earliest.clamp(now.plus_secs(-retention_secs), now.plus_secs(FUTURE_MAX_SECS));
        let id = TaskId::new(received_at, layout, TaskKey::new(engine, task_id));
        let mut task = Self::empty(id, engine, task_id, now, now);
        for report in reports {
            task.insert(report);
        }
        task.settle();
        Some(task)
    }

    fn empty(id: TaskId, engine: Engine, task_id: &str, created_at: Timestamp, updated_at: Timestamp) -> Self {
        let header = Header {
            state: super::State::Received,
            priority: super::Priority::Normal,
            engine,
            hidden: false,
            history_truncated: false,
            retry_count: 0,
            finished_at: None,
            runtime_ms: None,
            name: 0,
            queue: 0,
            worker: 0,
            created_at,
            updated_at,
        };
        Self {
            id,
            task_id: task_id.into(),
            reports: Vec::new(),
            grouping: Grouping::default(),
            deleted_at: None,
            body_bytes: 0,
            header,
        }
    }

    pub const fn id(&self) -> TaskId {
        self.id
    }

    pub const fn engine(&self) -> Engine {
        self.header.engine
    }

    pub fn task_id(&self) -> &str {
        &self.task_id
    }

    pub fn key(&self) -> TaskKey {
        TaskKey::new(self.header.engine, &self.task_id)
    }

    pub const fn created_at(&self) -> Timestamp {
        self.header.created_at
    }

    pub const fn updated_at(&self) -> Timestamp {
        self.header.updated_at
    }

    /// What was heard, in the order of (occurred_at, event id).
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// When it was retried, and the hash of the worker that said so, 0 = none; as many as the header counts.
    pub fn retries(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        let of_kind = |kind: Kind| {
            let groups = self.grouping.groups.iter().enumerate();
            groups.filter(move |(_, group)| group.kind == kind)
        };
        let said = of_kind(Kind::Retried).count();
        // Where nothing else tells of a retry, the starts beyond the first do.
        let (kind, skipped) =
            if said < self.header.retry_count as usize { (Kind::Started, 1) } else { (Kind::Retried, 0) };
        let worker = |group| self.grouping.worker(group, &self.reports).map_or(0, |worker| hash64(&worker));
        of_kind(kind).skip(skipped).map(move |(index, group)| (group.at, worker(index)))
    }

    /// Deleted, and not run again since.
    pub const fn is_hidden(&self) -> bool {
        self.header.hidden
    }

    /// When the task was deleted last; such a value must outlive the values of other writers.
    pub const fn deleted_at(&self) -> Option<Timestamp> {
        self.deleted_at
    }

    /// The same task under the id that another first commit won with.
    pub fn moved_to(mut self, id: TaskId) -> Self {
        self.id = id;
        self
    }

    /// The engine task id of the tree's root, when that is not this task.
    pub fn root_task_id(&self) -> Option<String> {
        row::root_of(self)
    }

    /// Adds one report.
    pub fn record(&mut self, report: Report, now: Timestamp) -> Recorded {
        let place = report.place();
        let before: Vec<_> = self.grouping.groups.iter().map(|group| group.id).collect();
        let inserted = self.insert(report);
        if inserted == Inserted::Not {
            return Recorded::Nothing;
        }
        self.settle();
        let unchanged = before.iter().copied().eq(self.grouping.groups.iter().map(|group| group.id));
        if inserted == Inserted::New && unchanged && self.is_silent(place) {
            return Recorded::Joined;
        }
        self.header.updated_at = now.max(self.header.updated_at.plus_micros(1));
        Recorded::Changed
    }

    /// Takes over everything another writer's value of the same task holds.
    pub fn unite(&mut self, other: Self) {
        self.header.created_at = self.header.created_at.min(other.header.created_at);
        self.header.updated_at = self.header.updated_at.max(other.header.updated_at);
        self.header.history_truncated |= other.header.history_truncated;
        let mut grew = false;
        for report in other.reports {
            grew |= self.insert(report) != Inserted::Not;
        }
        if grew {
            self.settle();
        }
    }

    /// The row that readers see.
    pub fn row(&self, project: ProjectId) -> TaskRow {
        self.row_of(project, Parts::ALL)
    }

    /// The row with the parts that are wanted; the others are as if nothing was heard of them.
    pub fn row_of(&self, project: ProjectId, parts: Parts) -> TaskRow {
        TaskRow::derive(self, project, &self.grouping, parts)
    }

    /// The task's events, newest first, one for each physical event.
    pub fn events(&self, project: ProjectId) -> Vec<TaskEvent> {
        TaskEvent::derive(self, project, &self.grouping)
    }

    /// Appends the stored value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let packed: usize = self.reports.iter().map(|report| report.packed().len()).sum();
        out.reserve(header::LENGTH + self.task_id.len() + packed + 24);
        self.header.write(out);
        pack::map(out, 2);
        pack::str(out, "t");
        pack::str(out, &self.task_id);
        pack::str(out, "r");
        pack::array(out, self.reports.len());
        for report in &self.reports {
            out.extend_from_slice(report.packed());
        }
    }

    /// The stored value.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Reads a stored value; the bytes of its reports are shared, not copied.
    pub fn decode(id: TaskId, value: &Bytes) -> Result<Self, BadValue> {
        let header = Header::read(value)?;
        let body = value.slice(header::LENGTH..);
        Self::unpack(id, header, &body).map_err(|Malformed| BadValue)
    }

    fn unpack(id: TaskId, header: Header, body: &Bytes) -> Result<Self, Malformed> {
        let mut task = Self::empty(id, header.engine, "", header.created_at, header.updated_at);
        task.header = header;
        let mut reader = Reader::new(body);
        for _ in 0..reader.map()? {
            match reader.name()? {
                b"t" => task.task_id = reader.str()?.into(),
                b"r" => {
                    let count = reader.array()?;
                    // The count is not to be believed: a report takes some bytes.
                    task.reports.reserve_exact(count.min(body.len() / 32));
                    for _ in 0..count {
                        let start = reader.at();
                        reader.skip()?;
                        let report = Report::unpack(body.slice(start..reader.at()))?;
                        if task.reports.last().is_some_and(|last| last.place() >= report.place()) {
                            return Err(Malformed);
                        }
                        task.body_bytes += report.body_bytes();
                        task.reports.push(report);
                    }
                }
                _ => reader.skip()?,
            }
        }
        if !reader.is_done() || task.task_id.is_empty() || task.reports.is_empty() {
            return Err(Malformed);
        }
        task.deleted_at = derive::deleted_at(&task.reports);
        task.grouping = Grouping::new(header.engine, &task.reports);
        Ok(task)
    }

    /// Puts a report into the set.
    fn insert(&mut self, report: Report) -> Inserted {
        if self.deleted_at.is_some_and(|cut| derive::is_cut(&report, cut)) {
            return Inserted::Not;
        }
        let mut inserted = Inserted::New;
        if let Some(known) = self.reports.iter().position(|known| known.id() == report.id()) {
            if !report.precedence(&self.reports[known]).is_lt() {
                return Inserted::Not;
            }
            self.body_bytes -= self.reports.remove(known).body_bytes();
            inserted = Inserted::Instead;
        }
        let place = self.reports.partition_point(|known| known.place() < report.place());
        if report.kind() == Kind::Deleted {
            self.deleted_at = Some(report.occurred_at());
        }
        self.body_bytes += report.body_bytes();
        self.reports.insert(place, report);
        inserted
    }

    /// Brings everything that follows from the set of reports up to date.
    fn settle(&mut self) {
        if let Some(cut) = self.deleted_at {
            self.reports.retain(|report| !derive::is_cut(report, cut));
        }
        if self.reports.len() > limit::BODIES_MAX || self.body_bytes > limit::BODIES_BYTES_MAX {
            self.bound();
        }
        self.grouping = Grouping::new(self.header.engine, &self.reports);
        let outline = Outline::new(self.header.engine, &self.reports, &self.grouping);
        let engine = self.header.engine;
        let hash = |text: Option<Cow<'_, str>>| text.map_or(0, |text| hash64(&text));
        let of = |index: Option<usize>| index.map(|index| &self.reports[index]);
        self.header.state = outline.state;
        self.header.hidden = outline.hidden;
        self.header.priority = outline.priority;
        self.header.retry_count = outline.retry_count;
        self.header.finished_at = outline.finished_at;
        self.header.runtime_ms = outline.runtime_ms;
        self.header.name = hash(of(outline.name).and_then(Report::name));
        self.header.queue = hash(of(outline.queue).and_then(|report| report.queue(engine)));
        self.header.worker = hash(of(outline.worker).and_then(Report::worker));
    }

    /// Keeps the newest reports and bodies within the limits, and always the first `received` and a deletion.
    /// What a smaller set has dropped a larger one drops too, so the order of arrival does not show.
    fn bound(&mut self) {
        let first_received = self.reports.iter().find(|report| report.kind() == Kind::Received).map(Report::id);
        let exempt = |report: &Report| Some(report.id()) == first_received || report.kind() == Kind::Deleted;
        let (mut reports, mut bytes, mut full) = (0, 0, false);
        let mut kept = Vec::with_capacity(self.reports.len());
        for report in self.reports.drain(..).rev() {
            if exempt(&report) {
                kept.push(report);
                continue;
            }
            reports += 1;
            bytes += report.body_bytes();
            if reports > limit::REPORTS_MAX {
                self.header.history_truncated = true;
                continue;
            }
            full |= reports > limit::BODIES_MAX || bytes > limit::BODIES_BYTES_MAX || report.body().is_none();
            if full && report.body().is_some() {
                self.header.history_truncated = true;
                kept.push(report.without_body());
            } else {
                kept.push(report);
            }
        }
        kept.reverse();
        self.body_bytes = kept.iter().map(Report::body_bytes).sum();
        self.reports = kept;
    }

    /// Whether the report at a place, no group's canonical one, shows nowhere in the row: then all that it
    /// says was said before it by another member of its group, or the row without it is the same.
    fn is_silent(&self, place: (Timestamp, crate::id::EventId)) -> bool {
        let Ok(index) = self.reports.binary_search_by_key(&place, Report::place) else { return false };
        let group = usize::from(self.grouping.of[index]);
        let report = &self.reports[index];
        let repeats =
            |member: &Report| member.place() < place && member.body().is_some() && member.body() == report.body();
        if self.grouping.members(group, &self.reports).any(repeats) {
            return true;
        }
        let mut without = self.clone();
        without.reports.remove(index);
        without.settle();
        let same_header = Header { updated_at: self.header.updated_at, ..without.header } == self.header;
        same_header && without.row(ProjectId::NIL) == self.row(ProjectId::NIL)
    }
}
