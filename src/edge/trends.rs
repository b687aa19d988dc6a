//! What tasks came to over time.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use cql::accounts::Role;
use cql::stats;
use domain::stats::MinuteCounts;
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::error::{ApiError, ApiResult, Problem};
use super::extract::{Fields, FromFields, Query, parse};
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] =
    &[Route::get("/api/v1/projects/{slug}/trends").member(Role::Viewer, "tasks").without_keys()];

/// Name and minutes.
type Span = (&'static str, i64);

const WINDOWS: [Span; 5] = [("1h", 60), ("6h", 360), ("24h", 1440), ("72h", 4320), ("7d", 10_080)];
const BUCKETS: [Span; 5] = [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60), ("1d", 1440)];
const WINDOW_DEFAULT: Span = WINDOWS[2];
const BUCKET_DEFAULT: Span = BUCKETS[3];
const BUCKETS_MAX: i64 = 500;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(series))
}

#[derive(Debug)]
struct TrendsQuery {
    window: Span,
    bucket: Span,
}

impl FromFields for TrendsQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            window: fields.optional("window", one_of(&WINDOWS)).unwrap_or(WINDOW_DEFAULT),
            bucket: fields.optional("bucket", one_of(&BUCKETS)).unwrap_or(BUCKET_DEFAULT),
        })
    }
}

fn one_of(spans: &'static [Span]) -> impl Fn(&Value) -> Result<Span, Problem> {
    move |value| {
        let found = spans.iter().find(|(name, _)| value.as_str() == Some(name));
        let names: Vec<&str> = spans.iter().map(|(name, _)| *name).collect();
        found
            .copied()
            .ok_or_else(|| parse::wrong("value_error", format!("Input should be one of {}", names.join(", "))))
    }
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Trends {
    #[schema(example = "24h")]
    window: &'static str,
    #[schema(example = "1h")]
    bucket: &'static str,
    /// Buckets in which something happened.
    series: Vec<Bucket>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Bucket {
    /// Its start.
    #[schema(value_type = String, format = "date-time")]
    t: Timestamp,
    success: i64,
    failure: i64,
    retry: i64,
    revoked: i64,
    total: i64,
    avg_runtime_ms: Option<f64>,
}

/// Tasks that ended and retries, by time.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/trends", tag = "stats", security(("session" = [])),
    params(("slug" = String, Path),
        ("window" = Option<String>, Query, pattern = "^(1h|6h|24h|72h|7d)$", description = "1h, 6h, 24h (the default), 72h or 7d"),
        ("bucket" = Option<String>, Query, pattern = "^(1m|5m|15m|1h|1d)$",
            description = "1m, 5m, 15m, 1h (the default) or 1d")),
    responses((status = 200, body = Trends), Errors))]
async fn series(
    State(app): State<App>,
    scope: ProjectScope,
    Query(query): Query<TrendsQuery>,
) -> ApiResult<Json<Trends>> {
    let TrendsQuery { window, bucket } = query;
    if window.1 / bucket.1 > BUCKETS_MAX {
        let message = format!("{} in buckets of {} are more than {BUCKETS_MAX} buckets", window.0, bucket.0);
        return Err(ApiError::BadRequest { code: "too_many_buckets", message });
    }
    let now = app.clock.now();
    let minutes = stats::minutes(app.store.as_ref(), scope.project_id, now.plus_secs(-window.1 * 60), now).await?;
    let mut buckets = BTreeMap::<i64, MinuteCounts>::new();
    for (minute, counts) in minutes {
        buckets.entry(minute.div_euclid(bucket.1) * bucket.1).or_default().add(&counts);
    }
    let series = buckets.into_iter().map(|(minute, counts)| view(minute, &counts)).filter(|bucket| bucket.total != 0);
    Ok(Json(Trends { window: window.0, bucket: bucket.0, series: series.collect() }))
}

fn view(minute: i64, counts: &MinuteCounts) -> Bucket {
    Bucket {
        t: Timestamp::from_secs(minute * 60),
        success: counts.succeeded,
        failure: counts.failed,
        retry: counts.retried,
        revoked: counts.cancelled,
        total: counts.succeeded + counts.failed + counts.retried + counts.cancelled,
        avg_runtime_ms: (counts.timed > 0).then(|| counts.runtime_ms as f64 / counts.timed as f64),
    }
}
