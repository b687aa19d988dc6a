//! R2: what follows from the groups of a task's reports (DESIGN section 2).
//!
//! Everything here is a pure function of the set of reports, so order, repetition and several writers
//! cannot show in a row.

use super::group::{Group, Grouping};
use super::kind::Kind;
use super::priority::Priority;
use super::report::Report;
use super::state::State;
use crate::engine::Engine;
use crate::time::Timestamp;

/// How far the clocks and queues of two sources of one task may be apart.
pub(super) const SKEW_MICROS: i64 = 2_500_000;

/// The outline of a row: which groups decide what. Indices are into the grouping and the reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pub(super) state: State,
    pub(super) hidden: bool,
    pub(super) retry_count: u32,
    /// The group that ended the task; `None` in every non-terminal state.
    pub(super) ended: Option<usize>,
    /// The group that the state is taken from.
    pub(super) latest: Option<usize>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) runtime_ms: Option<u32>,
    pub(super) priority: Priority,
    /// The report whose name counts; none when only placeholders were heard.
    pub(super) name: Option<usize>,
    pub(super) queue: Option<usize>,
    pub(super) worker: Option<usize>,
}

impl Outline {
    pub(super) fn new(engine: Engine, reports: &[Report], grouping: &Grouping) -> Self {
        let mut terminal: Option<usize> = None;
        let mut started: Option<usize> = None;
        let (mut starts, mut retries) = (0_u32, 0_u32);
        for (index, group) in grouping.groups.iter().enumerate() {
            match group.kind {
                Kind::Started => {
                    starts += 1;
                    started = Some(index);
                }
                Kind::Retried => retries += 1,
                Kind::Succeeded | Kind::Failed | Kind::Revoked | Kind::Rejected => terminal = Some(index),
                Kind::Received | Kind::Sent | Kind::Lost | Kind::Deleted | Kind::Scheduled => {}
            }
        }
        let at = |index: usize| grouping.groups[index].at;
        // A start well after the end is another attempt: a requeue, a redelivery.
        let restarted = match (terminal, started) {
            (Some(end), Some(start)) => starts >= 2 && at(start).since(at(end)) > SKEW_MICROS,
            (None, _) => true,
            (Some(_), None) => false,
        };
        let ended = terminal.filter(|_| !restarted);
        let since = terminal.map(at);
        let latest = ended.or_else(|| latest_open(&grouping.groups, since));
        let state = latest.map_or(State::Received, |index| state_of(grouping.groups[index].kind));
        let finished_at = ended.map(at);
        // The start of the attempt that ended, not one that a skewed clock puts after its end.
        let starts_before =
            |end: Timestamp| grouping.groups.iter().rposition(|group| group.kind == Kind::Started && group.at <= end);
        let started = finished_at.and_then(starts_before).or(started);
        let started_at = started.map(at);
        let first_of = |wanted: fn(&Report) -> bool| first_preferring_received(reports, wanted);
        Self {
            state,
            hidden: is_hidden(reports),
            retry_count: match engine {
                // RQ says nothing of a retry but that the job started again (contract M37).
                Engine::Rq => retries.max(starts.saturating_sub(1)),
                Engine::Celery | Engine::Dramatiq | Engine::Huey | Engine::Arq | Engine::Taskiq => retries,
            },
            ended,
            latest,
            finished_at,
            started_at,
            runtime_ms: ended.and_then(|end| runtime_ms(end, reports, grouping, started_at)),
            priority: first_of(|report| report.priority().is_some())
                .and_then(|index| reports[index].priority())
                .unwrap_or_default(),
            name: first_of(|report| report.has_name()),
            queue: first_of(|report| report.has_queue()),
            worker: worker(reports, grouping, started, latest),
        }
    }
}

const fn state_of(kind: Kind) -> State {
    match kind {
        Kind::Received | Kind::Sent | Kind::Scheduled | Kind::Deleted => State::Received,
        Kind::Started => State::Started,
        Kind::Succeeded => State::Succeeded,
        Kind::Failed | Kind::Rejected => State::Failed,
        Kind::Revoked => State::Cancelled,
        Kind::Retried => State::Retried,
        Kind::Lost => State::Lost,
    }
}

/// The latest group of an attempt that has not ended, among those after `since`. A `received` counts 2.5 s
/// earlier: the next attempt's overtakes the `retried` of the one before.
fn latest_open(groups: &[Group], since: Option<Timestamp>) -> Option<usize> {
    let weight = |group: &Group| match group.kind {
        Kind::Started | Kind::Retried | Kind::Lost => Some((1, group.at)),
        Kind::Received => Some((1, group.at.plus_micros(-SKEW_MICROS))),
        Kind::Sent | Kind::Scheduled => Some((0, group.at)),
        Kind::Succeeded | Kind::Failed | Kind::Revoked | Kind::Rejected | Kind::Deleted => None,
    };
    let open = groups.iter().enumerate().filter(|(_, group)| since.is_none_or(|since| group.at > since));
    let weighed = open.filter_map(|(index, group)| Some((weight(group)?, group.id, index)));
    weighed.max_by_key(|(weight, id, _)| (*weight, *id)).map(|(_, _, index)| index)
}

/// Deleted, and neither received nor started again since (contract D31).
fn is_hidden(reports: &[Report]) -> bool {
    let Some(cut) = deleted_at(reports) else { return false };
    !reports.iter().any(|report| {
        matches!(report.kind(), Kind::Received | Kind::Started) && report.occurred_at().since(cut) > SKEW_MICROS
    })
}

/// When the task was deleted last.
pub(super) fn deleted_at(reports: &[Report]) -> Option<Timestamp> {
    let deletions = reports.iter().filter(|report| report.kind() == Kind::Deleted);
    deletions.map(Report::occurred_at).max()
}

/// Whether a report belongs to what was deleted, and so stays dropped.
pub(super) fn is_cut(report: &Report, deleted_at: Timestamp) -> bool {
    let later = report.occurred_at().since(deleted_at);
    match report.kind() {
        Kind::Deleted => later < 0,
        Kind::Received | Kind::Scheduled | Kind::Sent => later <= 0,
        // The rest of the deleted attempt may still be on its way.
        Kind::Started | Kind::Succeeded | Kind::Failed | Kind::Retried | Kind::Revoked => later <= SKEW_MICROS,
        Kind::Rejected | Kind::Lost => later <= SKEW_MICROS,
    }
}

/// The first report that has what is wanted, a `received` before any other.
pub(super) fn first_preferring_received(reports: &[Report], wanted: impl Fn(&Report) -> bool) -> Option<usize> {
    let mut any = None;
    for (index, report) in reports.iter().enumerate() {
        if wanted(report) {
            if report.kind() == Kind::Received {
                return Some(index);
            }
            any = any.or(Some(index));
        }
    }
    any
}

/// What the engine measured, else the time from start to end.
fn runtime_ms(end: usize, reports: &[Report], grouping: &Grouping, started_at: Option<Timestamp>) -> Option<u32> {
    let measured = grouping.members(end, reports).find_map(Report::runtime_ms);
    let between = || {
        let millis = grouping.groups[end].at.since(started_at?) / 1000;
        Some(u32::try_from(millis.max(0)).unwrap_or(u32::MAX))
    };
    measured.or_else(between)
}

/// The worker of the latest start, else of the group that decides the state. A `received` does not count:
/// Dramatiq's and huey's name the producer.
fn worker(reports: &[Report], grouping: &Grouping, started: Option<usize>, latest: Option<usize>) -> Option<usize> {
    let of_group = |group: usize| {
        let mut members = grouping.of.iter().zip(reports).enumerate();
        members
            .find(|(_, (of, report))| usize::from(**of) == group && report.worker().is_some())
            .map(|(index, _)| index)
    };
    let counts = |group: &usize| grouping.groups[*group].kind != Kind::Received;
    let named = || (0..grouping.groups.len()).rev().filter(counts).find_map(of_group);
    started.and_then(of_group).or_else(|| latest.filter(counts).and_then(of_group)).or_else(named)
}
