//! What the task routes answer.

use cql::tasks::Tree;
use domain::engine::Engine;
use domain::id::address::TaskId;
use domain::task::{State, TaskRow};
use domain::time::Timestamp;
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::column::{Column, Projected};

/// A page of the list.
#[derive(Serialize)]
pub(super) struct Page {
    pub(super) items: Items,
    pub(super) next_cursor: Option<String>,
    pub(super) total_count: Option<u64>,
}

/// Rows, whole or with the asked members only.
pub(super) enum Items {
    Whole(Vec<TaskRow>),
    Projected(Vec<TaskRow>, Vec<Column>),
}

impl Serialize for Items {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(rows) => rows.serialize(serializer),
            Self::Projected(rows, columns) => serializer.collect_seq(rows.iter().map(|row| Projected(row, columns))),
        }
    }
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Page` to OpenAPI")]
pub(super) struct TaskPage {
    items: Vec<Item>,
    /// Null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Null unless `include_total` was asked for, or when it would cost too much to know.
    #[schema(required)]
    total_count: Option<u64>,
}

/// A task.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `TaskRow` to OpenAPI")]
pub(super) struct TaskPublic {
    /// Ours: sortable by time, stable for life.
    #[schema(example = "01KPB2K7TMWB0ERGA05FV2EFER")]
    id: String,
    #[schema(format = "uuid")]
    project_id: String,
    #[schema(example = "celery")]
    engine: String,
    /// The engine's own id.
    #[schema(example = "9d2c1f6e-8a57-4a0e-b6a6-2a7c6f1f6f0e")]
    task_id: String,
    #[schema(example = "email.send")]
    name: String,
    #[schema(required)]
    queue: Option<String>,
    /// `received, started, succeeded, failed, cancelled, retried` or `lost`.
    #[schema(example = "failed")]
    state: String,
    /// `critical, high, normal` or `low`.
    #[schema(example = "normal")]
    priority: String,
    /// Redacted.
    #[schema(required)]
    args: Option<Vec<Value>>,
    /// Redacted.
    #[schema(required, value_type = Option<Object>)]
    kwargs: Option<Value>,
    #[schema(required)]
    result: Option<Value>,
    #[schema(required, example = "ConnectionError: mail.example.org does not answer")]
    exception: Option<String>,
    #[schema(required)]
    traceback: Option<String>,
    retry_count: u32,
    #[schema(required, format = "date-time")]
    eta: Option<String>,
    #[schema(format = "date-time")]
    received_at: String,
    #[schema(required, format = "date-time")]
    started_at: Option<String>,
    #[schema(required, format = "date-time")]
    finished_at: Option<String>,
    #[schema(required)]
    runtime_ms: Option<u32>,
    #[schema(required, example = "worker-1@host")]
    worker_name: Option<String>,
    #[schema(required)]
    parent_task_id: Option<String>,
    #[schema(required)]
    root_task_id: Option<String>,
    tags: Vec<String>,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    updated_at: String,
}

/// A whole task, or with `fields` the members asked for.
struct Item;

impl PartialSchema for Item {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new().item(Ref::from_schema_name(TaskPublic::name())).item(TaskFields::schema()).into()
    }
}

impl ToSchema for Item {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((TaskPublic::name().into_owned(), TaskPublic::schema()));
        TaskPublic::schemas(schemas);
    }
}

/// Some members of a task, `worker` being `worker_name`.
struct TaskFields;

impl PartialSchema for TaskFields {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut task)) = TaskPublic::schema() else { return TaskPublic::schema() };
        task.required.clear();
        task.properties.extend(task.properties.get("worker_name").cloned().map(|worker| ("worker".to_owned(), worker)));
        task.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        task.into()
    }
}

/// Every task of one root, by time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TreeView {
    root_task_id: String,
    node_count: usize,
    /// There are more than the 500 shown.
    truncated: bool,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Node {
    #[schema(value_type = String)]
    id: TaskId,
    #[schema(value_type = String, example = "celery")]
    engine: Engine,
    task_id: String,
    name: String,
    #[schema(value_type = String, example = "failed")]
    state: State,
    parent_task_id: Option<String>,
    root_task_id: Option<String>,
    #[schema(value_type = String, format = "date-time")]
    received_at: Timestamp,
    #[schema(value_type = Option<String>, format = "date-time")]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = "date-time")]
    finished_at: Option<Timestamp>,
}

impl From<Tree> for TreeView {
    fn from(tree: Tree) -> Self {
        let Tree { root_task_id, truncated, nodes } = tree;
        let nodes: Vec<Node> = nodes.into_iter().map(Node::from).collect();
        Self { root_task_id, node_count: nodes.len(), truncated, nodes }
    }
}

impl From<TaskRow> for Node {
    fn from(row: TaskRow) -> Self {
        Self {
            id: row.id,
            engine: row.engine,
            task_id: row.task_id,
            name: row.name,
            state: row.state,
            parent_task_id: row.parent_task_id,
            root_task_id: row.root_task_id,
            received_at: row.received_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
        }
    }
}
