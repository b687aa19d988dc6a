//! XLSX exports: rows go to a blocking thread that spools them to disk, then the finished file is streamed.
//!
//! The format's directory stands at the end of the file, so nothing can be sent before the last row is known.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use axum::body::Bytes;
use cql::tasks::Export;
use domain::task::TaskRow;
use domain::time::Timestamp;
use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};
use tokio::sync::mpsc;

use super::column::{Cell, Column};
use super::export::{ExportError, Outcome, Piece, text};

/// Rows of a sheet below its header.
const SHEET_ROWS: u32 = 1_048_575;
/// Longest text a cell may hold, in UTF-16 units as the format counts.
const CELL_UNITS_MAX: usize = 32_767;
const PIECE_BYTES: usize = 64 << 10;
/// Pages that may wait for the blocking thread.
const AHEAD: usize = 2;
/// The day 1970-01-01 in a spreadsheet's count.
const EPOCH_DAY: f64 = 25_569.0;

enum Rows {
    Page(Vec<TaskRow>),
    /// Without it the export was given up: nothing is finished.
    End,
}

/// Walks, writes the file beside it, and streams it.
pub(super) async fn run(mut export: Export, columns: Vec<Column>, out: mpsc::Sender<Piece>) -> Outcome {
    let (pages, rows) = mpsc::channel(AHEAD);
    let sender = out.clone();
    let writer = tokio::task::spawn_blocking(move || write_and_send(&columns, rows, &sender));
    loop {
        let page = tokio::select! {
            page = export.next_page() => page,
            () = out.closed() => return Outcome::Abandoned,
        };
        let rows = match page {
            Ok(Some(rows)) => Rows::Page(rows),
            Ok(None) => Rows::End,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "export cut off");
                // A client that is gone needs no reason.
                drop(out.send(Err(error.into())).await);
                return Outcome::Failed;
            }
        };
        let is_last = matches!(rows, Rows::End);
        if pages.send(rows).await.is_err() || is_last {
            break;
        }
    }
    let written = writer.await.map_err(|_| ExportError::Ended).flatten();
    if let Err(error) = written {
        tracing::warn!(error = &error as &dyn std::error::Error, "export cut off");
        drop(out.send(Err(error)).await);
        return Outcome::Failed;
    }
    if out.is_closed() { Outcome::Abandoned } else { Outcome::Finished }
}

fn write_and_send(
    columns: &[Column],
    mut rows: mpsc::Receiver<Rows>,
    out: &mpsc::Sender<Piece>,
) -> Result<(), ExportError> {
    let mut workbook = Workbook::new();
    let styles = Styles::new();
    let mut sheets = 1;
    let mut sheet = add_sheet(&mut workbook, sheets, columns, &styles)?;
    let mut row_number = 0;
    loop {
        match rows.blocking_recv() {
            None => return Ok(()),
            Some(Rows::End) => break,
            Some(Rows::Page(page)) => {
                for row in &page {
                    if row_number == SHEET_ROWS {
                        sheets += 1;
                        sheet = add_sheet(&mut workbook, sheets, columns, &styles)?;
                        row_number = 0;
                    }
                    row_number += 1;
                    write_row(sheet, row_number, columns, row, &styles)?;
                }
            }
        }
    }
    let mut file = tempfile::tempfile()?;
    workbook.save_to_writer(&mut file)?;
    send(file, out)
}

fn send(mut file: File, out: &mpsc::Sender<Piece>) -> Result<(), ExportError> {
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
fn add_sheet<'a>(
    workbook: &'a mut Workbook,
    number: u32,
    columns: &[Column],
    styles: &Styles,
) -> Result<&'a mut Worksheet, XlsxError> {
    let sheet = workbook.add_worksheet_with_constant_memory()?;
    sheet.set_name(if number == 1 { "Tasks".to_owned() } else { format!("Tasks {number}") })?;
    sheet.set_freeze_panes(1, 0)?;
    for (place, column) in (0_u16..).zip(columns) {
        sheet.write_string_with_format(0, place, column.name(), &styles.header)?;
    }
    Ok(sheet)
}

fn write_row(
    sheet: &mut Worksheet,
    number: u32,
    columns: &[Column],
    row: &TaskRow,
    styles: &Styles,
) -> Result<(), XlsxError> {
    for (place, column) in (0_u16..).zip(columns) {
        match column.cell(row) {
            Cell::Empty => {}
            Cell::Number(value) => drop(sheet.write_number(number, place, value)?),
            Cell::Time(at) => drop(sheet.write_number_with_format(number, place, serial(at), &styles.time)?),
            cell @ (Cell::Text(_) | Cell::Json(_) | Cell::List(_)) => {
                sheet.write_string(number, place, cut(text(cell).into_owned()))?;
            }
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
