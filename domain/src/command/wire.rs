//! A command as agents read it: action, target, parameters (WIRE 6.3, REST section 3).
//!
//! What may hold a secret (overrides, a purge's confirm token) never stands in the parameters that are kept
//! and shown: it is kept apart, encrypted, and put in when the frame is made ([`frame_body`]).

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::action::Action;
use super::chunk::Chunk;
use super::claim::Claim;
use super::draft::Draft;
use super::record::{Command, TargetType};
use super::request::{Eta, Request};
use crate::engine::Engine;
use crate::time::Timestamp;
use crate::wire::CommandBody;
use crate::wire::canonical::Refusal;

/// What a draft comes to before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub action: Action,
    pub target_type: TargetType,
    pub target_id: Option<String>,
    pub engine: Option<Engine>,
    /// Parameters without secrets, a JSON object.
    pub payload: String,
    /// Members of the parameters that hold secrets, a JSON object; encrypted before it is kept.
    pub secrets: Option<String>,
}

impl Form {
    /// The form of a draft. Parameters have one member set per action, null where nothing was given.
    pub fn of(draft: &Draft, now: Timestamp) -> Self {
        let engine = draft.engine();
        let action = draft.request.action();
        let form = |target_type, target_id: Option<String>, payload: Value| Self {
            action,
            target_type,
            target_id,
            engine,
            payload: payload.to_string(),
            secrets: None,
        };
        match &draft.request {
            Request::RetryTask { engine, task_id, overrides, eta, priority } => {
                let (at, within) = match eta {
                    None => (None, None),
                    Some(Eta::In(seconds)) => (Some(now.plus_secs(i64::from(*seconds))), Some(*seconds)),
                    Some(Eta::At(at)) => (Some(*at), None),
                };
                // Engines other than Celery fail a retry that carries a priority (WIRE 12.14).
                let row_priority = draft.resolved.priority.filter(|_| *engine == Engine::Celery);
                let mut form = form(
                    TargetType::Task,
                    Some(format!("{engine}:{task_id}")),
                    json!({
                        "engine": engine, "task_id": task_id, "task_name": draft.resolved.task_name,
                        "args": null, "kwargs": null, "override_args": null, "override_kwargs": null,
                        "original_had_args": draft.resolved.had_args,
                        "eta": at.map(posix_seconds), "eta_seconds": within,
                        "priority": priority.or(row_priority),
                    }),
                );
                form.secrets = members(&[("override_args", &overrides.args), ("override_kwargs", &overrides.kwargs)]);
                form
            }
            Request::CancelTask { engine, task_id } => form(
                TargetType::Task,
                Some(format!("{engine}:{task_id}")),
                json!({ "engine": engine, "task_id": task_id }),
            ),
            Request::BulkRetry { filter, max, dry_run: _ } => form(
                TargetType::Bulk,
                None,
                json!({ "filter": shown_filter(filter, engine), "max": max, "total": draft.resolved.tasks.len() }),
            ),
            Request::PurgeQueue { queue, engine: _, confirm: _, force } => {
                let mut form = form(
                    TargetType::Queue,
                    Some(queue.clone()),
                    json!({ "queue": queue, "confirm_token": null, "force": force, "engine": engine }),
                );
                let token = draft.resolved.confirm_token.as_ref().map(|token| Value::from(token.as_str()).to_string());
                form.secrets = members(&[("confirm_token", &token)]);
                form
            }
            Request::RestartWorker { worker, engine: _ } => {
                form(TargetType::Worker, Some(worker.clone()), json!({ "worker_name": worker, "engine": engine }))
            }
            Request::PoolResize { worker, engine: _, delta } => form(
                TargetType::Worker,
                Some(worker.clone()),
                json!({ "worker_name": worker, "engine": engine, "delta": delta.unsigned_abs() }),
            ),
            Request::AddConsumer { worker, engine: _, queue }
            | Request::CancelConsumer { worker, engine: _, queue } => form(
                TargetType::Worker,
                Some(worker.clone()),
                json!({ "worker_name": worker, "engine": engine, "queue": queue }),
            ),
            Request::RateLimit { task_name, rate, worker, engine: _ } => form(
                TargetType::Task,
                Some(task_name.clone()),
                json!({ "task_name": task_name, "rate": rate, "worker_name": worker, "engine": engine }),
            ),
        }
    }
}

fn shown_filter(filter: &super::filter::BulkFilter, engine: Option<Engine>) -> Value {
    let mut shown = json!({ "engine": engine });
    let named = json!({
        "state": filter.state, "queue": filter.queue, "name": filter.name, "worker": filter.worker,
        "since": filter.since, "until": filter.until, "task_ids": filter.task_ids.as_ref().map(Vec::len),
        "priority": (!filter.priority.is_empty()).then_some(&filter.priority),
    });
    if let (Value::Object(shown), Value::Object(named)) = (&mut shown, named) {
        shown.extend(named.into_iter().filter(|(_, value)| !value.is_null()));
    }
    shown
}

/// The reference sends seconds with a fraction; agents read any number.
fn posix_seconds(at: Timestamp) -> f64 {
    at.micros() as f64 / 1e6
}

/// An object of the members that are given; none given, no object.
fn members(given: &[(&str, &Option<String>)]) -> Option<String> {
    let members: Vec<String> =
        given.iter().filter_map(|(name, json)| json.as_ref().map(|json| format!("\"{name}\":{json}"))).collect();
    (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
}

/// Puts members of one JSON object into another, replacing those of equal name. Texts stay as they were written.
pub fn overlay(object: &str, members: &str) -> String {
    type Members<'a> = BTreeMap<String, &'a RawValue>;
    let mut merged: Members<'_> = serde_json::from_str(object).unwrap_or_default();
    merged.extend(serde_json::from_str::<Members<'_>>(members).unwrap_or_default());
    serde_json::to_string(&merged).unwrap_or_else(|_| object.to_owned())
}

/// Parameters of one frame of a bulk command.
pub fn chunk_parameters(engine: Option<Engine>, chunk: &Chunk) -> String {
    let ids: Vec<&str> = chunk.tasks.iter().map(|task| task.task_id.as_str()).collect();
    let by_id = |text: fn(&super::chunk::FrozenTask) -> Option<&str>| -> BTreeMap<&str, &str> {
        chunk.tasks.iter().filter_map(|task| Some((task.task_id.as_str(), text(task)?))).collect()
    };
    json!({
        "filter": {
            "engine": engine,
            "task_ids": ids,
            "task_names": by_id(|task| task.name.as_deref()),
            "task_priorities": by_id(|task| task.priority.as_deref()),
        },
        "max": chunk.tasks.len(),
    })
    .to_string()
}

/// The payload of a command frame.
///
/// `secrets` is the opened form of what was kept encrypted; `chunk` the frozen ids of a bulk command.
pub fn frame_body(
    command: &Command,
    secrets: Option<&str>,
    chunk: Option<&Chunk>,
    claim: Claim,
    now: Timestamp,
) -> Result<CommandBody, Refusal> {
    let parameters = match (chunk, secrets) {
        (Some(chunk), _) => chunk_parameters(command.engine, chunk),
        (None, Some(secrets)) => overlay(&command.payload, secrets),
        (None, None) => command.payload.clone(),
    };
    let mut target = json!({ "type": command.target_type, "id": wire_target_id(command) });
    if let (Value::Object(target), Some(engine)) = (&mut target, command.engine) {
        target.insert("engine".into(), engine.as_str().into());
    }
    let (target, parameters) = (raw(target.to_string()), raw(parameters));
    let timeout = u32::try_from(command.deadline.since(now) / 1_000_000).unwrap_or(1).clamp(1, 3600);
    let (issued_by, claim) = (command.issued_by.map(|user| user.to_string()), claim.to_string());
    CommandBody::new(command.action.as_str(), &target, &parameters, timeout, issued_by.as_deref(), Some(&claim))
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("payloads are written by a serializer")
}

/// A broadcast must not name a target: agents fall back to `target.id` and would address a worker called like
/// the task (contract D17).
fn wire_target_id(command: &Command) -> Option<&str> {
    match command.action {
        Action::RateLimit if command.global_throttle => None,
        Action::RateLimit
        | Action::RetryTask
        | Action::CancelTask
        | Action::BulkRetry
        | Action::PurgeQueue
        | Action::RestartWorker
        | Action::PoolGrow
        | Action::PoolShrink
        | Action::AddConsumer
        | Action::CancelConsumer => command.target_id.as_deref(),
    }
}

#[cfg(test)]
mod tests;
