//! What a reader sees: the row of a task and its events (contract M24 to M48).

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::body::{self, Body, Member};
use super::derive::{Outline, first_preferring_received};
use super::exception;
use super::group::Grouping;
use super::kind::Kind;
use super::priority::Priority;
use super::report::{Report, TASK_ID_CHARS_MAX};
use super::state::State;
use super::stored::Task;
use crate::engine::Engine;
use crate::id::address::TaskId;
use crate::id::{AgentId, EventId, ProjectId};
use crate::time::Timestamp;

/// A task as the API shows it; the members stand in the order of the answer.
#[derive(Clone, Debug, Serialize)]
pub struct TaskRow {
    pub id: TaskId,
    pub project_id: ProjectId,
    pub engine: Engine,
    pub task_id: String,
    pub name: String,
    pub queue: Option<String>,
    pub state: State,
    pub priority: Priority,
    pub args: Option<Box<RawValue>>,
    pub kwargs: Option<Box<RawValue>>,
    pub result: Option<Box<RawValue>>,
    pub exception: Option<String>,
    pub traceback: Option<String>,
    pub retry_count: u32,
    pub eta: Option<Timestamp>,
    pub received_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub runtime_ms: Option<u32>,
    pub worker_name: Option<String>,
    pub parent_task_id: Option<String>,
    pub root_task_id: Option<String>,
    pub tags: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One physical event of a task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskEvent {
    pub id: EventId,
    pub project_id: ProjectId,
    /// Null for what we reported ourselves.
    pub agent_id: Option<AgentId>,
    pub engine: Engine,
    pub task_id: String,
    pub kind: Kind,
    pub occurred_at: Timestamp,
    pub payload: Box<RawValue>,
}

/// Equal in everything a reader sees; the stored text of JSON counts.
impl PartialEq for TaskRow {
    fn eq(&self, other: &Self) -> bool {
        let json = |row: &Self| {
            [&row.args, &row.kwargs, &row.result].map(|value| value.as_deref().map(|value| value.get().to_owned()))
        };
        let texts = |row: &Self| {
            [&row.queue, &row.exception, &row.traceback, &row.worker_name, &row.parent_task_id, &row.root_task_id]
                .map(Clone::clone)
        };
        let times =
            |row: &Self| (row.eta, row.received_at, row.started_at, row.finished_at, row.created_at, row.updated_at);
        let plain = |row: &Self| (row.id, row.project_id, row.engine, row.state, row.priority, row.retry_count);
        json(self) == json(other)
            && texts(self) == texts(other)
            && times(self) == times(other)
            && plain(self) == plain(other)
            && (&self.task_id, &self.name, self.runtime_ms, &self.tags)
                == (&other.task_id, &other.name, other.runtime_ms, &other.tags)
    }
}

/// The members of a row that cost something to derive; the others it always has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts(u8);

impl Parts {
    pub const NONE: Self = Self(0);
    pub const ARGS: Self = Self(1);
    pub const KWARGS: Self = Self(1 << 1);
    pub const RESULT: Self = Self(1 << 2);
    /// `exception` and `traceback`.
    pub const EXCEPTION: Self = Self(1 << 3);
    pub const ETA: Self = Self(1 << 4);
    /// `parent_task_id` and `root_task_id`.
    pub const RELATIVES: Self = Self(1 << 5);
    pub const TAGS: Self = Self(1 << 6);
    pub const ALL: Self = Self(0x7f);

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, part: Self) -> bool {
        self.0 & part.0 != 0
    }
}

impl TaskRow {
    pub(super) fn derive(task: &Task, project: ProjectId, grouping: &Grouping, parts: Parts) -> Self {
        let (engine, task_id) = (task.engine(), task.task_id());
        let reports = task.reports();
        let outline = Outline::new(engine, reports, grouping);
        let of_group = |index: usize| {
            let members = grouping.of.iter().zip(reports);
            members.filter(move |(group, _)| usize::from(**group) == index).map(|(_, report)| report)
        };
        let (exception, traceback) = match (outline.state, outline.latest) {
            (State::Failed | State::Retried, Some(latest)) if parts.has(Parts::EXCEPTION) => {
                let bodies: Vec<Body<'_>> = of_group(latest).map(Report::read).collect();
                exception::exception(engine, &bodies)
            }
            (State::Received | State::Started | State::Succeeded | State::Cancelled | State::Lost, _)
            | (State::Failed | State::Retried, _) => (None, None),
        };
        let result = match (outline.state, outline.ended) {
            (State::Succeeded, Some(end)) if parts.has(Parts::RESULT) => {
                of_group(end).find_map(|report| body::value(report.member(Member::Result)))
            }
            (State::Succeeded, _)
            | (State::Received | State::Started | State::Failed | State::Cancelled | State::Retried | State::Lost, _) => {
                None
            }
        };
        let shaped = |part, member, open| {
            let wanted = |report: &'_ Report| report.member(member).is_some_and(|raw| raw.starts_with(open));
            let first = parts.has(part).then(|| first_preferring_received(reports, wanted)).flatten();
            first.and_then(|index| reports[index].member(member)).and_then(raw)
        };
        let relative = |member| {
            let other = |report: &Report| {
                let other = body::text(report.member(member)).filter(|other| is_relative(other, task_id));
                other.map(Cow::into_owned)
            };
            if parts.has(Parts::RELATIVES) { first_of(reports, other) } else { None }
        };
        Self {
            id: task.id(),
            project_id: project,
            engine,
            task_id: task_id.to_owned(),
            name: name(task_id, reports, outline.name),
            queue: outline.queue.and_then(|index| reports[index].queue(engine)).map(Cow::into_owned),
            state: outline.state,
            priority: outline.priority,
            args: shaped(Parts::ARGS, Member::Args, '['),
            kwargs: shaped(Parts::KWARGS, Member::Kwargs, '{'),
            result: result.and_then(raw),
            exception,
            traceback,
            retry_count: outline.retry_count,
            eta: if parts.has(Parts::ETA) { first_of(reports, eta) } else { None },
            received_at: task.id().received_at(),
            started_at: outline.started_at,
            finished_at: outline.finished_at,
            runtime_ms: outline.runtime_ms,
            worker_name: outline.worker.and_then(|index| reports[index].worker()).map(Cow::into_owned),
            parent_task_id: relative(Member::ParentTaskId),
            root_task_id: relative(Member::RootTaskId),
            tags: if parts.has(Parts::TAGS) { first_of(reports, tags).unwrap_or_default() } else { Vec::new() },
            created_at: task.created_at(),
            updated_at: task.updated_at(),
        }
    }
}

impl TaskEvent {
    pub(super) fn derive(task: &Task, project: ProjectId, grouping: &Grouping) -> Vec<Self> {
        let shown = grouping.groups.iter().filter(|group| match group.kind {
            Kind::Deleted | Kind::Scheduled => false,
            Kind::Received | Kind::Started | Kind::Succeeded | Kind::Failed | Kind::Retried | Kind::Revoked => true,
            Kind::Rejected | Kind::Sent | Kind::Lost => true,
        });
        let event = |group: &super::group::Group| {
            let report = &task.reports()[group.first];
            // A body that was dropped to bound the task's size shows as an empty object.
            let payload = RawValue::from_string(report.body().unwrap_or("{}").to_owned());
            Self {
                id: report.id(),
                project_id: project,
                agent_id: Some(report.agent()).filter(|agent| *agent != AgentId::NIL),
                engine: task.engine(),
                task_id: task.task_id().to_owned(),
                kind: report.kind(),
                occurred_at: report.occurred_at(),
                payload: payload.unwrap_or_else(|_| RawValue::NULL.to_owned()),
            }
        };
        shown.rev().map(event).collect()
    }
}

/// The id that the tree of a task hangs on, when it is not the task itself.
pub(super) fn root_of(task: &Task) -> Option<String> {
    let reports = task.reports();
    let has_root = |report: &Report| report.root().is_some_and(|root| is_relative(&root, task.task_id()));
    first_preferring_received(reports, has_root).and_then(|index| reports[index].root()).map(Cow::into_owned)
}

/// What the first report tells that tells it, a `received` before any other.
fn first_of<T>(reports: &[Report], told: impl Fn(&Report) -> Option<T>) -> Option<T> {
    let mut any = None;
    for report in reports {
        let it = told(report);
        if it.is_some() && report.kind() == Kind::Received {
            return it;
        }
        any = any.or(it);
    }
    any
}

/// A JSON text as a value that is written as it stands.
fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

fn is_relative(other: &str, task_id: &str) -> bool {
    other != task_id && (other.len() <= TASK_ID_CHARS_MAX || other.chars().count() <= TASK_ID_CHARS_MAX)
}

/// The first real name, else the first placeholder, else one of ours.
fn name(task_id: &str, reports: &[Report], real: Option<usize>) -> String {
    let real = real.and_then(|index| reports[index].name());
    let any = || reports.iter().find_map(Report::name);
    let ours = || format!("<unknown:{}>", task_id.chars().take(8).collect::<String>());
    real.or_else(any).map_or_else(ours, Cow::into_owned)
}

/// An RFC 3339 text or POSIX seconds.
fn eta(report: &Report) -> Option<Timestamp> {
    let raw = body::value(report.member(Member::Eta))?;
    match body::text(Some(raw)) {
        Some(text) => Timestamp::parse(&text).or_else(|_| Timestamp::parse(&format!("{text}Z"))).ok(),
        None => {
            let seconds: f64 = raw.parse().ok()?;
            (0.0..4e10).contains(&seconds).then(|| Timestamp::from_micros((seconds * 1e6).round() as i64))
        }
    }
}

/// The strings of an array.
fn tags(report: &Report) -> Option<Vec<String>> {
    let raw = body::value(report.member(Member::Tags))?;
    let tags: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let tags: Vec<String> =
        tags.into_iter().filter_map(|tag| body::text(Some(tag.get()))).map(Cow::into_owned).collect();
    (!tags.is_empty()).then_some(tags)
}
