//! Workbooks as an archive's reader finds them, and what reaches the client when there is no end.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use futures_util::stream;

use super::*;

/// What `tests/test_exports.py` opens in a spreadsheet's reader.
const SHOWN: &str = "tests/fixtures/rollover.xlsx";

struct Names;

impl Table for Names {
    type Row = String;
    const TITLE: &'static str = "Tasks";

    fn names(&self) -> impl Iterator<Item = &'static str> {
        ["task_id"].into_iter()
    }

    fn cells<'a>(&'a self, row: &'a String) -> impl Iterator<Item = Cell<'a>> {
        [Cell::Text(Cow::Borrowed(row.as_str()))].into_iter()
    }
}

/// A number, a time of so many seconds, a text, and nothing.
struct Kinds;

impl Table for Kinds {
    type Row = (u32, String);
    const TITLE: &'static str = "Audit";

    fn names(&self) -> impl Iterator<Item = &'static str> {
        ["number", "time", "text", "nothing"].into_iter()
    }

    fn cells<'a>(&'a self, (number, text): &'a Self::Row) -> impl Iterator<Item = Cell<'a>> {
        let at = Timestamp::from_millis(i64::from(*number) * 1000 + 5);
        let cells = [Cell::Number((*number).into()), Cell::Time(at), Cell::Text(Cow::Borrowed(text)), Cell::Empty];
        cells.into_iter()
    }
}

struct Numbers;

impl Table for Numbers {
    type Row = u32;
    const TITLE: &'static str = "Tasks";

    fn names(&self) -> impl Iterator<Item = &'static str> {
        ["n"].into_iter()
    }

    fn cells<'a>(&'a self, row: &'a u32) -> impl Iterator<Item = Cell<'a>> {
        [Cell::Number((*row).into())].into_iter()
    }
}

type Archive = zip::ZipArchive<Cursor<Vec<u8>>>;

fn book<T: Table>(table: &T, rows: impl IntoIterator<Item = T::Row>, limits: Limits) -> Archive {
    let mut book = Book::new(table, limits, Vec::new()).unwrap();
    for row in rows {
        book.add(&row).unwrap();
    }
    zip::ZipArchive::new(Cursor::new(book.finish().unwrap())).unwrap()
}

fn names(rows: usize, rows_max: u32) -> Archive {
    book(&Names, (0..rows).map(|n| format!("=t{n}")), Limits { rows: rows_max, ..Limits::FORMAT })
}

fn part(archive: &mut Archive, name: &str) -> String {
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn paths(archive: &Archive) -> Vec<String> {
    archive.file_names().map(|name| name.unwrap().into_owned()).collect()
}

#[test]
fn a_full_sheet_is_followed_by_another_with_its_own_header() {
    let mut archive = names(7, 3);
    let listed = part(&mut archive, "xl/workbook.xml");
    for name in ["\"Tasks\"", "\"Tasks 2\"", "\"Tasks 3\""] {
        assert!(listed.contains(name), "{listed}");
    }
    for (sheet, ids) in [(1, ["=t0", "=t2"]), (2, ["=t3", "=t5"]), (3, ["=t6", "=t6"])] {
        let path = format!("xl/worksheets/sheet{sheet}.xml");
        let text = part(&mut archive, &path);
        assert_eq!(text.matches("<row ").count(), if sheet == 3 { 2 } else { 4 }, "{text}");
        assert_eq!(text.matches(">task_id<").count(), 1, "each has a header");
        assert!(ids.iter().all(|id| text.contains(&format!(">{id}<"))), "{text}");
        assert!(!text.contains("<f>"), "a text is never a formula");
        assert!(part(&mut archive, "[Content_Types].xml").contains(&format!("/{path}\"")));
        assert!(part(&mut archive, "xl/_rels/workbook.xml.rels").contains(&format!("worksheets/sheet{sheet}.xml\"")));
    }
}

#[test]
fn a_sheet_that_is_just_full_is_the_last() {
    assert!(!part(&mut names(3, 3), "xl/workbook.xml").contains("Tasks 2"));
    assert!(part(&mut names(0, 3), "xl/worksheets/sheet1.xml").contains(">task_id<"), "nothing found is a header");
}

#[test]
fn a_sheet_ends_before_its_bytes_need_an_extension_of_the_archive() {
    let mut archive = book(&Names, (0..9).map(|n| format!("{n}").repeat(300)), Limits { rows: 100, bytes: 1_500 });
    let sheets = paths(&archive).into_iter().filter(|path| path.starts_with("xl/worksheets")).count();
    assert!(sheets > 2);
    let rows: usize =
        (1..=sheets).map(|n| part(&mut archive, &format!("xl/worksheets/sheet{n}.xml")).matches("<row ").count()).sum();
    assert_eq!(rows, 9 + sheets, "none is lost");
}

#[test]
fn a_million_rows_and_more_take_two_sheets() {
    let max = Limits::FORMAT.rows;
    assert_eq!(max + 1, 1 << 20, "with the header");
    let mut archive = book(&Numbers, 0..max + 2, Limits::FORMAT);
    assert!(part(&mut archive, "xl/workbook.xml").contains("\"Tasks 2\""));
    let first = part(&mut archive, "xl/worksheets/sheet1.xml");
    assert_eq!(first.matches("<row ").count(), 1 << 20);
    assert!(first.ends_with("<row r=\"1048576\"><c r=\"A1048576\"><v>1048574</v></c></row></sheetData></worksheet>"));
    let second = part(&mut archive, "xl/worksheets/sheet2.xml");
    assert!(second.ends_with("<row r=\"3\"><c r=\"A3\"><v>1048576</v></c></row></sheetData></worksheet>"), "{second}");
}

/// The fixture is made by this writer: `THALAMUS_BLESS=1` writes it anew.
#[test]
fn the_shown_workbook_is_what_the_writer_writes() {
    let texts = ["=1+1", " padded ", "a<b>&\"c\"", "two\nlines", "\u{1}\r", "_x0041_", "🎉"];
    let rows = texts.into_iter().zip(0..).map(|(text, n)| (n, text.to_owned()));
    let mut made = book(&Kinds, rows, Limits { rows: 3, ..Limits::FORMAT });
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(SHOWN);
    if std::env::var_os("THALAMUS_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made.clone().into_inner().into_inner()).unwrap();
    }
    let mut shown = zip::ZipArchive::new(Cursor::new(std::fs::read(&path).unwrap())).unwrap();
    assert_eq!(paths(&made), paths(&shown));
    for name in paths(&shown) {
        assert_eq!(part(&mut made, &name), part(&mut shown, &name), "{name}");
    }
}

fn failed() -> StoreError {
    StoreError::Corrupt { what: "task" }
}

fn rows(count: usize) -> Vec<String> {
    // Texts that hardly shrink.
    (0..count)
        .map(|n| format!("{:x}", u128::from(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_0c5b_d1d3_a8b7)))
        .collect()
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Cut(#[from] SheetError);

#[tokio::test]
async fn the_first_page_leaves_before_there_is_a_second() {
    let (out, mut pieces) = mpsc::channel::<Result<Bytes, Cut>>(2);
    let (more, rest) = mpsc::channel::<Vec<String>>(1);
    let rest = stream::unfold(rest, |mut rest| async { rest.recv().await.map(|page| (Ok(page), rest)) });
    let running = tokio::spawn(run(stream::iter([Ok(rows(3))]).chain(rest), Names, out));
    let first = pieces.recv().await.unwrap().unwrap();
    assert!(first.starts_with(b"PK\x03\x04"));
    more.send(rows(2)).await.unwrap();
    drop(more);
    let mut whole = first.to_vec();
    while let Some(piece) = pieces.recv().await {
        whole.extend(piece.unwrap());
    }
    assert_eq!(running.await.unwrap(), Outcome::Finished);
    let mut archive = zip::ZipArchive::new(Cursor::new(whole)).unwrap();
    assert_eq!(part(&mut archive, "xl/worksheets/sheet1.xml").matches("<row ").count(), 6);
}

#[tokio::test]
async fn an_export_that_fails_is_no_whole_file() {
    for good in [0, 1, 3] {
        let (out, mut pieces) = mpsc::channel::<Result<Bytes, Cut>>(2);
        let pages: Vec<_> = (0..good).map(|_| Ok(rows(5_000))).chain([Err(failed()), Ok(rows(1))]).collect();
        let running = tokio::spawn(run(stream::iter(pages), Names, out));
        let (mut sent, mut error) = (Vec::new(), None);
        while let Some(piece) = pieces.recv().await {
            assert!(error.is_none(), "nothing follows the error");
            match piece {
                Ok(piece) => sent.extend(piece),
                Err(failure) => error = Some(failure),
            }
        }
        assert!(matches!(error, Some(Cut(SheetError::Store(_)))), "{error:?}");
        assert_eq!(running.await.unwrap(), Outcome::Failed);
        assert_eq!(sent.is_empty(), good == 0, "before the first page there is still a status to choose");
        assert!(zip::ZipArchive::new(Cursor::new(sent)).is_err(), "no directory was sent");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_walk() {
    let (out, mut pieces) = mpsc::channel::<Result<Bytes, Cut>>(2);
    let endless = stream::iter(std::iter::repeat_with(|| Ok(rows(1_000))));
    let running = tokio::spawn(run(endless, Names, out));
    pieces.recv().await.unwrap().unwrap();
    drop(pieces);
    assert_eq!(running.await.unwrap(), Outcome::Abandoned);
}
