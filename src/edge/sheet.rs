//! XLSX exports: rows go to a blocking thread that spools them to disk, then the finished file is streamed.
//!
//! The format's directory stands at the end of the file, so nothing can be sent before the last row is known.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::pin::pin;

use axum::body::Bytes;
use cql::StoreError;
use domain::time::Timestamp;
use futures_util::{Stream, StreamExt};
use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};
use tokio::sync::mpsc;

/// Rows of a sheet below its header.
const SHEET_ROWS: u32 = 1_048_575;
/// Longest text a cell may hold, in UTF-16 units as the format counts.
const CELL_UNITS_MAX: usize = 32_767;
const PIECE_BYTES: usize = 64 << 10;
/// Pages that may wait for the blocking thread.
const AHEAD: usize = 2;
/// The day 1970-01-01 in a spreadsheet's count.
const EPOCH_DAY: f64 = 25_569.0;

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
    #[error("sheet not written")]
    Sheet(#[from] XlsxError),
    #[error("temporary file not usable")]
    File(#[from] std::io::Error),
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
    let writer = tokio::task::spawn_blocking(move || write_and_send(&table, rows, &sender));
    loop {
        let page = tokio::select! {
            page = pages.next() => page,
            () = out.closed() => return Outcome::Abandoned,
        };
        let rows = match page {
            Some(Ok(rows)) => Rows::Page(rows),
            None => Rows::End,
            Some(Err(error)) => return cut_off(error.into(), &out).await,
        };
        let is_last = matches!(rows, Rows::End);
        if ahead.send(rows).await.is_err() || is_last {
            break;
        }
    }
    if let Err(error) = writer.await.map_err(|_| SheetError::Ended).flatten() {
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

fn write_and_send<T: Table, E>(
    table: &T,
    mut rows: mpsc::Receiver<Rows<T::Row>>,
    out: &mpsc::Sender<Result<Bytes, E>>,
) -> Result<(), SheetError> {
    let mut workbook = Workbook::new();
    let styles = Styles::new();
    let mut sheets = 1;
    let mut sheet = add_sheet(&mut workbook, sheets, table, &styles)?;
    let mut row_number = 0;
    loop {
        match rows.blocking_recv() {
            None => return Ok(()),
            Some(Rows::End) => break,
            Some(Rows::Page(page)) => {
                for row in &page {
                    if row_number == SHEET_ROWS {
                        sheets += 1;
                        sheet = add_sheet(&mut workbook, sheets, table, &styles)?;
                        row_number = 0;
                    }
                    row_number += 1;
                    write_row(sheet, row_number, table.cells(row), &styles)?;
                }
            }
        }
    }
    let mut file = tempfile::tempfile()?;
    workbook.save_to_writer(&mut file)?;
    send(file, out)
}

fn send<E>(mut file: File, out: &mpsc::Sender<Result<Bytes, E>>) -> Result<(), SheetError> {
    file.seek(SeekFrom::Start(0))?;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let length = file.read(&mut piece)?;
        piece.truncate(length);
        if length == 0 || out.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(());
        }
    }
}

struct Styles {
    header: Format,
    time: Format,
}

impl Styles {
    fn new() -> Self {
        Self { header: Format::new().set_bold(), time: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss.000") }
    }
}

/// A sheet with its frozen header. Its rows go to disk as they are written.
fn add_sheet<'a, T: Table>(
    workbook: &'a mut Workbook,
    number: u32,
    table: &T,
    styles: &Styles,
) -> Result<&'a mut Worksheet, XlsxError> {
    let sheet = workbook.add_worksheet_with_constant_memory()?;
    sheet.set_name(if number == 1 { T::TITLE.to_owned() } else { format!("{} {number}", T::TITLE) })?;
    sheet.set_freeze_panes(1, 0)?;
    for (place, name) in (0_u16..).zip(table.names()) {
        sheet.write_string_with_format(0, place, name, &styles.header)?;
    }
    Ok(sheet)
}

fn write_row<'a>(
    sheet: &mut Worksheet,
    number: u32,
    cells: impl Iterator<Item = Cell<'a>>,
    styles: &Styles,
) -> Result<(), XlsxError> {
    for (place, cell) in (0_u16..).zip(cells) {
        match cell {
            Cell::Empty => {}
            Cell::Number(value) => drop(sheet.write_number(number, place, value)?),
            Cell::Time(at) => drop(sheet.write_number_with_format(number, place, serial(at), &styles.time)?),
            Cell::Text(text) => drop(sheet.write_string(number, place, cut(text.into_owned()))?),
        }
    }
    Ok(())
}

/// Days of a spreadsheet, UTC; it keeps milliseconds.
fn serial(at: Timestamp) -> f64 {
    at.millis() as f64 / 86_400_000.0 + EPOCH_DAY
}

/// What fits into a cell, with a mark where it ends too early.
fn cut(mut text: String) -> String {
    if text.len() <= CELL_UNITS_MAX || text.encode_utf16().count() <= CELL_UNITS_MAX {
        return text;
    }
    let mut units = 0;
    let end = text.char_indices().find_map(|(at, character)| {
        units += character.len_utf16();
        (units >= CELL_UNITS_MAX).then_some(at)
    });
    text.truncate(end.unwrap_or(text.len()));
    text.push('…');
    text
}
