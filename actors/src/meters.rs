//! What a node counts of itself for `/metrics`: names, bounds, and handles kept where they are used often.
//!
//! Labels are bounded: projects by their administrators, engines, kinds, states, actions and statuses by their
//! lists, and names of tasks by `NAMES_MAX`, beyond which they are counted as `<other>`. An event costs a look-up in a
//! map that its recorder owns, which keeps the handles of what it counts, and an atomic addition.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dashmap::DashMap;
use domain::command::Action;
use domain::engine::Engine;
use domain::id::ProjectId;
use domain::ledger::Change;
use domain::task::{Header, Kind, State, Task};
use metrics::{Counter, Histogram, SharedString, counter, histogram};

/// Names of tasks that are told apart on this node.
const NAMES_MAX: usize = 1_000;
/// Handles a recorder keeps; more are looked up anew.
const KEPT_MAX: usize = 10_000;

pub const EVENTS: &str = "z4j_events_ingested_total";
pub const TASKS: &str = "z4j_tasks_total";
pub const TASK_DURATION: &str = "z4j_task_duration_seconds";
pub const COMMANDS: &str = "z4j_commands_total";
pub const LATE_RESULTS: &str = "z4j_command_late_results_total";
pub const ACK: &str = "thalamus_ack_seconds";
pub const COMMIT: &str = "thalamus_commit_seconds";
pub const COMMAND_ISSUE: &str = "thalamus_command_issue_seconds";
pub const COMMAND: &str = "thalamus_command_seconds";

/// What each metric is, for scrapers.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_histogram};
    describe_counter!(EVENTS, "Events of agents that were new and are durable");
    describe_counter!(TASKS, "Tasks that came to a state, each time one did, durably");
    describe_histogram!(TASK_DURATION, Unit::Seconds, "Run time of tasks that finished, as their engine measured it");
    describe_counter!(COMMANDS, "Commands that were issued, and commands that ended, by how");
    describe_counter!(LATE_RESULTS, "Results of agents that came after their command had ended");
    describe_histogram!(ACK, Unit::Seconds, "From the oldest frame of a write of acks being taken to the write's end");
    describe_histogram!(COMMIT, Unit::Seconds, "Commits of recorders, each of a round of events");
    describe_histogram!(COMMAND_ISSUE, Unit::Seconds, "Appends to ledgers, each of what waited");
    describe_histogram!(COMMAND, Unit::Seconds, "From a command's issue to its end");
}

static SLUGS: LazyLock<DashMap<ProjectId, Arc<str>>> = LazyLock::new(DashMap::new);
static NAMES: LazyLock<DashMap<Name, ()>> = LazyLock::new(DashMap::new);

/// A project and the hash of a task's name.
type Name = (ProjectId, u64);

/// A project's label is its slug from now on; a project that nobody named has its id.
pub fn name_project(project: ProjectId, slug: &str) {
    if !SLUGS.contains_key(&project) {
        SLUGS.insert(project, slug.into());
    }
}

fn label(project: ProjectId) -> SharedString {
    match SLUGS.get(&project) {
        Some(slug) => SharedString::from(Arc::clone(&slug)),
        None => project.to_string().into(),
    }
}

/// What one recorder counts.
#[derive(Default)]
pub(crate) struct RecorderMeters {
    events: HashMap<(ProjectId, Engine, Kind), Counter>,
    tasks: HashMap<Name, TaskMeters>,
}

#[derive(Default)]
struct TaskMeters {
    /// In the order of [`State::ALL`].
    states: [Option<Counter>; State::ALL.len()],
    duration: Option<Histogram>,
}

impl RecorderMeters {
    /// An event that was new is durable.
    pub(crate) fn event(&mut self, project: ProjectId, engine: Engine, kind: Kind) {
        keep_few(&mut self.events);
        let handle =
            || counter!(EVENTS, "project" => label(project), "engine" => engine.as_str(), "kind" => kind.as_str());
        self.events.entry((project, engine, kind)).or_insert_with(handle).increment(1);
    }

    /// A task's row is durable.
    pub(crate) fn task(&mut self, project: ProjectId, before: Option<&Header>, task: &Task) {
        let after = task.header();
        if after.hidden || before.is_some_and(|before| before.state == after.state) {
            return;
        }
        keep_few(&mut self.tasks);
        let meters = self.tasks.entry((project, after.name_hash())).or_default();
        let name = || task_name(project, task);
        let place = State::ALL.iter().position(|state| *state == after.state).unwrap_or_default();
        let handle =
            || counter!(TASKS, "project" => label(project), "task_name" => name(), "state" => after.state.as_str());
        meters.states[place].get_or_insert_with(handle).increment(1);
        if let Some(runtime_ms) = after.runtime_ms.filter(|_| after.state.is_terminal()) {
            let handle = || histogram!(TASK_DURATION, "project" => label(project), "task_name" => name());
            meters.duration.get_or_insert_with(handle).record(f64::from(runtime_ms) / 1000.0);
        }
    }
}

fn keep_few<K, V>(handles: &mut HashMap<K, V>) {
    if handles.len() >= KEPT_MAX {
        handles.clear();
    }
}

/// The label of a task: a placeholder holds the task's id, so it is none.
fn task_name(project: ProjectId, task: &Task) -> SharedString {
    let hash = task.header().name_hash();
    if hash == 0 {
        return SharedString::const_str("<unknown>");
    }
    if NAMES.len() >= NAMES_MAX && !NAMES.contains_key(&(project, hash)) {
        return SharedString::const_str("<other>");
    }
    NAMES.insert((project, hash), ());
    task.row(project).name.into()
}

/// A commit of a recorder has ended.
pub(crate) fn committed(took: Duration) {
    histogram!(COMMIT).record(took);
}

/// Acks were written; the oldest waited so long.
pub(crate) fn acked(waited: Duration) {
    histogram!(ACK).record(waited);
}

/// An append to a project's ledger is durable.
pub(crate) fn appended(project: ProjectId, changes: &[(u64, Change)], took: Duration) {
    histogram!(COMMAND_ISSUE).record(took);
    for (seq, change) in changes {
        match change {
            Change::Command(command) if *seq == command.issued_seq => count(project, command.action, "issued"),
            Change::Command(command) if Some(*seq) == command.outcome_seq => {
                let (action, status) = (command.action, command.status.as_str());
                count(project, action, status);
                if let Some(ended) = command.completed_at {
                    let micros = ended.since(command.issued_at()).max(0);
                    let handle = histogram!(COMMAND, "action" => action.as_str(), "status" => status);
                    handle.record(Duration::from_micros(micros.unsigned_abs()));
                }
            }
            Change::Late { .. } => counter!(LATE_RESULTS).increment(1),
            Change::Command(_) | Change::Key { .. } | Change::Chunk { .. } | Change::Busy(_) => {}
        }
    }
}

fn count(project: ProjectId, action: Action, status: &'static str) {
    counter!(COMMANDS, "project" => label(project), "action" => action.as_str(), "status" => status).increment(1);
}
