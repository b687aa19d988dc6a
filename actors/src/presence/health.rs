//! What a heartbeat says: of its process, and of engine workers and queues (WIRE 4.2).

use std::str::FromStr;

use cql::fleet::process::ProcessHealth;
use domain::engine::Engine;
use domain::wire::{Heartbeat, TelemetryLoss};
use serde::Deserialize;
use serde_json::Value;

use super::EventTally;

/// Workers of one engine that one heartbeat may name.
const WORKERS_MAX: usize = 1_000;
/// Longest text kept of an adapter's error.
const ERROR_CHARS_MAX: usize = 500;
/// Longest worker or queue name kept.
const NAME_CHARS_MAX: usize = 200;

/// One worker of `worker_details`.
pub(super) struct WorkerDetail {
    pub(super) name: String,
    pub(super) hostname: Option<String>,
    pub(super) pid: Option<i64>,
    pub(super) concurrency: Option<u32>,
    pub(super) queues: Vec<String>,
    pub(super) load_average: Option<Vec<f64>>,
    pub(super) active_tasks: Option<u32>,
    /// The scrubbed inspect data as JSON text.
    pub(super) metadata: String,
}

/// Takes over what the heartbeat says of the process itself.
pub(super) fn read(health: &mut ProcessHealth, heartbeat: &Heartbeat<'_>, tally: EventTally) {
    health.buffer_size = heartbeat.buffer_size.or(health.buffer_size);
    health.dropped_events = heartbeat.dropped_events.or(health.dropped_events);
    lose(health, heartbeat.telemetry_loss.as_ref());
    count(health, tally);
    health.adapter_errors.clear();
    for (key, text) in &heartbeat.adapter_health {
        match key.rsplit_once('.') {
            Some((engine, "broker_connected")) if engine.parse::<Engine>().is_ok() => {
                health.broker_connected.insert(engine.to_owned(), text.eq_ignore_ascii_case("true"));
            }
            Some((engine, "broker_error" | "error")) if engine.parse::<Engine>().is_ok() => {
                health.adapter_errors.insert(engine.to_owned(), shown(text));
            }
            None if key == "error" => {
                health.adapter_errors.insert("agent".to_owned(), shown(text));
            }
            Some(_) | None => {}
        }
    }
}

/// Takes over the agent's own count of what it lost.
pub(super) fn lose(health: &mut ProcessHealth, loss: Option<&TelemetryLoss>) {
    if let Some(loss) = loss {
        health.telemetry_loss = serde_json::to_string(loss).ok();
    }
}

pub(super) fn count(health: &mut ProcessHealth, tally: EventTally) {
    health.received_count = tally.received;
    health.first_received_at = tally.first_received_at;
    health.named_worker_count = tally.named_worker;
}

fn shown(text: &str) -> String {
    domain::redact::text(text).chars().take(ERROR_CHARS_MAX).collect()
}

/// The texts of one kind of fact, by engine.
fn documents<'a>(heartbeat: &'a Heartbeat<'_>, fact: &'static str) -> impl Iterator<Item = (Engine, &'a str)> {
    heartbeat.adapter_health.iter().filter_map(move |(key, text)| {
        let (engine, name) = key.rsplit_once('.')?;
        (name == fact).then(|| Some((Engine::from_str(engine).ok()?, text.as_ref())))?
    })
}

/// Every worker that the heartbeat describes.
pub(super) fn worker_details(heartbeat: &Heartbeat<'_>) -> Vec<(Engine, Vec<WorkerDetail>)> {
    documents(heartbeat, "worker_details")
        .filter_map(|(engine, text)| {
            let scrubbed = domain::redact::by_worker(text);
            let Ok(Value::Object(workers)) = serde_json::from_str::<Value>(&scrubbed) else { return None };
            Some((
                engine,
                workers.into_iter().take(WORKERS_MAX).filter_map(|(name, data)| detail(name, data)).collect(),
            ))
        })
        .collect()
}

/// Every queue depth that the heartbeat reports.
pub(super) fn queue_depths(heartbeat: &Heartbeat<'_>) -> Vec<(Engine, String, u64)> {
    documents(heartbeat, "queue_depths")
        .filter_map(|(engine, text)| Some((engine, serde_json::from_str::<serde_json::Map<_, _>>(text).ok()?)))
        .flat_map(|(engine, depths)| {
            depths
                .into_iter()
                .map(|(queue, depth): (String, Value)| (domain::redact::text(&queue).into_owned(), depth))
                .filter(|(queue, _)| is_name(queue))
                .filter_map(move |(queue, depth)| Some((engine, queue, depth.as_u64()?)))
        })
        .collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pool {
    #[serde(rename = "max-concurrency")]
    max_concurrency: Option<u32>,
    processes: Option<Vec<Value>>,
}

/// Members of a worker's details that are kept, and of its settings: the agents' own lists, applied again to those
/// that send more (contract D29).
const DETAILS: [&str; 5] = ["stats", "active", "active_queues", "registered", "conf"];
const SETTINGS: [&str; 16] = [
    "accept_content",
    "broker_heartbeat",
    "broker_pool_limit",
    "enable_utc",
    "result_serializer",
    "task_acks_late",
    "task_default_queue",
    "task_reject_on_worker_lost",
    "task_serializer",
    "task_soft_time_limit",
    "task_time_limit",
    "timezone",
    "worker_concurrency",
    "worker_max_memory_per_child",
    "worker_max_tasks_per_child",
    "worker_prefetch_multiplier",
];

fn detail(name: String, mut data: Value) -> Option<WorkerDetail> {
    if !is_name(&name) {
        return None;
    }
    data.as_object_mut()?.retain(|member, _| DETAILS.contains(&member.as_str()));
    if let Some(conf) = data.get_mut("conf").and_then(Value::as_object_mut) {
        conf.retain(|setting, _| SETTINGS.contains(&setting.as_str()));
    }
    let stats = &data["stats"];
    let pool: Pool = serde_json::from_value(stats["pool"].clone()).unwrap_or_default();
    // max-concurrency does not follow a resize, the list of processes does (WIRE 12.12).
    let processes = pool.processes.and_then(|list| u32::try_from(list.len()).ok()).filter(|count| *count > 0);
    let queues = data["active_queues"].as_array().into_iter().flatten();
    Some(WorkerDetail {
        hostname: name.split_once('@').map(|(_, host)| host.to_owned()),
        pid: stats["pid"].as_i64(),
        concurrency: processes.or(pool.max_concurrency),
        queues: queues
            .filter_map(|queue| queue["name"].as_str())
            .filter(|name| is_name(name))
            .map(str::to_owned)
            .collect(),
        load_average: serde_json::from_value(stats["loadavg"].clone()).ok(),
        active_tasks: data["active"].as_array().and_then(|active| u32::try_from(active.len()).ok()),
        metadata: data.to_string(),
        name,
    })
}
