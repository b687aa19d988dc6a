//! Prometheus metrics in text form: what was counted, and how things stand at the time of the scrape.

use actors::presence::OnlineState;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use cql::StoreError;
use cql::accounts::project::{self, Project};
use domain::engine::Engine;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use secrecy::ExposeSecret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::bearer;
use super::error::{ApiError, ApiResult};
use super::route::Route;
use crate::telemetry;

/// Queues whose depth is told.
const QUEUES_MAX: usize = 1_000;
/// Projects that are looked at side by side: on a cluster each costs some round trips.
const PROJECTS_AT_ONCE: usize = 16;
const EXPORTS: &str = "thalamus_exports_total";

pub const ROUTES: &[Route] = &[Route::get("/metrics").own()];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Metrics of this node.
///
/// Needs the server's `metrics-token`; without one configured, answers only when the server listens on loopback.
#[utoipa::path(get, path = "/metrics", tag = "system", security(("metrics_token" = [])),
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain",
               example = json!("# TYPE z4j_queue_depth gauge\nz4j_queue_depth{project=\"billing\",queue=\"billing\",engine=\"celery\"} 42\n")),
              (status = 401, description = "The token is missing or wrong", body = super::error::ErrorBody,
               content_type = "application/problem+json", example = json!({
                   "error": "unauthenticated", "message": "the metrics token is missing or wrong",
                   "request_id": "req_0123456789abcdef", "details": {}, "type": "about:blank",
                   "title": "Unauthorized", "status": 401, "detail": "the metrics token is missing or wrong"}))))]
async fn metrics(State(app): State<App>, parts: Parts) -> ApiResult<impl IntoResponse> {
    let admitted = match &app.config.metrics_token {
        Some(token) => bearer(&parts)
            .is_some_and(|given| domain::secret::equal(given.as_bytes(), token.expose_secret().as_bytes())),
        None => app.config.listen.ip().is_loopback(),
    };
    if !admitted {
        return Err(ApiError::Unauthenticated { message: "the metrics token is missing or wrong", reason: None });
    }
    let text = telemetry::render_metrics() + &Standing::of(&app).await?.render();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// An export has come to its end.
pub(super) fn exported(format: &'static str, outcome: &'static str) {
    counter!(EXPORTS, "format" => format, "outcome" => outcome).increment(1);
}

/// How things stand now, over all projects. Computed anew for each scrape, so nothing that is gone stays.
#[derive(Default)]
struct Standing {
    agents_online: usize,
    workers_online: usize,
    sockets: usize,
    queues: Vec<QueueDepth>,
}

struct QueueDepth {
    project: String,
    queue: String,
    engine: Engine,
    depth: u64,
}

impl Standing {
    async fn of(app: &App) -> Result<Self, StoreError> {
        let presence = app.mesh.presence();
        let mut standing = Self { sockets: app.mesh.directory().session_count(), ..Self::default() };
        let projects = project::list(app.store.as_ref()).await?.into_iter().filter(|project| project.is_active);
        let read = async |project: Project| {
            let (id, presence) = (project.id, presence.clone());
            let read = tokio::try_join!(presence.agents(id), presence.workers(id), presence.queues(id));
            read.map(|(agents, workers, queues)| (project, agents, workers, queues))
        };
        let mut read = stream::iter(projects).map(read).buffered(PROJECTS_AT_ONCE);
        while let Some((project, agents, workers, queues)) = read.try_next().await? {
            standing.agents_online += agents.values().filter(|agent| agent.state == OnlineState::Online).count();
            standing.workers_online += workers.iter().filter(|worker| worker.state == OnlineState::Online).count();
            let measured = queues.into_iter().map(|queue| queue.row).filter_map(|row| {
                let depth = row.depth?;
                Some(QueueDepth { project: project.slug.clone(), queue: row.name, engine: row.engine, depth })
            });
            let room = QUEUES_MAX - standing.queues.len();
            standing.queues.extend(measured.take(room));
        }
        Ok(standing)
    }

    /// In a recorder of its own, which also knows how labels are escaped.
    fn render(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            gauge!("z4j_agents_online").set(self.agents_online as f64);
            gauge!("z4j_workers_online").set(self.workers_online as f64);
            gauge!("z4j_ws_connections").set(self.sockets as f64);
            for QueueDepth { project, queue, engine, depth } in &self.queues {
                let labels = [("project", project.clone()), ("queue", queue.clone()), ("engine", engine.to_string())];
                gauge!("z4j_queue_depth", &labels).set(*depth as f64);
            }
        });
        recorder.handle().render()
    }
}
