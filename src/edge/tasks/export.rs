//! Exports: the whole filtered result as a stream, in constant memory (contract D8, M18 to M22).
//!
//! One task walks, a few blocking threads decode and render what it found, in order and ahead of the client by a few
//! pieces, and all end when the client is gone. The answer's status waits a moment for the first piece, so that a
//! store that does not answer is a 503 and not a broken stream; a walk that finds nothing for longer starts to stream
//! without it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use cql::StoreError;
use cql::tasks::{Chunk, Export};
use csv::{Terminator, WriterBuilder};
use domain::task::{Parts, TaskRow};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::column::{Cell, Column, DEFAULT, Projected, neutral};
use super::query::{Format, ListQuery};
use crate::edge::app::App;
use crate::edge::auth::ProjectScope;
use crate::edge::error::{ApiError, ApiResult};
use crate::edge::metrics::exported;
use crate::edge::sheet::{self, Outcome, SheetError, Table};

/// Chunks that may wait to be rendered, and pieces that may wait for the client.
const AHEAD: usize = 2;
/// Chunks that are rendered at once. More would take every core from those who wait for an ack.
const RENDERED_AT_ONCE: usize = 2;
/// What a cell takes on average, so that a piece is allocated once.
const CELL_BYTES: usize = 20;
/// How long the status waits for the first piece.
const PATIENCE: Duration = Duration::from_millis(200);

/// Why an export ended before its end; the client sees a stream that is cut off.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("rows not readable")]
    Store(#[from] cql::StoreError),
    #[error("rows not encodable")]
    Json(#[from] serde_json::Error),
    #[error("rows not encodable")]
    Csv(#[from] csv::Error),
    #[error("sheet not made")]
    Sheet(#[from] SheetError),
    #[error("rows not encodable")]
    Text(#[from] std::io::Error),
    #[error("the thread that renders rows ended")]
    Ended,
}

type Piece = Result<Bytes, ExportError>;

/// Starts an export and answers with its stream.
pub(super) async fn respond(app: &App, scope: &ProjectScope, query: ListQuery) -> ApiResult<Response> {
    let export = app.mesh.tasks().export(scope.project_id, query.filter, app.clock.now());
    let (out, mut pieces) = mpsc::channel(AHEAD);
    let chosen = query.fields;
    let (extension, content_type) = match query.format {
        Format::Csv => ("csv", "text/csv; charset=utf-8"),
        Format::Xlsx => ("xlsx", sheet::CONTENT_TYPE),
        Format::Json | Format::Ndjson => ("ndjson", "application/x-ndjson"),
    };
    let tabular = |chosen: Option<Vec<Column>>| chosen.unwrap_or_else(|| DEFAULT.to_vec());
    match query.format {
        Format::Csv => watched(extension, run(export, CsvPages::new(tabular(chosen)), out)),
        Format::Json | Format::Ndjson => watched(extension, run(export, LinePages::new(chosen), out)),
        Format::Xlsx => {
            let table = Tasks(tabular(chosen));
            let parts = Column::parts(&table.0);
            let pages = rendered(export, move |chunk| chunk.rows(parts).collect(), StoreError::Unavailable);
            watched(extension, sheet::run(pages, table, out));
        }
    }
    let first = match tokio::time::timeout(PATIENCE, pieces.recv()).await {
        Ok(Some(Err(error))) => return Err(refusal(error)),
        Ok(Some(Ok(piece))) => Some(Ok(piece)),
        Ok(None) | Err(_) => None,
    };
    let rest = stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (piece, pieces)) });
    let body = Body::from_stream(stream::iter(first).chain(rest));
    let name = format!("attachment; filename=\"z4j-tasks-{}.{extension}\"", scope.project.slug);
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Lets an export run, and counts how it ended.
fn watched(format: &'static str, export: impl Future<Output = Outcome> + Send + 'static) {
    tokio::spawn(async move { exported(format, export.await.as_str()) });
}

fn refusal(error: ExportError) -> ApiError {
    match error {
        ExportError::Store(error) | ExportError::Sheet(SheetError::Store(error)) => error.into(),
        error @ (ExportError::Json(_)
        | ExportError::Csv(_)
        | ExportError::Sheet(_)
        | ExportError::Text(_)
        | ExportError::Ended) => ApiError::Internal(Box::new(error)),
    }
}

/// What is made of each chunk of an export, in their order. `ended` makes an error of a thread that ended.
fn rendered<P, E>(
    export: Export,
    render: impl Fn(&Chunk) -> Result<P, E> + Send + Sync + 'static,
    ended: impl Fn(Box<dyn std::error::Error + Send + Sync>) -> E + Copy,
) -> impl Stream<Item = Result<P, E>>
where
    P: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let (ahead, chunks) = mpsc::channel(AHEAD);
    // It ends by itself when nobody takes its chunks.
    tokio::spawn(export.run(ahead));
    let render = Arc::new(render);
    let chunks = stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    let pages = chunks.map(move |chunk| {
        let render = Arc::clone(&render);
        let page = tokio::task::spawn_blocking(move || render(&chunk?));
        async move { page.await.map_err(|error| ended(Box::new(error))).flatten() }
    });
    pages.buffered(RENDERED_AT_ONCE)
}

/// A text format: what stands in front, and each chunk's bytes.
trait Pages: Send + Sync + 'static {
    fn head(&self) -> Result<Vec<u8>, ExportError>;
    fn page(&self, chunk: &Chunk) -> Result<Vec<u8>, ExportError>;
}

async fn run(export: Export, pages: impl Pages, out: mpsc::Sender<Piece>) -> Outcome {
    let head = pages.head();
    let mut rendered = pin!(rendered(export, move |chunk| pages.page(chunk), |_| ExportError::Ended));
    // What stands in front leaves with the first rows: until those are there, the status is not decided.
    let mut front = match head {
        Ok(head) => head,
        Err(error) => return cut_off(error, &out).await,
    };
    loop {
        let page = tokio::select! {
            page = rendered.next() => page,
            () = out.closed() => return Outcome::Abandoned,
        };
        let is_last = page.is_none();
        let page = match page.transpose() {
            Ok(page) => page.unwrap_or_default(),
            Err(error) => return cut_off(error, &out).await,
        };
        let piece = if front.is_empty() {
            page
        } else if page.is_empty() && !is_last {
            continue;
        } else {
            [std::mem::take(&mut front), page].concat()
        };
        if !piece.is_empty() && out.send(Ok(Bytes::from(piece))).await.is_err() {
            return Outcome::Abandoned;
        }
        if is_last {
            return Outcome::Finished;
        }
    }
}

async fn cut_off(error: ExportError, out: &mpsc::Sender<Piece>) -> Outcome {
    tracing::warn!(error = &error as &dyn std::error::Error, "export cut off");
    // A client that is gone needs no reason.
    drop(out.send(Err(error)).await);
    Outcome::Failed
}

struct CsvPages {
    columns: Vec<Column>,
    parts: Parts,
}

impl CsvPages {
    fn new(columns: Vec<Column>) -> Self {
        Self { parts: Column::parts(&columns), columns }
    }

    fn writer(&self, rows: usize) -> csv::Writer<Vec<u8>> {
        let buffer = Vec::with_capacity(rows * self.columns.len() * CELL_BYTES);
        WriterBuilder::new().terminator(Terminator::CRLF).from_writer(buffer)
    }
}

fn finished(writer: csv::Writer<Vec<u8>>) -> Result<Vec<u8>, ExportError> {
    writer.into_inner().map_err(|error| ExportError::Text(error.into_error()))
}

impl Pages for CsvPages {
    fn head(&self) -> Result<Vec<u8>, ExportError> {
        let mut writer = self.writer(1);
        writer.write_record(self.columns.iter().map(|column| column.name()))?;
        finished(writer)
    }

    fn page(&self, chunk: &Chunk) -> Result<Vec<u8>, ExportError> {
        let (mut writer, mut scratch) = (self.writer(chunk.len()), String::new());
        for row in chunk.rows(self.parts) {
            let row = row?;
            for column in &self.columns {
                writer.write_field(&*text(column.cell(&row), &mut scratch))?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        finished(writer)
    }
}

/// A cell as plain text; nothing is the empty text. `scratch` is where it is written when it is none yet.
fn text<'a>(cell: Cell<'a>, scratch: &'a mut String) -> Cow<'a, str> {
    scratch.clear();
    // Writing to a string never fails.
    let _ = match cell {
        Cell::Empty => return Cow::Borrowed(""),
        Cell::Text(text) => return neutral(text),
        Cell::Json(json) => return neutral(Cow::Borrowed(json.get())),
        Cell::List(list) => return neutral(Cow::Owned(list.join(","))),
        Cell::Number(number) => write!(scratch, "{number}"),
        Cell::Time(at) => write!(scratch, "{at}"),
    };
    Cow::Borrowed(scratch)
}

/// The sheet of tasks.
struct Tasks(Vec<Column>);

impl Table for Tasks {
    type Row = TaskRow;
    const TITLE: &'static str = "Tasks";

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|column| column.name())
    }

    fn cells<'a>(&'a self, row: &'a TaskRow) -> impl Iterator<Item = sheet::Cell<'a>> {
        self.0.iter().map(|column| match column.cell(row) {
            Cell::Empty => sheet::Cell::Empty,
            Cell::Number(number) => sheet::Cell::Number(number.into()),
            Cell::Time(at) => sheet::Cell::Time(at),
            Cell::Text(text) => sheet::Cell::Text(neutral(text)),
            Cell::Json(json) => sheet::Cell::Text(neutral(Cow::Borrowed(json.get()))),
            Cell::List(list) => sheet::Cell::Text(neutral(Cow::Owned(list.join(",")))),
        })
    }
}

/// One JSON object per line: whole rows, or the asked members.
struct LinePages {
    chosen: Option<Vec<Column>>,
    parts: Parts,
}

impl LinePages {
    fn new(chosen: Option<Vec<Column>>) -> Self {
        Self { parts: chosen.as_deref().map_or(Parts::ALL, Column::parts), chosen }
    }
}

impl Pages for LinePages {
    fn head(&self) -> Result<Vec<u8>, ExportError> {
        Ok(Vec::new())
    }

    fn page(&self, chunk: &Chunk) -> Result<Vec<u8>, ExportError> {
        let mut lines = Vec::new();
        for row in chunk.rows(self.parts) {
            let row = row?;
            match &self.chosen {
                None => serde_json::to_writer(&mut lines, &row)?,
                Some(columns) => serde_json::to_writer(&mut lines, &Projected(&row, columns))?,
            }
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use cql::engine::memory::{Fault, Memory};
    use domain::id::ProjectId;
    use domain::task::Filter;
    use domain::time::Timestamp;

    use super::*;

    #[tokio::test]
    async fn nothing_leaves_before_the_first_rows_are_read() {
        let memory = Memory::new();
        let tasks = cql::tasks::Tasks::new(Arc::new(memory.handle()), 0, 86_400);
        let export = || tasks.export(ProjectId::NIL, Filter::default(), Timestamp::from_secs(1_776_340_800));
        memory.inject(Fault::ReadFailed);
        let (out, mut pieces) = mpsc::channel(AHEAD);
        assert_eq!(run(export(), CsvPages::new(DEFAULT.to_vec()), out).await, Outcome::Failed);
        assert!(matches!(pieces.recv().await, Some(Err(ExportError::Store(_)))), "there is still a status to choose");
        let (out, mut pieces) = mpsc::channel(AHEAD);
        assert_eq!(run(export(), CsvPages::new(vec![Column::TaskId]), out).await, Outcome::Finished);
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "task_id\r\n");
    }
}
