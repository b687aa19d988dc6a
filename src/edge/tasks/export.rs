//! Exports: the whole filtered result as a stream, in constant memory (contract D8, M18 to M22).
//!
//! One task walks and encodes ahead of the client by a few pages and ends when the client is gone. The answer's
//! status waits a moment for the first page, so that a store that does not answer is a 503 and not a broken
//! stream; a walk that finds nothing for longer starts to stream without it.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use cql::tasks::Export;
use csv::{Terminator, WriterBuilder};
use domain::task::TaskRow;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::column::{Cell, Column, DEFAULT, Projected, neutral};
use super::query::{Format, ListQuery};
use crate::edge::app::App;
use crate::edge::auth::ProjectScope;
use crate::edge::error::{ApiError, ApiResult};
use crate::edge::metrics::exported;
use crate::edge::sheet::{self, Outcome, SheetError, Table};

/// Pieces that may wait for the client.
const AHEAD: usize = 2;
/// How long the status waits for the first page.
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
        Format::Json | Format::Ndjson => watched(extension, run(export, LinePages(chosen), out)),
        Format::Xlsx => {
            let pages = stream::unfold(export, |mut export| async {
                export.next_page().await.transpose().map(|page| (page, export))
            });
            watched(extension, sheet::run(pages, Tasks(tabular(chosen)), out));
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
        error @ (ExportError::Json(_) | ExportError::Csv(_) | ExportError::Sheet(_) | ExportError::Text(_)) => {
            ApiError::Internal(Box::new(error))
        }
    }
}

/// A text format: what stands in front, and each page's bytes.
trait Pages {
    fn head(&mut self) -> Piece;
    fn page(&mut self, rows: &[TaskRow]) -> Piece;
}

async fn run(mut export: Export, mut pages: impl Pages + Send, out: mpsc::Sender<Piece>) -> Outcome {
    // The first page stands behind the head in one piece; whether there is a head is told by its length.
    let mut piece = pages.head();
    loop {
        let is_last = piece.is_err();
        let is_empty = piece.as_ref().is_ok_and(Bytes::is_empty);
        if !is_empty && out.send(piece).await.is_err() {
            return Outcome::Abandoned;
        }
        if is_last {
            return Outcome::Failed;
        }
        let page = tokio::select! {
            page = export.next_page() => page,
            () = out.closed() => return Outcome::Abandoned,
        };
        piece = match page {
            Ok(None) => return Outcome::Finished,
            Ok(Some(rows)) => pages.page(&rows),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &piece {
            tracing::warn!(error = error as &dyn std::error::Error, "export cut off");
        }
    }
}

struct CsvPages {
    columns: Vec<Column>,
    /// The size of the page before, so that a page's buffer is allocated once.
    size: usize,
}

impl CsvPages {
    fn new(columns: Vec<Column>) -> Self {
        Self { columns, size: 0 }
    }

    fn writer(&self) -> csv::Writer<Vec<u8>> {
        let buffer = Vec::with_capacity(self.size);
        WriterBuilder::new().terminator(Terminator::CRLF).from_writer(buffer)
    }
}

fn finished(writer: csv::Writer<Vec<u8>>) -> Piece {
    let bytes = writer.into_inner().map_err(|error| ExportError::Text(error.into_error()))?;
    Ok(Bytes::from(bytes))
}

impl Pages for CsvPages {
    fn head(&mut self) -> Piece {
        let mut writer = self.writer();
        writer.write_record(self.columns.iter().map(|column| column.name()))?;
        finished(writer)
    }

    fn page(&mut self, rows: &[TaskRow]) -> Piece {
        let mut writer = self.writer();
        for row in rows {
            for column in &self.columns {
                writer.write_field(text(column.cell(row)).as_bytes())?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        let piece = finished(writer)?;
        self.size = piece.len() + piece.len() / 8;
        Ok(piece)
    }
}

/// A cell as plain text; nothing is the empty text.
fn text(cell: Cell<'_>) -> Cow<'_, str> {
    match cell {
        Cell::Empty => Cow::Borrowed(""),
        Cell::Text(text) => neutral(text),
        Cell::Number(number) => Cow::Owned(number.to_string()),
        Cell::Time(at) => Cow::Owned(at.to_string()),
        Cell::Json(json) => neutral(Cow::Borrowed(json.get())),
        Cell::List(list) => neutral(Cow::Owned(list.join(","))),
    }
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
            cell @ (Cell::Text(_) | Cell::Json(_) | Cell::List(_)) => sheet::Cell::Text(text(cell)),
        })
    }
}

/// One JSON object per line: whole rows, or the asked members.
struct LinePages(Option<Vec<Column>>);

impl Pages for LinePages {
    fn head(&mut self) -> Piece {
        Ok(Bytes::new())
    }

    fn page(&mut self, rows: &[TaskRow]) -> Piece {
        let mut lines = Vec::new();
        for row in rows {
            match &self.0 {
                None => serde_json::to_writer(&mut lines, row)?,
                Some(columns) => serde_json::to_writer(&mut lines, &Projected(row, columns))?,
            }
            lines.push(b'\n');
        }
        Ok(Bytes::from(lines))
    }
}
