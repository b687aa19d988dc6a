//! One validated request per verb.
//!
//! Everything that can be refused by looking at the body alone is refused here, so a request that exists is
//! well-formed: its lengths, its rate, its delta, its overrides for its engine.

use sha2::{Digest, Sha256};

use super::action::{Action, Verb};
use super::field::{FieldError, Fields};
use super::filter::{BulkFilter, TASKS_MAX};
use super::overrides::Overrides;
use crate::engine::Engine;
use crate::id::AgentId;
use crate::task::Priority;
use crate::time::Timestamp;

/// Longest name of a task id, queue or worker, in characters.
const NAME_MAX: usize = 200;
const TASK_NAME_MAX: usize = 500;

/// When a retried task is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Eta {
    In(u32),
    At(Timestamp),
}

/// What is asked, verb by verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    RetryTask {
        engine: Engine,
        task_id: String,
        overrides: Overrides,
        eta: Option<Eta>,
        priority: Option<Priority>,
    },
    CancelTask {
        engine: Engine,
        task_id: String,
    },
    BulkRetry {
        filter: BulkFilter,
        max: u32,
        dry_run: bool,
    },
    PurgeQueue {
        queue: String,
        engine: Option<Engine>,
        confirm: Option<Confirm>,
        force: bool,
    },
    RestartWorker {
        worker: String,
        engine: Option<Engine>,
    },
    /// Positive grows, negative shrinks; never zero.
    PoolResize {
        worker: String,
        engine: Option<Engine>,
        delta: i8,
    },
    AddConsumer {
        worker: String,
        engine: Option<Engine>,
        queue: String,
    },
    CancelConsumer {
        worker: String,
        engine: Option<Engine>,
        queue: String,
    },
    /// Without a worker: every worker on the broker.
    RateLimit {
        task_name: String,
        rate: String,
        worker: Option<String>,
        engine: Option<Engine>,
    },
}

/// How the caller confirms a purge: with the token, or with the depth that the server makes it from.
#[derive(Clone, PartialEq, Eq)]
pub enum Confirm {
    Token(String),
    Depth(u64),
}

/// The token is a capability, so it is not printed.
impl std::fmt::Debug for Confirm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Depth(depth) => write!(f, "Depth({depth})"),
        }
    }
}

/// A validated body: whom to ask, what, and under which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub agent: AgentId,
    pub request: Request,
    pub idempotency_key: Option<String>,
}

impl Asked {
    /// Reads and checks the body of a verb; every mistake is in the answer.
    pub fn parse(verb: Verb, body: &[u8]) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields::parse(body)?;
        let agent = fields.agent();
        let idempotency_key = fields.optional_text("idempotency_key", 1, NAME_MAX);
        let request = Request::take(verb, &mut fields);
        let asked = match (agent, request) {
            (Some(agent), Some(request)) => Some(Self { agent, request, idempotency_key }),
            (None, _) | (_, None) => None,
        };
        fields.finish(asked)
    }

    /// What an idempotency key stands for: verb and validated request, never a resolved id set (contract D21).
    pub fn hash(&self) -> [u8; 32] {
        self.request.hash(self.agent)
    }
}

impl Request {
    fn take(verb: Verb, fields: &mut Fields<'_>) -> Option<Self> {
        match verb {
            Verb::RetryTask => retry_task(fields),
            Verb::CancelTask => {
                let (engine, task_id) = (fields.word("engine"), fields.text("task_id", 1, NAME_MAX));
                Some(Self::CancelTask { engine: engine?, task_id: task_id? })
            }
            Verb::BulkRetry => {
                let max = fields.optional_integer("max", 1, TASKS_MAX as i64).unwrap_or(1000) as u32;
                let dry_run = fields.flag("dry_run");
                BulkFilter::take(fields).map(|filter| Self::BulkRetry { filter, max, dry_run })
            }
            Verb::PurgeQueue => purge_queue(fields),
            Verb::RestartWorker => {
                let (worker, engine) = worker(fields);
                Some(Self::RestartWorker { worker: worker?, engine })
            }
            Verb::PoolResize => {
                let (worker, engine) = worker(fields);
                let delta = fields.integer("delta", -100, 100);
                if delta == Some(0) {
                    fields.fail("delta", "must not be zero", "value_error");
                }
                Some(Self::PoolResize { worker: worker?, engine, delta: i8::try_from(delta?).ok()? })
            }
            Verb::AddConsumer => {
                let (worker, engine, queue) = consumer(fields);
                Some(Self::AddConsumer { worker: worker?, engine, queue: queue? })
            }
            Verb::CancelConsumer => {
                let (worker, engine, queue) = consumer(fields);
                Some(Self::CancelConsumer { worker: worker?, engine, queue: queue? })
            }
            Verb::RateLimit => rate_limit(fields),
        }
    }

    pub const fn verb(&self) -> Verb {
        match self {
            Self::RetryTask { .. } => Verb::RetryTask,
            Self::CancelTask { .. } => Verb::CancelTask,
            Self::BulkRetry { .. } => Verb::BulkRetry,
            Self::PurgeQueue { .. } => Verb::PurgeQueue,
            Self::RestartWorker { .. } => Verb::RestartWorker,
            Self::PoolResize { .. } => Verb::PoolResize,
            Self::AddConsumer { .. } => Verb::AddConsumer,
            Self::CancelConsumer { .. } => Verb::CancelConsumer,
            Self::RateLimit { .. } => Verb::RateLimit,
        }
    }

    /// The action on the wire: there is no `pool_resize` there, the sign chooses.
    pub const fn action(&self) -> Action {
        match self {
            Self::RetryTask { .. } => Action::RetryTask,
            Self::CancelTask { .. } => Action::CancelTask,
            Self::BulkRetry { .. } => Action::BulkRetry,
            Self::PurgeQueue { .. } => Action::PurgeQueue,
            Self::RestartWorker { .. } => Action::RestartWorker,
            Self::PoolResize { delta, .. } if *delta > 0 => Action::PoolGrow,
            Self::PoolResize { .. } => Action::PoolShrink,
            Self::AddConsumer { .. } => Action::AddConsumer,
            Self::CancelConsumer { .. } => Action::CancelConsumer,
            Self::RateLimit { .. } => Action::RateLimit,
        }
    }

    /// The engine the caller named, if the verb lets him.
    pub const fn engine(&self) -> Option<Engine> {
        match self {
            Self::RetryTask { engine, .. } | Self::CancelTask { engine, .. } => Some(*engine),
            Self::BulkRetry { filter, .. } => filter.engine,
            Self::PurgeQueue { engine, .. }
            | Self::RestartWorker { engine, .. }
            | Self::PoolResize { engine, .. }
            | Self::AddConsumer { engine, .. }
            | Self::CancelConsumer { engine, .. }
            | Self::RateLimit { engine, .. } => *engine,
        }
    }

    /// The worker the request names, if any.
    pub fn worker(&self) -> Option<&str> {
        match self {
            Self::RestartWorker { worker, .. }
            | Self::PoolResize { worker, .. }
            | Self::AddConsumer { worker, .. }
            | Self::CancelConsumer { worker, .. } => Some(worker),
            Self::RateLimit { worker, .. } => worker.as_deref(),
            Self::RetryTask { .. } | Self::CancelTask { .. } | Self::BulkRetry { .. } | Self::PurgeQueue { .. } => None,
        }
    }

    /// A rate limit for every worker on the broker (contract D17).
    pub const fn is_global_throttle(&self) -> bool {
        matches!(self, Self::RateLimit { worker: None, .. })
    }

    pub const fn is_forced(&self) -> bool {
        matches!(self, Self::PurgeQueue { force: true, .. })
    }

    /// SHA-256 over agent, verb and the request's parts, each with its length: golden, for keys live for days.
    pub fn hash(&self, agent: AgentId) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(b"thalamus-request-1");
        part(&agent.bytes());
        part(self.verb().as_str().as_bytes());
        for text in self.parts() {
            part(text.unwrap_or_else(|| "\0".to_owned()).as_bytes());
        }
        hash.finalize().into()
    }

    fn parts(&self) -> Vec<Option<String>> {
        let engine = |engine: &Option<Engine>| engine.map(|engine| engine.to_string());
        match self {
            Self::RetryTask { engine, task_id, overrides, eta, priority } => vec![
                Some(engine.to_string()),
                Some(task_id.clone()),
                overrides.args.clone(),
                overrides.kwargs.clone(),
                eta.map(|eta| match eta {
                    Eta::In(seconds) => format!("+{seconds}"),
                    Eta::At(at) => at.to_string(),
                }),
                priority.map(|priority| priority.to_string()),
            ],
            Self::CancelTask { engine, task_id } => vec![Some(engine.to_string()), Some(task_id.clone())],
            Self::BulkRetry { filter, max, dry_run: _ } => {
                vec![serde_json::to_string(filter).ok(), Some(max.to_string())]
            }
            Self::PurgeQueue { queue, engine: named, confirm, force } => vec![
                Some(queue.clone()),
                engine(named),
                confirm.as_ref().map(|confirm| match confirm {
                    Confirm::Token(token) => format!("token {token}"),
                    Confirm::Depth(depth) => format!("depth {depth}"),
                }),
                Some(force.to_string()),
            ],
            Self::RestartWorker { worker, engine: named } => vec![Some(worker.clone()), engine(named)],
            Self::PoolResize { worker, engine: named, delta } => {
                vec![Some(worker.clone()), engine(named), Some(delta.to_string())]
            }
            Self::AddConsumer { worker, engine: named, queue }
            | Self::CancelConsumer { worker, engine: named, queue } => {
                vec![Some(worker.clone()), engine(named), Some(queue.clone())]
            }
            Self::RateLimit { task_name, rate, worker, engine: named } => {
                vec![Some(task_name.clone()), Some(rate.clone()), worker.clone(), engine(named)]
            }
        }
    }
}

fn retry_task(fields: &mut Fields<'_>) -> Option<Request> {
    let engine: Option<Engine> = fields.word("engine");
    let task_id = fields.text("task_id", 1, NAME_MAX);
    let overrides = Overrides::take(fields);
    let eta_in = fields.optional_integer("eta_seconds", 0, 86_400).map(|seconds| Eta::In(seconds as u32));
    let eta_at = fields.optional_instant("eta").map(Eta::At);
    if eta_in.is_some() && eta_at.is_some() {
        fields.fail("eta", "give eta or eta_seconds, not both", "value_error");
    }
    let eta = eta_in.or(eta_at);
    let priority = fields.optional_word("priority");
    let engine = engine?;
    if fields.is_clean() {
        overrides.check(engine, fields);
    }
    if eta.is_some() && !matches!(engine, Engine::Celery | Engine::Rq | Engine::Arq) {
        let name = if eta_at.is_some() { "eta" } else { "eta_seconds" };
        fields.fail(name, format!("{engine} cannot retry at a later time"), "value_error");
    }
    if priority.is_some() && engine != Engine::Celery {
        fields.fail("priority", format!("{engine} cannot retry with a priority"), "value_error");
    }
    Some(Request::RetryTask { engine, task_id: task_id?, overrides, eta, priority })
}

fn purge_queue(fields: &mut Fields<'_>) -> Option<Request> {
    let queue = fields.text("queue", 1, NAME_MAX);
    let engine = fields.optional_word("engine");
    let token = fields.optional_text("confirm_token", 1, 128).map(Confirm::Token);
    let depth =
        fields.optional_integer("observed_depth", 0, i64::MAX).map(|depth| Confirm::Depth(depth.unsigned_abs()));
    let force = fields.flag("force");
    let confirm = token.or(depth);
    if confirm.is_none() && !force && fields.is_clean() {
        fields.fail("confirm_token", "give confirm_token, observed_depth or force", "missing");
    }
    Some(Request::PurgeQueue { queue: queue?, engine, confirm, force })
}

fn worker(fields: &mut Fields<'_>) -> (Option<String>, Option<Engine>) {
    (fields.text("worker_name", 1, NAME_MAX), fields.optional_word("engine"))
}

fn consumer(fields: &mut Fields<'_>) -> (Option<String>, Option<Engine>, Option<String>) {
    let (worker, engine) = worker(fields);
    (worker, engine, fields.text("queue", 1, NAME_MAX))
}

fn rate_limit(fields: &mut Fields<'_>) -> Option<Request> {
    let task_name = fields.text("task_name", 1, TASK_NAME_MAX);
    let rate = fields.text("rate", 1, 20);
    // An empty name broadcasts like a missing one (contract M129).
    let worker = fields.optional_text("worker_name", 0, NAME_MAX).filter(|name| !name.is_empty());
    let engine = fields.optional_word("engine");
    if rate.as_deref().is_some_and(|rate| !is_rate(rate)) {
        fields.fail("rate", "must match ^(0|[1-9][0-9]*(/[smh])?)$", "string_pattern_mismatch");
    }
    Some(Request::RateLimit { task_name: task_name?, rate: rate?, worker, engine })
}

/// `^(0|[1-9][0-9]*(/[smh])?)$` (contract M126).
fn is_rate(text: &str) -> bool {
    let digits = text.strip_suffix("/s").or(text.strip_suffix("/m")).or(text.strip_suffix("/h"));
    let (digits, has_unit) = (digits.unwrap_or(text), digits.is_some());
    let counts = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() && !digits.starts_with('0');
    counts || (digits == "0" && !has_unit)
}

#[cfg(test)]
mod tests;
