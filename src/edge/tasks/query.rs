//! The parameters of the task list.

use std::str::FromStr;

use domain::engine::Engine;
use domain::task::{Filter, Priority, PrioritySet, State};
use domain::time::Timestamp;
use serde_json::Value;
use utoipa::IntoParams;

use super::column::Column;
use crate::edge::error::Problem;
use crate::edge::extract::fields::{Fields, FromFields};
use crate::edge::extract::parse;
use crate::edge::words;

pub(in crate::edge) const LIMIT_MAX: i64 = 5000;
/// Longest text of a filter, as the reference takes it.
pub(super) const TEXT_MAX: usize = 200;
/// Longest text of the filters that the reference lacks: the longest name a task is looked up by.
const NAME_MAX: usize = 500;

pub(super) const STATES: &str =
    "Input should be 'received', 'started', 'succeeded', 'failed', 'cancelled', 'retried' or 'lost'";
pub(super) const PRIORITIES: &str = "Input should be 'critical', 'high', 'normal' or 'low'";

/// What a list or an export is about.
#[derive(Debug)]
pub(super) struct ListQuery {
    pub(super) filter: Filter,
    pub(super) cursor: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) include_total: bool,
    pub(super) format: Format,
    pub(super) fields: Option<Vec<Column>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    Csv,
    Xlsx,
    Ndjson,
}

impl FromStr for Format {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "xlsx" => Ok(Self::Xlsx),
            "ndjson" => Ok(Self::Ndjson),
            _ => Err(()),
        }
    }
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let filter = Filter {
            state: fields.optional("state", state),
            priorities: fields.optional("priority", priorities).unwrap_or_default(),
            engine: fields.optional("engine", engine),
            name: fields.optional("name", parse::text(1..=TEXT_MAX)),
            name_prefix: fields.optional("name_prefix", parse::text(1..=NAME_MAX)),
            name_contains: fields.optional("name_contains", parse::text(1..=NAME_MAX)),
            queue: fields.optional("queue", parse::text(1..=TEXT_MAX)),
            worker: fields.optional("worker", parse::text(1..=TEXT_MAX)),
            // White space alone would match everything, which nobody who searches wants.
            search: fields.optional("search", parse::name(1..=TEXT_MAX)),
            since: fields.optional("since", parse::timestamp),
            until: fields.optional("until", parse::timestamp),
        };
        Some(Self {
            filter,
            cursor: fields.optional("cursor", parse::text(0..=usize::MAX)),
            limit: fields.optional("limit", limit(LIMIT_MAX)),
            include_total: fields.optional("include_total", parse::boolean).unwrap_or_default(),
            format: fields.optional("format", format).unwrap_or(Format::Json),
            fields: fields.optional("fields", parse::columns(column)),
        })
    }
}

/// A page's size, at most `max`.
pub(in crate::edge) fn limit(max: i64) -> impl Fn(&Value) -> Result<usize, Problem> {
    let integer = parse::integer(1..=max);
    move |value| integer(value).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

pub(super) fn state(value: &Value) -> Result<State, Problem> {
    parse::form::<State>(STATES)(value)
}

/// Priorities as a text with commas, or as a list.
pub(super) fn priorities(value: &Value) -> Result<PrioritySet, Problem> {
    if value.is_array() {
        let priority = parse::form::<Priority>(PRIORITIES);
        return parse::list(1..=Priority::ALL.len(), priority)(value).map(|list| list.into_iter().collect());
    }
    parse::form::<PrioritySet>(PRIORITIES)(value)
}

pub(in crate::edge) fn engine(value: &Value) -> Result<Engine, Problem> {
    parse::form::<Engine>("Input should be 'celery', 'rq', 'dramatiq', 'huey', 'arq' or 'taskiq'")(value)
}

fn format(value: &Value) -> Result<Format, Problem> {
    parse::form::<Format>("Input should be 'json', 'csv', 'xlsx' or 'ndjson'")(value)
}

fn column(value: &Value) -> Result<Column, Problem> {
    let names = || Column::ALL.map(Column::name).join(", ");
    let column = value.as_str().and_then(Column::named);
    column.ok_or_else(|| parse::wrong("value_error", format!("Fields are {}", names())))
}

/// As clients write it; [`ListQuery`] is what it is read into.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters to OpenAPI")]
struct Described {
    /// One of `received, started, succeeded, failed, cancelled, retried, lost`, or an alias of the reference.
    #[param(inline, example = "failed")]
    state: Option<words::State>,
    /// Comma-separated; tasks of any of them.
    #[param(
        pattern = r"^ *(critical|high|normal|low) *(, *(critical|high|normal|low) *)*$",
        example = "critical,high"
    )]
    priority: Option<String>,
    #[param(inline)]
    engine: Option<words::Engine>,
    /// The whole name.
    #[param(min_length = 1, max_length = 200, example = "email.send")]
    name: Option<String>,
    #[param(min_length = 1, max_length = 500)]
    name_prefix: Option<String>,
    #[param(min_length = 1, max_length = 500)]
    name_contains: Option<String>,
    #[param(min_length = 1, max_length = 200)]
    queue: Option<String>,
    #[param(min_length = 1, max_length = 200, example = "worker-1@host")]
    worker: Option<String>,
    /// Each word must occur in name, queue or worker, in any case, or be the task's id.
    #[param(min_length = 1, max_length = 200)]
    search: Option<String>,
    /// Inclusive bound on `received_at`.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Inclusive bound on `received_at`.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// `next_cursor` of the page before, with the same filters.
    cursor: Option<String>,
    /// The default is a setting of the server.
    #[param(minimum = 1, maximum = 5000)]
    limit: Option<u32>,
    /// Adds `total_count`: exact without filters, with filters null when it would cost too much.
    include_total: Option<bool>,
    /// `json`, or `csv`, `xlsx`, `ndjson` for the whole filtered result; cursor and limit are then ignored.
    #[param(inline)]
    format: Option<Format>,
    /// Comma-separated members of a task, in the order wanted; `worker` for `worker_name`.
    #[param(pattern = r"^ *[a-z_]+ *(, *[a-z_]+ *)*$", example = "task_id,state,worker")]
    fields: Option<String>,
}

impl IntoParams for ListQuery {
    fn into_params(
        place: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
    ) -> Vec<utoipa::openapi::path::Parameter> {
        Described::into_params(place)
    }
}
