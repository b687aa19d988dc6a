//! The bodies of the verbs, for OpenAPI; they are read by `domain::command`.

#![expect(dead_code, reason = "describes bodies to OpenAPI")]

use serde_json::Value;
use utoipa::ToSchema;

#[derive(ToSchema)]
pub(super) struct RetryTask {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(example = "celery")]
    engine: String,
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
    /// critical, high, normal or low; Celery only.
    priority: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct CancelTask {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(example = "celery")]
    engine: String,
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
    #[schema(example = "failed")]
    state: Option<String>,
    /// Needed when the agent has several.
    engine: Option<String>,
    queue: Option<String>,
    #[schema(example = "email.send")]
    name: Option<String>,
    worker: Option<String>,
    /// Separated by commas.
    priority: Option<String>,
    #[schema(format = "date-time")]
    since: Option<String>,
    #[schema(format = "date-time")]
    until: Option<String>,
    #[schema(min_items = 1, max_items = 10000)]
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
    engine: Option<String>,
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
    #[schema(min_length = 1, max_length = 200, example = "celery@worker-1")]
    worker_name: String,
    engine: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct PoolResize {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 200, example = "celery@worker-1")]
    worker_name: String,
    engine: Option<String>,
    /// Positive grows, negative shrinks; never zero.
    #[schema(minimum = -100, maximum = 100)]
    delta: i8,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

/// Of add-consumer and of cancel-consumer.
#[derive(ToSchema)]
pub(super) struct Consumer {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 200, example = "celery@worker-1")]
    worker_name: String,
    engine: Option<String>,
    #[schema(min_length = 1, max_length = 200, example = "billing")]
    queue: String,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

#[derive(ToSchema)]
pub(super) struct RateLimit {
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(min_length = 1, max_length = 500, example = "myapp.tasks.send_email")]
    task_name: String,
    /// `0` clears the limit.
    #[schema(pattern = r"^(0|[1-9][0-9]*(/[smh])?)$", max_length = 20, example = "100/m")]
    rate: String,
    /// Omitted or empty: every worker on the broker.
    worker_name: Option<String>,
    engine: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}
