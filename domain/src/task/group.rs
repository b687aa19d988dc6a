//! R1: which reports speak of one physical event (DESIGN section 2).
//!
//! Several Celery processes hear one broker, and a process with an in-process pool hears itself twice, by
//! signal and from the broker. Neither "count everything" nor "the maximum over reporters" is right, so
//! reports of one kind are put together by time, worker and source. Every other engine reports an event once.

use std::borrow::Cow;

use super::kind::Kind;
use super::report::Report;
use crate::engine::Engine;
use crate::id::EventId;
use crate::time::Timestamp;

/// A report joins a group whose first report is at most this much older.
const ANCHOR_MICROS: i64 = 45_000_000;

/// The reports of one physical event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) kind: Kind,
    /// Index of the canonical report: the smallest by (occurred_at, event id).
    pub(super) first: usize,
    pub(super) at: Timestamp,
    /// Id of the canonical report.
    pub(super) id: EventId,
}

/// The groups of a task's reports, in the order of their canonical reports.
#[derive(Clone, Debug, Default)]
pub(super) struct Grouping {
    pub(super) groups: Vec<Group>,
    /// For each report the index of its group.
    pub(super) of: Vec<u16>,
}

impl Grouping {
    /// Groups reports that stand in the order of (occurred_at, event id).
    pub(super) fn new(engine: Engine, reports: &[Report]) -> Self {
        let mut grouping = Self { groups: Vec::with_capacity(reports.len()), of: Vec::with_capacity(reports.len()) };
        // Groups before this one are too old for any report still to come.
        let mut oldest = 0;
        for (index, report) in reports.iter().enumerate() {
            let joined = if is_shared(engine, report.kind()) {
                while grouping.groups.get(oldest).is_some_and(|group| !group.reaches(report)) {
                    oldest += 1;
                }
                (oldest..grouping.groups.len()).find(|group| grouping.admits(*group, report, reports))
            } else {
                None
            };
            let group = joined.unwrap_or(grouping.groups.len());
            grouping.of.push(group as u16);
            if group == grouping.groups.len() {
                grouping.groups.push(Group {
                    kind: report.kind(),
                    first: index,
                    at: report.occurred_at(),
                    id: report.id(),
                });
            }
        }
        grouping
    }

    /// The members of a group, canonical first.
    pub(super) fn members<'a>(&'a self, group: usize, reports: &'a [Report]) -> impl Iterator<Item = &'a Report> {
        let first = self.groups.get(group).map_or(reports.len(), |group| group.first);
        let members = self.of.iter().zip(reports).skip(first);
        members.filter(move |(of, _)| usize::from(**of) == group).map(|(_, report)| report)
    }

    /// The first worker that a member of a group names.
    pub(super) fn worker<'a>(&self, group: usize, reports: &'a [Report]) -> Option<Cow<'a, str>> {
        let first = self.groups.get(group).map_or(reports.len(), |group| group.first);
        let members = self.of.iter().zip(reports).skip(first).filter(|(of, _)| usize::from(**of) == group);
        members.map(|(_, report)| report).find_map(Report::worker)
    }

    fn admits(&self, index: usize, report: &Report, reports: &[Report]) -> bool {
        let group = &self.groups[index];
        if group.kind != report.kind() || !group.reaches(report) {
            return false;
        }
        // Both channels name no worker for a revoked task, so they cannot be told apart, nor need they be.
        if report.kind() == Kind::Revoked {
            return true;
        }
        let is_other = |worker| self.worker(index, reports).is_some_and(|known| known != worker);
        !report.worker().is_some_and(is_other) && !self.members(index, reports).any(|member| member.same_source(report))
    }
}

impl Group {
    fn reaches(&self, report: &Report) -> bool {
        report.occurred_at().since(self.at) <= ANCHOR_MICROS
    }
}

/// Whether several reports of this kind can speak of one event.
fn is_shared(engine: Engine, kind: Kind) -> bool {
    match engine {
        Engine::Celery => match kind {
            Kind::Started | Kind::Succeeded | Kind::Failed | Kind::Retried | Kind::Revoked => true,
            Kind::Received | Kind::Rejected | Kind::Sent => false,
            Kind::Lost | Kind::Deleted | Kind::Scheduled => false,
        },
        Engine::Rq | Engine::Dramatiq | Engine::Huey | Engine::Arq | Engine::Taskiq => false,
    }
}
