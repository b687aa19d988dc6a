//! What is unwise about the configuration of a project's workers and queues.

use std::collections::{BTreeMap, BTreeSet};

use actors::presence::{OnlineState, WorkerView as Seen};
use axum::Json;
use axum::extract::State;
use cql::accounts::Role;
use domain::engine::Engine;
use domain::lint::{self, Severity};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::auth::ProjectScope;
use super::error::ApiResult;
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] = &[Route::get("/api/v1/projects/{slug}/workers/lint").member(Role::Viewer, "workers")];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(findings))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Findings {
    /// Workers that are online.
    workers: usize,
    /// Those of them whose engine told its settings.
    judged: usize,
    /// What matters most first.
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct FindingView {
    /// A word for programs.
    #[schema(example = "pickle_accepted")]
    rule: &'static str,
    /// `error`, `warning` or `info`.
    #[schema(example = "error")]
    severity: &'static str,
    #[schema(value_type = String, example = "celery")]
    engine: Engine,
    /// Null when it is about a queue.
    #[schema(required, value_type = Option<String>, format = "uuid")]
    worker_id: Option<Uuid>,
    #[schema(required, example = "worker-1@host")]
    worker_name: Option<String>,
    #[schema(required)]
    queue: Option<String>,
    #[schema(required, example = "accept_content")]
    setting: Option<&'static str>,
    /// What the setting is.
    #[schema(required)]
    value: Option<Value>,
    message: String,
}

/// A worker that is online, with the settings its engine told.
struct Judged {
    seen: Seen,
    conf: Map<String, Value>,
}

impl Judged {
    fn new(seen: Seen) -> Self {
        let metadata: Option<Value> = seen.row.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let conf = metadata.as_ref().and_then(|told| told.get("conf")).and_then(Value::as_object).cloned();
        Self { seen, conf: conf.unwrap_or_default() }
    }

    fn findings(&self) -> Vec<(Severity, FindingView)> {
        let row = &self.seen.row;
        let found = if row.engine == Engine::Celery { lint::celery(&self.conf) } else { Vec::new() };
        let view = |finding: lint::Finding| FindingView {
            rule: finding.rule,
            severity: finding.severity.as_str(),
            engine: row.engine,
            worker_id: Some(row.id),
            worker_name: Some(row.name.clone()),
            queue: None,
            setting: Some(finding.setting),
            value: self.conf.get(finding.setting).cloned(),
            message: finding.message.to_owned(),
        };
        found.into_iter().map(|finding| (finding.severity, view(finding))).collect()
    }
}

fn of_queue(
    severity: Severity,
    rule: &'static str,
    (engine, queue): (Engine, &str),
    setting: Option<&'static str>,
    message: String,
) -> (Severity, FindingView) {
    let view = FindingView {
        rule,
        severity: severity.as_str(),
        engine,
        worker_id: None,
        worker_name: None,
        queue: Some(queue.to_owned()),
        setting,
        value: None,
        message,
    };
    (severity, view)
}

/// Settings on which the workers of a queue disagree.
fn disagreements(workers: &[Judged]) -> Vec<(Severity, FindingView)> {
    let mut queues: BTreeMap<(&'static str, &str), (Engine, Vec<&Judged>)> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| !worker.conf.is_empty()) {
        let engine = worker.seen.row.engine;
        for queue in &worker.seen.row.queues {
            queues.entry((engine.as_str(), queue)).or_insert((engine, Vec::new())).1.push(worker);
        }
    }
    let mut found = Vec::new();
    for ((_, queue), (engine, workers)) in queues {
        for setting in lint::SHARED {
            let values: BTreeSet<String> =
                workers.iter().filter_map(|worker| worker.conf.get(setting)).map(Value::to_string).collect();
            if values.len() > 1 {
                let values = values.into_iter().collect::<Vec<_>>().join(", ");
                let message = format!("The workers of this queue differ in {setting}: {values}.");
                found.push(of_queue(Severity::Warning, "workers_differ", (engine, queue), Some(setting), message));
            }
        }
    }
    found
}

/// What is unwise about how the workers that are online are configured, and queues that wait for nobody.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/workers/lint", tag = "workers",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = Findings), Errors))]
async fn findings(State(app): State<App>, scope: ProjectScope) -> ApiResult<Json<Findings>> {
    let presence = app.mesh.presence();
    let online = presence.workers(scope.project_id).await?.into_iter();
    let workers: Vec<Judged> = online.filter(|seen| seen.state == OnlineState::Online).map(Judged::new).collect();
    let mut found: Vec<(Severity, FindingView)> = workers.iter().flat_map(Judged::findings).collect();
    found.extend(disagreements(&workers));
    for queue in presence.queues(scope.project_id).await? {
        let row = queue.row;
        let consumed = workers
            .iter()
            .any(|worker| worker.seen.row.engine == row.engine && worker.seen.row.queues.contains(&row.name));
        // Which queues a worker takes from is known of Celery only.
        if let Some(depth) = row.depth.filter(|depth| *depth > 0 && row.engine == Engine::Celery && !consumed) {
            let message = format!("{depth} messages wait in this queue, and no worker that is online takes from it.");
            found.push(of_queue(Severity::Error, "queue_without_worker", (row.engine, &row.name), None, message));
        }
    }
    found.sort_by_key(|(severity, _)| *severity);
    Ok(Json(Findings {
        workers: workers.len(),
        judged: workers.iter().filter(|worker| !worker.conf.is_empty()).count(),
        findings: found.into_iter().map(|(_, view)| view).collect(),
    }))
}
