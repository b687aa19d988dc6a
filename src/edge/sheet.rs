//! XLSX exports: rows go to a blocking thread that writes the file and sends it as it grows, in constant memory.
//!
//! ```text
//! book   the workbook: an archive that needs no seeking, and as many sheets as it takes
//! cell   a row as XML: what stands in a cell, and which texts have to be written otherwise
//! ```

mod book;
mod cell;

use std::borrow::Cow;
use std::cell::Cell as Flag;
use std::io::{self, Write};
use std::pin::pin;

use axum::body::Bytes;
use cql::StoreError;
use domain::time::Timestamp;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use zip::result::ZipError;

use self::book::{Book, Limits};

/// Bytes that are sent at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pages that may wait for the blocking thread.
const AHEAD: usize = 2;

/// An XLSX file, for OpenAPI.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(super) struct Workbook(#[expect(dead_code, reason = "describes the answer to OpenAPI")] String);

/// The type of the file.
pub(super) const CONTENT_TYPE: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// What stands in a cell. A text is written as one and never evaluated.
pub(super) enum Cell<'a> {
    Empty,
    Number(f64),
    Time(Timestamp),
    Text(Cow<'a, str>),
}

/// What is exported: a title, columns, and a row's cells.
pub(super) trait Table: Send + 'static {
    type Row: Send + 'static;
    const TITLE: &'static str;
    fn names(&self) -> impl Iterator<Item = &'static str>;
    fn cells<'a>(&'a self, row: &'a Self::Row) -> impl Iterator<Item = Cell<'a>>;
}

/// How an export ended, of whatever form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Finished,
    /// The client went away.
    Abandoned,
    Failed,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        }
    }
}

/// Why there is no whole file; the client sees a stream that is cut off.
#[derive(Debug, thiserror::Error)]
pub(super) enum SheetError {
    #[error("rows not readable")]
    Store(#[from] StoreError),
    #[error("archive not written")]
    Archive(#[from] ZipError),
    #[error("sheet not written")]
    Sheet(#[from] io::Error),
    #[error("the writer of the sheet ended")]
    Ended,
}

enum Rows<R> {
    Page(Vec<R>),
    /// Without it the export was given up: nothing is finished.
    End,
}

/// Takes pages, writes the file beside them, and streams it.
pub(super) async fn run<T: Table, E: From<SheetError> + Send + 'static>(
    pages: impl Stream<Item = Result<Vec<T::Row>, StoreError>>,
    table: T,
    out: mpsc::Sender<Result<Bytes, E>>,
) -> Outcome {
    let mut pages = pin!(pages);
    let (ahead, rows) = mpsc::channel(AHEAD);
    let sender = out.clone();
    let writer = tokio::task::spawn_blocking(move || write(&table, rows, &sender));
    let ended = loop {
        let page = tokio::select! {
            page = pages.next() => page,
            () = out.closed() => return Outcome::Abandoned,
        };
        let rows = match page {
            Some(Ok(rows)) => Rows::Page(rows),
            None => Rows::End,
            Some(Err(error)) => break Err(error),
        };
        let is_last = matches!(rows, Rows::End);
        if ahead.send(rows).await.is_err() || is_last {
            break Ok(());
        }
    };
    drop(ahead);
    // What is written stands before the error, so that the client has every row that was read.
    let written = writer.await.map_err(|_| SheetError::Ended).flatten();
    if let Err(error) = ended.map_err(SheetError::from).and(written) {
        return cut_off(error, &out).await;
    }
    if out.is_closed() { Outcome::Abandoned } else { Outcome::Finished }
}

async fn cut_off<E: From<SheetError>>(error: SheetError, out: &mpsc::Sender<Result<Bytes, E>>) -> Outcome {
    tracing::warn!(error = &error as &dyn std::error::Error, "export cut off");
    // A client that is gone needs no reason.
    drop(out.send(Err(error.into())).await);
    Outcome::Failed
}

fn write<T: Table, E>(
    table: &T,
    mut rows: mpsc::Receiver<Rows<T::Row>>,
    out: &mpsc::Sender<Result<Bytes, E>>,
) -> Result<(), SheetError> {
    let given_up = Flag::new(false);
    let mut book = Book::new(table, Limits::FORMAT, Pieces { out, given_up: &given_up, piece: Vec::new() })?;
    let mut is_first = true;
    while let Some(Rows::Page(page)) = or_give_up(rows.blocking_recv(), &given_up) {
        let added = page.iter().try_for_each(|row| book.add(row));
        // The first page leaves at once; after it a piece leaves when it is full.
        let added = if std::mem::take(&mut is_first) { added.and_then(|()| book.flush()) } else { added };
        given_up.set(given_up.get() || added.is_err());
        if given_up.get() {
            return added;
        }
    }
    if !given_up.get() {
        book.finish()?.flush()?;
    }
    Ok(())
}

/// Notes that there will be no end. An archive that is dropped writes its directory, and a file without all its
/// rows must not pass for a whole one.
fn or_give_up<R>(rows: Option<Rows<R>>, given_up: &Flag<bool>) -> Option<Rows<R>> {
    given_up.set(given_up.get() || rows.is_none());
    rows
}

/// Sends what is written to it, in large pieces; once it is given up, nothing.
struct Pieces<'a, E> {
    out: &'a mpsc::Sender<Result<Bytes, E>>,
    given_up: &'a Flag<bool>,
    piece: Vec<u8>,
}

impl<E> Write for Pieces<'_, E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if self.given_up.get() || piece.is_empty() {
            return Ok(());
        }
        // A client that is gone is no error: the writer stops before its next page.
        self.given_up.set(self.out.blocking_send(Ok(Bytes::from(piece))).is_err());
        self.piece.reserve(PIECE_BYTES + PIECE_BYTES / 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
