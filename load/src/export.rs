//! Exports of a project that holds tasks: rows per second, time to the first byte, memory of the server.

use std::io::{BufReader, Read, Seek, Write};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::agent::Progress;
use crate::process::Usage;
use crate::report::{Report, mib};
use crate::rest::Rest;
use crate::target::Target;
use crate::watch::Watch;

#[derive(Args)]
pub(crate) struct Export {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Columns; without it the server's default ones.
    #[arg(long)]
    fields: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Csv,
    Ndjson,
    Xlsx,
}

impl Format {
    const fn word(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Xlsx => "xlsx",
        }
    }
}

pub(crate) async fn run(export: &Export) -> Result<String> {
    let target = &export.target;
    let mut rest = Rest::login(target).await?;
    let total = rest.task_count().await?;
    ensure!(total > 0, "the project has no tasks: run `load swarm` first");
    let mut path = format!("/tasks?format={}", export.format.word());
    if let Some(fields) = &export.fields {
        path.push_str("&fields=");
        path.push_str(fields);
    }
    let (server, own) = (target.usage()?, Usage::of(std::process::id())?);
    let watch = Watch::start(target, Progress::default());
    let mut counter = Counter::new(export.format)?;
    let download = rest.download(&path, |piece| counter.take(piece)).await?;
    let (server_after, own_after, watched) = (target.usage()?, Usage::of(std::process::id())?, watch.stop().await?);
    let rows = counter.rows()?;

    let mut report = Report::new("export");
    let seconds = download.whole.as_secs_f64();
    report.figure("rows", rows as f64);
    report.figure("rows per second", rows as f64 / seconds);
    report.figure("first byte, ms", download.first_byte.as_secs_f64() * 1e3);
    report.figure("seconds", seconds);
    report.figure("MiB", mib(download.bytes));
    if let (Some(before), Some(after)) = (server, server_after) {
        report.cpu("server", before, after, download.whole, rows);
        report.figure("server memory, growth, MiB", mib(watched.memory_peak - watched.memory_before));
    }
    report.cpu("generator", own, own_after, download.whole, rows);
    ensure!(rows == total, "{rows} rows were exported, {total} tasks are listed");
    report.finish(&target.output)
}

/// Counts the rows of an export as it arrives.
enum Counter {
    Csv {
        lines: u64,
        quoted: bool,
    },
    Lines(u64),
    /// A sheet is read once it is whole.
    Sheet(std::fs::File),
}

impl Counter {
    fn new(format: Format) -> Result<Self> {
        Ok(match format {
            Format::Csv => Self::Csv { lines: 0, quoted: false },
            Format::Ndjson => Self::Lines(0),
            Format::Xlsx => Self::Sheet(tempfile::tempfile().context("no temporary file")?),
        })
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        match self {
            Self::Csv { lines, quoted } => {
                for byte in piece {
                    // A doubled quote inside a cell closes and opens it.
                    *quoted ^= *byte == b'"';
                    *lines += u64::from(*byte == b'\n' && !*quoted);
                }
            }
            Self::Lines(lines) => *lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64,
            Self::Sheet(file) => file.write_all(piece)?,
        }
        Ok(())
    }

    /// Rows without headers.
    fn rows(self) -> Result<u64> {
        match self {
            Self::Csv { lines, quoted } => {
                ensure!(!quoted, "the export ends within a cell");
                lines.checked_sub(1).context("an export without a header")
            }
            Self::Lines(lines) => Ok(lines),
            Self::Sheet(mut file) => {
                file.rewind()?;
                sheet_rows(&mut zip::ZipArchive::new(BufReader::new(file))?)
            }
        }
    }
}

/// Rows of every sheet of a workbook, each without its header.
fn sheet_rows<R: Read + Seek>(workbook: &mut zip::ZipArchive<R>) -> Result<u64> {
    let names = workbook.file_names().map(|name| Ok(name?.into_owned())).collect::<Result<Vec<String>>>()?;
    let mut rows = 0;
    for name in names.into_iter().filter(|name| name.starts_with("xl/worksheets/sheet")) {
        let found = occurrences(&mut workbook.by_name(&name)?, b"<row ")?;
        rows += found.checked_sub(1).with_context(|| format!("{name} has no header"))?;
    }
    Ok(rows)
}

/// How often `mark` stands in what `from` gives; `mark` starts with a byte that it does not hold again.
fn occurrences(from: &mut impl Read, mark: &[u8]) -> Result<u64> {
    let (mut buffer, mut matched, mut found) = (vec![0; 64 << 10], 0, 0);
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(found);
        }
        for byte in &buffer[..length] {
            matched = if *byte == mark[matched] { matched + 1 } else { usize::from(*byte == mark[0]) };
            if matched == mark.len() {
                (found, matched) = (found + 1, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(format: Format, pieces: &[&[u8]]) -> Result<u64> {
        let mut counter = Counter::new(format)?;
        pieces.iter().try_for_each(|piece| counter.take(piece))?;
        counter.rows()
    }

    #[test]
    fn rows_are_counted_across_pieces_and_quoted_line_breaks() {
        let pieces: &[&[u8]] = &[b"id,text\r\n1,\"two\nli", b"nes \"\"quoted\"\"\n\"\r\n2,plain\r\n"];
        assert_eq!(counted(Format::Csv, pieces).ok(), Some(2));
        assert_eq!(counted(Format::Ndjson, &[b"{}\n{", b"}\n"]).ok(), Some(2));
        assert!(counted(Format::Csv, &[b"id\n1,\"cut"]).is_err() && counted(Format::Csv, &[]).is_err());
    }

    #[test]
    fn a_mark_is_found_across_reads_and_false_starts() {
        let text: &[u8] = b"<rows><row r=1><<row r=2></row><ro";
        assert_eq!(occurrences(&mut &*text, b"<row ").ok(), Some(2));
    }

    #[test]
    fn a_workbooks_rows_are_those_of_all_sheets_without_headers() {
        let mut made = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, rows) in [("xl/worksheets/sheet1.xml", 3), ("xl/worksheets/sheet2.xml", 2), ("xl/styles.xml", 9)] {
            made.start_file(name, zip::write::SimpleFileOptions::default()).expect("a new member");
            made.write_all("<row r=\"1\"></row>".repeat(rows).as_bytes()).expect("room");
        }
        let bytes = made.finish().expect("whole").into_inner();
        assert_eq!(counted(Format::Xlsx, &[&bytes[..50], &bytes[50..]]).ok(), Some(3));
    }
}
