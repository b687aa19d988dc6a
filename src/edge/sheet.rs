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
    let mut book = Book::new(table, SHEET_ROWS);
    loop {
        match rows.blocking_recv() {
            None => return Ok(()),
            Some(Rows::End) => break,
            Some(Rows::Page(page)) => page.iter().try_for_each(|row| book.add(row))?,
        }
    }
    send(book.save()?, out)
}

/// A workbook that goes on on a further sheet when one is full. Rows go to disk as they are written.
struct Book<'a, T> {
    workbook: Workbook,
    table: &'a T,
    styles: Styles,
    /// Rows of a sheet below its header.
    rows_max: u32,
    sheets: usize,
    rows: u32,
}

impl<'a, T: Table> Book<'a, T> {
    fn new(table: &'a T, rows_max: u32) -> Self {
        Self { workbook: Workbook::new(), table, styles: Styles::new(), rows_max, sheets: 0, rows: 0 }
    }

    fn add(&mut self, row: &T::Row) -> Result<(), XlsxError> {
        if self.sheets == 0 || self.rows == self.rows_max {
            self.add_sheet()?;
        }
        self.rows += 1;
        let sheet = self.workbook.worksheet_from_index(self.sheets - 1)?;
        write_row(sheet, self.rows, self.table.cells(row), &self.styles)
    }

    /// A sheet with its frozen header.
    fn add_sheet(&mut self) -> Result<(), XlsxError> {
        (self.sheets, self.rows) = (self.sheets + 1, 0);
        let sheet = self.workbook.add_worksheet_with_constant_memory()?;
        sheet.set_name(match self.sheets {
            1 => T::TITLE.to_owned(),
            number => format!("{} {number}", T::TITLE),
        })?;
        sheet.set_freeze_panes(1, 0)?;
        for (place, name) in (0_u16..).zip(self.table.names()) {
            sheet.write_string_with_format(0, place, name, &self.styles.header)?;
        }
        Ok(())
    }

    fn save(mut self) -> Result<File, SheetError> {
        if self.sheets == 0 {
            self.add_sheet()?;
        }
        let mut file = tempfile::tempfile()?;
        self.workbook.save_to_writer(&mut file)?;
        Ok(file)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl Table for Names {
        type Row = String;
        const TITLE: &'static str = "Tasks";

        fn names(&self) -> impl Iterator<Item = &'static str> {
            ["task_id"].into_iter()
        }

        fn cells<'a>(&'a self, row: &'a String) -> impl Iterator<Item = Cell<'a>> {
            [Cell::Text(Cow::Borrowed(row))].into_iter()
        }
    }

    fn book(rows: usize, rows_max: u32) -> File {
        let mut book = Book::new(&Names, rows_max);
        for n in 0..rows {
            book.add(&format!("=t{n}")).unwrap();
        }
        book.save().unwrap()
    }

    fn part(file: &File, name: &str) -> String {
        let mut text = String::new();
        zip::ZipArchive::new(file).unwrap().by_name(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_full_sheet_is_followed_by_another_with_its_own_header() {
        let file = book(7, 3);
        let names = part(&file, "xl/workbook.xml");
        for name in ["\"Tasks\"", "\"Tasks 2\"", "\"Tasks 3\""] {
            assert!(names.contains(name), "{names}");
        }
        for (sheet, ids) in [(1, ["=t0", "=t2"]), (2, ["=t3", "=t5"]), (3, ["=t6", "=t6"])] {
            let text = part(&file, &format!("xl/worksheets/sheet{sheet}.xml"));
            assert_eq!(text.matches("<row ").count(), if sheet == 3 { 2 } else { 4 }, "{text}");
            assert_eq!(text.matches(">task_id<").count(), 1, "each has a header");
            assert!(ids.iter().all(|id| text.contains(&format!(">{id}<"))), "{text}");
            assert!(!text.contains("<f>"), "a text is never a formula");
        }
    }

    #[test]
    fn a_sheet_that_is_just_full_is_the_last() {
        assert!(!part(&book(3, 3), "xl/workbook.xml").contains("Tasks 2"));
        assert!(part(&book(0, 3), "xl/worksheets/sheet1.xml").contains(">task_id<"), "nothing found is a header");
    }

    #[test]
    fn a_sheet_has_as_many_rows_as_the_format_allows() {
        assert_eq!(SHEET_ROWS + 1, 1 << 20, "with the header");
    }
}
