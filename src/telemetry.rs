//! Logs to standard error, and the metrics recorder.
//!
//! Nothing logs arguments, tokens or cookies (contract D29).

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use actors::meters;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Latencies from a tenth of a millisecond to a minute.
const SECONDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 10.0, 60.0];

/// Run times of tasks, from a hundredth of a second to an hour.
const RUN_SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0];

/// Starts logging. A second call, as in tests, changes nothing.
pub fn start(log: &LogConfig) {
    let filter = EnvFilter::new(&log.filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only fails when somebody else installed a subscriber, whose choice then counts.
    let _installed = if log.json { builder.json().try_init() } else { builder.try_init() };
    start_metrics();
}

/// Installs the metrics recorder of this process, once.
pub fn start_metrics() {
    METRICS.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(meters::TASK_DURATION.to_owned()), &RUN_SECONDS)
            })
            .expect("the lists of buckets are not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
        meters::describe();
        handle
    });
}

pub fn render_metrics() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves recorded values into their buckets; without it memory grows between scrapes.
pub fn tidy_metrics() {
    if let Some(handle) = METRICS.get() {
        handle.run_upkeep();
    }
}
