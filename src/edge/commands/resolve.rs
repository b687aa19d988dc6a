//! What a command's body alone does not say. Everything that can be refused here is, before anything is minted.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::presence::{OnlineState, Standing};
use cql::accounts::agent;
use domain::command::request::{Asked, Confirm, Request};
use domain::command::{Advertised, BulkFilter, FrozenTask, Resolved};
use domain::engine::Engine;
use domain::id::{AgentId, ProjectId};
use domain::task::{Filter, Priority, TaskRow};
use futures_util::future::try_join_all;

use crate::edge::app::App;
use crate::edge::error::{ApiError, ApiResult, Problem};

/// Ids looked up at once.
const LOOKUPS_MAX: usize = 16;

/// The agent that is asked, and what is known of it.
pub(super) struct Known {
    agent: AgentId,
    engines: Vec<Engine>,
    standing: Standing,
}

impl Known {
    /// Foreign, unknown and revoked agents are not found; one that never connected cannot be asked (D22).
    pub(super) async fn look_up(app: &App, project: ProjectId, id: AgentId) -> ApiResult<Self> {
        let row = agent::get(app.store.as_ref(), project, id).await?;
        if row.is_none_or(|agent| agent.revoked_at.is_some()) {
            return Err(ApiError::NotFound("agent"));
        }
        let standing = app.mesh.presence().standing(project, id).await?;
        if standing.state == OnlineState::Unknown {
            return Err(ApiError::conflict("the agent has never connected; start its worker first"));
        }
        let engines = standing.engines.iter().filter_map(|engine| engine.parse().ok()).collect();
        Ok(Self { agent: id, engines, standing })
    }

    fn advertised(&self) -> Advertised {
        let standing = &self.standing;
        Advertised {
            engines: standing.engines.clone(),
            capabilities: Arc::clone(&standing.capabilities),
            // Over long-poll nothing is said of engines.
            said_hello: !standing.engines.is_empty(),
        }
    }

    fn only_engine(&self) -> Option<Engine> {
        if let [engine] = self.engines[..] { Some(engine) } else { None }
    }

    /// The agent's state, as a command's view shows it.
    pub(super) fn states(&self) -> BTreeMap<AgentId, OnlineState> {
        BTreeMap::from([(self.agent, self.standing.state)])
    }
}

/// Looks up what the verb needs.
pub(super) async fn resolve(app: &App, project: ProjectId, asked: &Asked, known: &Known) -> ApiResult<Resolved> {
    let mut resolved = Resolved { advertised: known.advertised(), ..Resolved::default() };
    match &asked.request {
        Request::RetryTask { engine, task_id, .. } => {
            if let Some(row) = app.mesh.tasks().detail(project, *engine, task_id).await? {
                resolved.had_args = row.args.is_some() || row.kwargs.is_some();
                resolved.priority = real_priority(&row);
                resolved.task_name = real_name(row);
            }
        }
        Request::CancelTask { .. } => {}
        Request::BulkRetry { filter, max, .. } => {
            let engine = bulk_engine(filter, known)?;
            resolved.engine = Some(engine);
            resolved.tasks = matching(app, project, filter, engine, *max as usize).await?;
        }
        Request::PurgeQueue { queue, engine, confirm, .. } => {
            resolved.engine = engine.or(known.only_engine());
            resolved.confirm_token = confirm.as_ref().map(|confirm| match confirm {
                Confirm::Token(token) => token.clone(),
                Confirm::Depth(depth) => app.master.project_secret(project).purge_token(queue, *depth),
            });
        }
        Request::RestartWorker { .. }
        | Request::PoolResize { .. }
        | Request::AddConsumer { .. }
        | Request::CancelConsumer { .. }
        | Request::RateLimit { .. } => {
            resolved.engine = match asked.request.worker() {
                Some(worker) => Some(worker_engine(app, project, worker, asked.request.engine(), known).await?),
                None => asked.request.engine().or(known.only_engine()),
            };
        }
    }
    Ok(resolved)
}

/// The engine of a worker that this agent's reports name (contract D15).
async fn worker_engine(
    app: &App,
    project: ProjectId,
    name: &str,
    asked: Option<Engine>,
    known: &Known,
) -> ApiResult<Engine> {
    let workers = app.mesh.presence().workers(project).await?;
    let mut engines: Vec<Engine> = workers
        .into_iter()
        .filter(|worker| worker.row.name == name && worker.agents.contains(&known.agent))
        .map(|worker| worker.row.engine)
        .filter(|engine| asked.is_none_or(|asked| asked == *engine))
        .collect();
    let refused = |member: &str, msg: &str| ApiError::invalid(Problem::new("value_error", &["body", member], msg));
    match (engines.pop(), engines.is_empty()) {
        (Some(engine), true) => Ok(engine),
        (Some(_), false) => Err(refused("engine", "several engines have a worker of this name; say which")),
        (None, _) => Err(refused("worker_name", "no report of this agent names this worker")),
    }
}

fn bulk_engine(filter: &BulkFilter, known: &Known) -> ApiResult<Engine> {
    let refused = |msg: String| ApiError::invalid(Problem::new("value_error", &["body", "filter", "engine"], msg));
    let names = || known.engines.iter().map(|engine| engine.as_str()).collect::<Vec<_>>().join(", ");
    match (filter.engine, known.only_engine()) {
        (Some(engine), _) if known.engines.is_empty() || known.engines.contains(&engine) => Ok(engine),
        (Some(_), _) => Err(refused(format!("must be one of the agent's engines: {}", names()))),
        (None, Some(engine)) => Ok(engine),
        (None, None) if known.engines.is_empty() => {
            Err(refused("is needed, for the agent has not told its engines".to_owned()))
        }
        (None, None) => Err(refused(format!("is needed, for the agent has several: {}", names()))),
    }
}

/// The tasks that a filter means, newest first (contract D19).
async fn matching(
    app: &App,
    project: ProjectId,
    bulk: &BulkFilter,
    engine: Engine,
    max: usize,
) -> ApiResult<Vec<FrozenTask>> {
    let filter = Filter {
        state: bulk.state,
        priorities: bulk.priority.iter().copied().collect(),
        engine: Some(engine),
        name: bulk.name.clone(),
        queue: bulk.queue.clone(),
        worker: bulk.worker.clone(),
        since: bulk.since,
        until: bulk.until,
        ..Filter::default()
    };
    let rows = match &bulk.task_ids {
        Some(ids) => named(app, project, ids, engine, &filter).await?,
        None => walked(app, project, &filter, max).await?,
    };
    let frozen = |row: TaskRow| {
        let (task_id, priority) = (row.task_id.clone(), real_priority(&row));
        FrozenTask::new(task_id, real_name(row), priority)
    };
    Ok(rows.into_iter().take(max).map(frozen).collect())
}

async fn walked(app: &App, project: ProjectId, filter: &Filter, max: usize) -> ApiResult<Vec<TaskRow>> {
    let mut walk = app.mesh.tasks().walk(project, filter.prepare(), None, max, app.clock.now());
    let mut rows = Vec::new();
    while rows.len() < max
        && let Some(row) = walk.next_row().await?
    {
        rows.push(row);
    }
    Ok(rows)
}

/// Of the ids given, those that the rest of the filter admits.
async fn named(
    app: &App,
    project: ProjectId,
    ids: &[String],
    engine: Engine,
    filter: &Filter,
) -> ApiResult<Vec<TaskRow>> {
    let prepared = filter.prepare();
    let mut rows: BTreeMap<_, TaskRow> = BTreeMap::new();
    for some in ids.chunks(LOOKUPS_MAX) {
        let found = try_join_all(some.iter().map(|id| either_id(app, project, engine, id))).await?;
        let admitted = found.into_iter().flatten().filter(|row| prepared.admits(row));
        rows.extend(admitted.map(|row| (row.id, row)));
    }
    Ok(rows.into_values().rev().collect())
}

/// The tasks that one of our ids or the engine's names. The other engines are not asked: there may be ten
/// thousand ids, and their tasks would not be sent anyway.
async fn either_id(app: &App, project: ProjectId, engine: Engine, id: &str) -> ApiResult<Vec<TaskRow>> {
    let tasks = app.mesh.tasks();
    let ours = match id.parse() {
        Ok(id) => tasks.get_by_id(project, id).await?,
        Err(_) => None,
    };
    let theirs = tasks.get(project, engine, id).await?.filter(|task| task.task_id() == id);
    Ok(ours.into_iter().chain(theirs).map(|task| task.row(project)).collect())
}

/// Only Celery takes one, and `normal` is what a task has that says nothing.
fn real_priority(row: &TaskRow) -> Option<Priority> {
    Some(row.priority).filter(|priority| row.engine == Engine::Celery && *priority != Priority::Normal)
}

/// Agents resolve a placeholder themselves.
fn real_name(row: TaskRow) -> Option<String> {
    Some(row.name).filter(|name| !name.starts_with("<unknown") && name != "unknown")
}
