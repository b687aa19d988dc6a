//! The list of resources: one file each, with its routes and its rows in the route table.

use utoipa_axum::router::OpenApiRouter;

use super::app::App;
use super::route::Route;
use super::{
    agent_health, agent_workers, agents, api_keys, audit_log, commands, events, health, live, login, longpoll,
    memberships, metrics, openapi, projects, queues, sessions, socket, stats, tasks, trends, users, worker_lint,
    workers,
};

/// One resource of the API.
pub struct Resource {
    pub routes: &'static [Route],
    pub router: fn() -> OpenApiRouter<App>,
}

macro_rules! resources {
    ($($module:ident),+ $(,)?) => {
        &[$(Resource { routes: $module::ROUTES, router: $module::router }),+]
    };
}

/// Adding a resource is adding its file and its name here.
pub static RESOURCES: &[Resource] = resources![
    health,
    metrics,
    openapi,
    login,
    sessions,
    api_keys,
    users,
    projects,
    memberships,
    agents,
    agent_health,
    socket,
    live,
    longpoll,
    agent_workers,
    tasks,
    commands,
    audit_log,
    events,
    workers,
    worker_lint,
    queues,
    stats,
    trends,
];
