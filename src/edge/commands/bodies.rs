//! The bodies of the verbs, for OpenAPI; they are read by `domain::command`.

#![expect(dead_code, reason = "describes bodies to OpenAPI")]

use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::edge::words;

#[derive(ToSchema)]
pub(super) struct RetryTask {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(inline, example = "celery")]
    engine: words::Engine,
    #[schema(min_length = 1, max_length = 200)]
    task_id: String,
    /// Replaces the positional arguments; at most 64 KiB of JSON. One half alone only for Celery.
    override_args: Option<Vec<Value>>,
    /// Replaces the keyword arguments; at most 64 KiB of JSON.
    #[schema(value_type = Option<Object>, example = json!({"foo": "bar"}))]
    override_kwargs: Option<Value>,
    /// Not before this time (Celery, RQ, arq).
    #[schema(format = "date-time")]
    eta: Option<String>,
    /// Not before so many seconds from now.
    #[schema(minimum = 0, maximum = 86400)]
    eta_seconds: Option<u32>,
    /// Celery only.
    #[schema(inline)]
    priority: Option<words::Priority>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct CancelTask {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(inline, example = "celery")]
    engine: words::Engine,
    #[schema(min_length = 1, max_length = 200)]
    task_id: String,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct BulkRetry {
    #[schema(format = "uuid")]
    agent_id: String,
    filter: BulkFilter,
    #[schema(minimum = 1, maximum = 10000, default = 1000)]
    max: Option<u32>,
    /// Answers what would be retried, and mints nothing.
    #[schema(default = false)]
    dry_run: Option<bool>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

/// At least one member besides `engine`.
#[derive(ToSchema)]
pub(super) struct BulkFilter {
    #[schema(inline, example = "failed")]
    state: Option<words::State>,
    /// An alias of `state`.
    #[schema(inline)]
    status: Option<words::State>,
    /// Needed when the agent has several.
    #[schema(inline)]
    engine: Option<words::Engine>,
    #[schema(min_length = 1, max_length = 200)]
    queue: Option<String>,
    #[schema(min_length = 1, max_length = 500, example = "email.send")]
    name: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    worker: Option<String>,
    /// Separated by commas.
    #[schema(
        pattern = r"^ *(critical|high|normal|low) *(, *(critical|high|normal|low) *)*$",
        example = "critical,high"
    )]
    priority: Option<String>,
    #[schema(format = "date-time")]
    since: Option<String>,
    #[schema(format = "date-time")]
    until: Option<String>,
    #[schema(value_type = Option<Vec<TaskName>>, min_items = 1, max_items = 10000)]
    task_ids: Option<Vec<String>>,
}

/// What a dry run, or a filter that matches nothing, answers.
#[derive(ToSchema)]
pub(super) struct BulkMatch {
    count: u64,
    /// The first 100.
    task_ids: Vec<String>,
}

/// One of `confirm_token`, `observed_depth` and `force` is needed.
#[derive(ToSchema)]
pub(super) struct PurgeQueue {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 200)]
    queue: String,
    #[schema(inline)]
    engine: Option<words::Engine>,
    #[schema(min_length = 1, max_length = 128)]
    confirm_token: Option<String>,
    /// The server makes the token from it.
    #[schema(minimum = 0)]
    observed_depth: Option<u64>,
    #[schema(default = false)]
    force: Option<bool>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct RestartWorker {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 200, example = "worker-1@host")]
    worker_name: String,
    #[schema(inline)]
    engine: Option<words::Engine>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct PoolResize {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 200, example = "worker-1@host")]
    worker_name: String,
    #[schema(inline)]
    engine: Option<words::Engine>,
    /// Positive grows, negative shrinks; never zero.
    #[schema(value_type = Delta)]
    delta: i8,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

/// Positive grows, negative shrinks; never zero.
pub(super) struct Delta;

impl PartialSchema for Delta {
    fn schema() -> RefOr<Schema> {
        let between = |low: i32, high: i32| {
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(low)).maximum(Some(high))
        };
        OneOfBuilder::new().item(between(-100, -1)).item(between(1, 100)).into()
    }
}

impl ToSchema for Delta {}

/// A task id of an engine, or one of ours.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 200)]
pub(crate) struct TaskName(String);

/// Of add-consumer and of cancel-consumer.
#[derive(ToSchema)]
pub(super) struct Consumer {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 200, example = "worker-1@host")]
    worker_name: String,
    #[schema(inline)]
    engine: Option<words::Engine>,
    #[schema(min_length = 1, max_length = 200, example = "billing")]
    queue: String,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct RateLimit {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 500, example = "email.send")]
    task_name: String,
    /// `0` clears the limit.
    #[schema(pattern = r"^(0|[1-9][0-9]*(/[smh])?)$", max_length = 20, example = "100/m")]
    rate: String,
    /// Omitted or empty: every worker on the broker.
    #[schema(max_length = 200)]
    worker_name: Option<String>,
    #[schema(inline)]
    engine: Option<words::Engine>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}
