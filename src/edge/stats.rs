//! Numbers of a project, from counters that follow the rows (contract D1: the seven states; the rest as the
//! reference names it).

use std::collections::BTreeMap;

use actors::presence::OnlineState;
use axum::Json;
use axum::extract::State;
use cql::accounts::{Role, agent};
use cql::ledger::commands;
use cql::{Store, StoreError, stats};
use domain::command::{Command, Status};
use domain::engine::Engine;
use domain::id::ProjectId;
use domain::stats::MinuteCounts;
use domain::task::State as TaskState;
use domain::time::Timestamp;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::error::ApiResult;
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] = &[Route::get("/api/v1/projects/{slug}/stats").member(Role::Viewer, "tasks")];

/// Windows that can be asked for, hours.
const WINDOWS: [i64; 6] = [1, 6, 24, 72, 168, 720];
const WINDOW_DEFAULT: i64 = 24;
/// Commands that are looked at; more in one window are not counted.
const COMMANDS_MAX: usize = 20_000;
const COMMANDS_PAGE: usize = 500;
/// A queue with more waiting messages is no longer well.
const DEPTH_OK_MAX: u64 = 1_000;
/// A greater share of failures is no longer well.
const FAILURE_RATE_OK_MAX: f64 = 0.1;
const DAY_SECS: i64 = 86_400;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(overview))
}

#[derive(Debug)]
struct StatsQuery {
    hours: i64,
}

impl FromFields for StatsQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let hours = fields.optional("hours", parse::integer(i64::MIN..=i64::MAX));
        // As the reference: another number means the usual window.
        Some(Self { hours: hours.filter(|hours| WINDOWS.contains(hours)).unwrap_or(WINDOW_DEFAULT) })
    }
}

/// Members that end in `_24h` cover the window asked for, whatever their name says.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Overview {
    window_hours: i64,
    /// Tasks received in the window, by the state they are in now.
    #[schema(value_type = std::collections::HashMap<String, i64>)]
    tasks_by_state: BTreeMap<&'static str, i64>,
    tasks_total: i64,
    tasks_failed_24h: i64,
    tasks_succeeded_24h: i64,
    /// Failed of all that failed or succeeded, 0 to 1.
    failure_rate_24h: f64,
    agents_online: usize,
    agents_offline: usize,
    workers_online: usize,
    workers_offline: usize,
    commands_pending: u64,
    commands_completed_24h: u64,
    commands_failed_24h: u64,
    commands_timeout_24h: u64,
    queue_depths: Vec<QueueDepth>,
    system_health: SystemHealth,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct QueueDepth {
    name: String,
    #[schema(value_type = String, example = "celery")]
    engine: Engine,
    pending_count: u64,
    broker_type: Option<String>,
    #[schema(value_type = String, format = "date-time")]
    last_seen_at: Timestamp,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SystemHealth {
    /// `healthy`, or `degraded` when one of the others is false.
    #[schema(example = "healthy")]
    status: &'static str,
    agents_all_online: bool,
    queue_depth_ok: bool,
    failure_rate_ok: bool,
    brain_db_ok: bool,
}

/// What the project's tasks, agents, workers, queues and commands come to.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/stats", tag = "stats",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path),
        ("hours" = Option<i64>, Query, description = "1, 6, 24, 72, 168 or 720; anything else means 24")),
    responses((status = 200, body = Overview), Errors))]
async fn overview(
    State(app): State<App>,
    scope: ProjectScope,
    Query(query): Query<StatsQuery>,
) -> ApiResult<Json<Overview>> {
    let (store, project, now) = (app.store.as_ref(), scope.project_id, app.clock.now());
    let since = now.plus_secs(-query.hours * 3600);
    let tasks = counts(store, project, since, now).await?;
    let (agents_online, agents_offline) = agents(&app, project).await?;
    let workers = app.mesh.presence().workers(project).await?;
    let workers_online = workers.iter().filter(|worker| worker.state == OnlineState::Online).count();
    let issued = Issued::count(store, project, since).await?;
    let queue_depths = queue_depths(&app, project).await?;
    let ended = tasks.failed + tasks.succeeded;
    let failure_rate_24h = if ended > 0 { tasks.failed as f64 / ended as f64 } else { 0.0 };
    let health = [
        agents_offline == 0,
        queue_depths.iter().all(|queue| queue.pending_count <= DEPTH_OK_MAX),
        failure_rate_24h <= FAILURE_RATE_OK_MAX,
        app.opened.unfit().is_none(),
    ];
    let [agents_all_online, queue_depth_ok, failure_rate_ok, brain_db_ok] = health;
    Ok(Json(Overview {
        window_hours: query.hours,
        tasks_by_state: TaskState::ALL.into_iter().map(TaskState::as_str).zip(tasks.by_state).collect(),
        tasks_total: tasks.by_state.iter().sum(),
        tasks_failed_24h: tasks.failed,
        tasks_succeeded_24h: tasks.succeeded,
        failure_rate_24h,
        agents_online,
        agents_offline,
        workers_online,
        workers_offline: workers.len() - workers_online,
        commands_pending: issued.pending,
        commands_completed_24h: issued.succeeded,
        commands_failed_24h: issued.failed,
        commands_timeout_24h: issued.timed_out,
        queue_depths,
        system_health: SystemHealth {
            status: if health.into_iter().all(|is_ok| is_ok) { "healthy" } else { "degraded" },
            agents_all_online,
            queue_depth_ok,
            failure_rate_ok,
            brain_db_ok,
        },
    }))
}

/// The counts from `since` to `now`: whole days where the window covers them, minutes at its ends.
async fn counts(
    store: &dyn Store,
    project: ProjectId,
    since: Timestamp,
    now: Timestamp,
) -> Result<MinuteCounts, StoreError> {
    // Agents' clocks may be ahead by a minute.
    let until = now.plus_secs(120);
    let first_day = Timestamp::from_secs((since.micros().div_euclid(1_000_000 * DAY_SECS) + 1) * DAY_SECS);
    let mut sum = MinuteCounts::default();
    let minutes_until = first_day.plus_secs(-1).min(until);
    for part in stats::minutes(store, project, since, minutes_until).await?.values() {
        sum.add(part);
    }
    if first_day <= until {
        sum.add(&stats::totals(store, project, first_day, until).await?);
    }
    Ok(sum)
}

/// How many tasks the counters know that were received since.
pub(super) async fn tasks_since(
    store: &dyn Store,
    project: ProjectId,
    since: Timestamp,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let total: i64 = counts(store, project, since, now).await?.by_state.iter().sum();
    Ok(total.max(0).unsigned_abs())
}

/// Agents online and offline; one that never connected is neither.
async fn agents(app: &App, project: ProjectId) -> Result<(usize, usize), StoreError> {
    let presences = app.mesh.presence().agents(project).await?;
    let (mut online, mut offline) = (0, 0);
    for agent in agent::of_project(app.store.as_ref(), project).await? {
        match presences.get(&agent.id).map_or(OnlineState::Unknown, |presence| presence.state) {
            OnlineState::Online => online += 1,
            OnlineState::Offline => offline += 1,
            OnlineState::Unknown => {}
        }
    }
    Ok((online, offline))
}

async fn queue_depths(app: &App, project: ProjectId) -> Result<Vec<QueueDepth>, StoreError> {
    let rows = app.mesh.presence().queues(project).await?.into_iter().map(|queue| queue.row);
    let measured = rows.filter_map(|row| {
        Some(QueueDepth {
            pending_count: row.depth?,
            name: row.name,
            engine: row.engine,
            broker_type: row.broker_type,
            last_seen_at: row.last_seen_at,
        })
    });
    Ok(measured.collect())
}

/// Commands by what became of them.
#[derive(Debug, Default)]
struct Issued {
    pending: u64,
    succeeded: u64,
    failed: u64,
    timed_out: u64,
}

impl Issued {
    /// Commands issued since.
    async fn count(store: &dyn Store, project: ProjectId, since: Timestamp) -> Result<Self, StoreError> {
        let (mut counts, mut after, mut seen) = (Self::default(), None, 0);
        while seen < COMMANDS_MAX {
            let page = commands::list(store, project, None, after, COMMANDS_PAGE).await?;
            seen += page.items.len();
            for command in &page.items {
                if command.issued_at() < since {
                    return Ok(counts);
                }
                counts.add(command);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(counts)
    }

    fn add(&mut self, command: &Command) {
        match command.status {
            Status::Issued | Status::Dispatched => self.pending += 1,
            Status::Succeeded => self.succeeded += 1,
            Status::Failed => self.failed += 1,
            Status::TimedOut => self.timed_out += 1,
        }
    }
}
