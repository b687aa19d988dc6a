//! Finds started tasks whose worker is gone (contract D33).
//!
//! **Owns** nothing: it looks, and tells recorders. **Invariant** a task is called lost only if nothing was heard
//! of it since it was looked at; any later report beats the word. Counters say where to look, so a project with
//! no started tasks costs a few rows, whatever its size.

use std::collections::HashMap;
use std::time::Duration;

use cql::accounts::project;
use cql::{StoreError, stats};
use domain::engine::Engine;
use domain::id::ProjectId;
use domain::id::address::{Shard, TaskKey};
use domain::stats::MinuteCounts;
use domain::task::{Filter, State, TaskRow};
use domain::time::Timestamp;

use crate::mesh::Mesh;
use crate::presence::OnlineState;
use crate::recorder::{Batch, Work};

/// The longest rest between two looks.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);
/// Tasks called lost in one look; the next look goes on.
const TASKS_PER_LOOK: usize = 10_000;

/// Looks for lost tasks until the node drains.
pub(crate) async fn run(mesh: Mesh, lost_after: Duration) {
    let drain = mesh.drain();
    let rest = (lost_after / 4).clamp(Duration::from_secs(1), LOOK_EVERY_MAX);
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        if let Err(error) = look(&mesh, lost_after).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not look for lost tasks");
        }
    }
}

async fn look(mesh: &Mesh, lost_after: Duration) -> Result<(), StoreError> {
    for project in project::list(&**mesh.store()).await? {
        look_in(mesh, project.id, lost_after).await?;
    }
    Ok(())
}

async fn look_in(mesh: &Mesh, project: ProjectId, lost_after: Duration) -> Result<(), StoreError> {
    let now = mesh.clock().now();
    let silent_since = now.plus_micros(-i64::try_from(lost_after.as_micros()).unwrap_or(i64::MAX));
    let oldest = now.plus_secs(-mesh.tasks().retention_secs());
    let mut workers = None;
    let mut shares: Vec<Vec<(TaskKey, Timestamp)>> = vec![Vec::new(); mesh.recorders().count()];
    let mut found = 0;
    for minute in minutes_with_started(mesh, project, oldest, silent_since).await? {
        if workers.is_none() {
            workers = Some(offline_workers(mesh, project, silent_since).await?);
        }
        let since = Timestamp::from_secs(minute * 60);
        let filter = Filter {
            state: Some(State::Started),
            since: Some(since),
            until: Some(since.plus_micros(60_000_000 - 1)),
            ..Filter::default()
        };
        let mut walk = mesh.tasks().walk(project, filter.prepare(), None, 100, now);
        while let Some(row) = walk.next_row().await? {
            if row.updated_at <= silent_since && is_orphan(&row, workers.as_ref()) {
                let key = TaskKey::new(row.engine, &row.task_id);
                let recorder = mesh.recorders().of(Shard::of_key(project, key));
                shares[recorder].push((key, row.updated_at));
                found += 1;
            }
        }
        if found >= TASKS_PER_LOOK {
            break;
        }
    }
    if found > 0 {
        tracing::warn!(project.id = %project, tasks = found, "started tasks have lost their worker");
    }
    for (recorder, tasks) in shares.into_iter().enumerate().filter(|(_, tasks)| !tasks.is_empty()) {
        mesh.recorders().send(recorder, Batch { project, work: Work::Lost { tasks } }).await;
    }
    Ok(())
}

/// Received minutes of which some task is in state started, oldest first.
async fn minutes_with_started(
    mesh: &Mesh,
    project: ProjectId,
    oldest: Timestamp,
    newest: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let started = |counts: &MinuteCounts| {
        let place = State::ALL.iter().position(|state| *state == State::Started).unwrap_or_default();
        counts.by_state[place] > 0
    };
    let mut minutes = Vec::new();
    let mut day = oldest;
    while day <= newest {
        if started(&stats::totals(&**mesh.store(), project, day, day).await?) {
            let end = day.plus_secs(86_400 - day.micros().div_euclid(1_000_000).rem_euclid(86_400)).plus_micros(-1);
            let counts = stats::minutes(&**mesh.store(), project, day, end.min(newest)).await?;
            minutes.extend(counts.into_iter().filter(|(_, counts)| started(counts)).map(|(minute, _)| minute));
        }
        let secs = day.micros().div_euclid(1_000_000);
        day = Timestamp::from_secs(secs - secs.rem_euclid(86_400) + 86_400);
    }
    Ok(minutes)
}

/// Workers by engine and name, and whether each has been gone for long enough.
type Gone = HashMap<(Engine, String), bool>;

async fn offline_workers(mesh: &Mesh, project: ProjectId, silent_since: Timestamp) -> Result<Gone, StoreError> {
    let workers = mesh.presence().workers(project).await?;
    let gone = |state, heard: Timestamp| state != OnlineState::Online && heard <= silent_since;
    Ok(workers
        .into_iter()
        .map(|worker| ((worker.row.engine, worker.row.name), gone(worker.state, worker.row.last_heartbeat)))
        .collect())
}

/// A task without a worker's name cannot be told to have lost it.
fn is_orphan(row: &TaskRow, workers: Option<&Gone>) -> bool {
    let Some(name) = &row.worker_name else { return false };
    workers.and_then(|workers| workers.get(&(row.engine, name.clone()))).copied().unwrap_or(false)
}
