//! The members of a task as columns: what `fields` can name, and a row's cells.

use std::borrow::Cow;

use domain::task::{Parts, TaskRow};
use domain::time::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

macro_rules! columns {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// A member of a task, or `worker`, which is `worker_name` in fewer letters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Column { $($variant),+ }

        impl Column {
            pub(super) const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

columns! {
    Id "id", ProjectId "project_id", Engine "engine", TaskId "task_id", Name "name", Queue "queue", State "state",
    Priority "priority", Args "args", Kwargs "kwargs", Result "result", Exception "exception",
    Traceback "traceback", RetryCount "retry_count", Eta "eta", ReceivedAt "received_at", StartedAt "started_at",
    FinishedAt "finished_at", RuntimeMs "runtime_ms", WorkerName "worker_name", ParentTaskId "parent_task_id",
    RootTaskId "root_task_id", Tags "tags", CreatedAt "created_at", UpdatedAt "updated_at", Worker "worker",
}

/// The columns of csv and xlsx when none are asked for.
pub(super) const DEFAULT: [Column; 12] = [
    Column::TaskId,
    Column::Name,
    Column::State,
    Column::Priority,
    Column::Queue,
    Column::Worker,
    Column::ReceivedAt,
    Column::StartedAt,
    Column::FinishedAt,
    Column::RuntimeMs,
    Column::RetryCount,
    Column::Exception,
];

/// What a column holds for one task.
pub(super) enum Cell<'a> {
    Empty,
    Text(Cow<'a, str>),
    Number(u32),
    Time(Timestamp),
    Json(&'a RawValue),
    List(&'a [String]),
}

impl Column {
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// What must be derived of a row for these columns.
    pub(super) fn parts(columns: &[Self]) -> Parts {
        let part = |column: &Self| match column {
            Self::Args => Parts::ARGS,
            Self::Kwargs => Parts::KWARGS,
            Self::Result => Parts::RESULT,
            Self::Exception | Self::Traceback => Parts::EXCEPTION,
            Self::Eta => Parts::ETA,
            Self::ParentTaskId | Self::RootTaskId => Parts::RELATIVES,
            Self::Tags => Parts::TAGS,
            Self::Id | Self::ProjectId | Self::Engine | Self::TaskId | Self::Name | Self::Queue | Self::State => {
                Parts::NONE
            }
            Self::Priority | Self::RetryCount | Self::RuntimeMs | Self::WorkerName | Self::Worker => Parts::NONE,
            Self::ReceivedAt | Self::StartedAt | Self::FinishedAt | Self::CreatedAt | Self::UpdatedAt => Parts::NONE,
        };
        columns.iter().map(part).fold(Parts::NONE, Parts::and)
    }

    pub(super) fn cell(self, row: &TaskRow) -> Cell<'_> {
        let owned = |text: String| Cell::Text(Cow::Owned(text));
        match self {
            Self::Id => owned(row.id.to_string()),
            Self::ProjectId => owned(row.project_id.to_string()),
            Self::Engine => Cell::text(row.engine.as_str()),
            Self::TaskId => Cell::text(&row.task_id),
            Self::Name => Cell::text(&row.name),
            Self::Queue => Cell::maybe(&row.queue),
            Self::State => Cell::text(row.state.as_str()),
            Self::Priority => Cell::text(row.priority.as_str()),
            Self::Args => Cell::json(&row.args),
            Self::Kwargs => Cell::json(&row.kwargs),
            Self::Result => Cell::json(&row.result),
            Self::Exception => Cell::maybe(&row.exception),
            Self::Traceback => Cell::maybe(&row.traceback),
            Self::RetryCount => Cell::Number(row.retry_count),
            Self::Eta => Cell::time(row.eta),
            Self::ReceivedAt => Cell::Time(row.received_at),
            Self::StartedAt => Cell::time(row.started_at),
            Self::FinishedAt => Cell::time(row.finished_at),
            Self::RuntimeMs => row.runtime_ms.map_or(Cell::Empty, Cell::Number),
            Self::WorkerName | Self::Worker => Cell::maybe(&row.worker_name),
            Self::ParentTaskId => Cell::maybe(&row.parent_task_id),
            Self::RootTaskId => Cell::maybe(&row.root_task_id),
            Self::Tags => Cell::List(&row.tags),
            Self::CreatedAt => Cell::Time(row.created_at),
            Self::UpdatedAt => Cell::Time(row.updated_at),
        }
    }
}

impl<'a> Cell<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn maybe(text: &'a Option<String>) -> Self {
        text.as_deref().map_or(Self::Empty, Self::text)
    }

    fn json(json: &'a Option<Box<RawValue>>) -> Self {
        json.as_deref().map_or(Self::Empty, Self::Json)
    }

    fn time(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Empty, Self::Time)
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u32(*number),
            Self::Time(at) => at.serialize(serializer),
            Self::Json(json) => json.serialize(serializer),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

/// A row with the asked members only, in the asked order.
pub(super) struct Projected<'a>(pub(super) &'a TaskRow, pub(super) &'a [Column]);

impl Serialize for Projected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.1.len()))?;
        for column in self.1 {
            map.serialize_entry(column.name(), &column.cell(self.0))?;
        }
        map.end()
    }
}

/// A text that no spreadsheet takes for a formula (contract D8).
pub(in crate::edge) fn neutral(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { Cow::Owned(format!("'{text}")) } else { text }
}
