//! A workbook in the order in which it can be written without looking back.
//!
//! The archive's entries carry their sizes behind their bytes and its directory stands at the end, so nothing is
//! kept but names. What does not depend on the rows comes first, then the sheets, then what lists them.

use std::io::Write;

use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use super::{SheetError, Table, cell};

/// Cells make good strings of equal parts; more effort costs several times the processor for a tenth of the size.
const EFFORT: i64 = 1;
/// XML that is handed over at once.
const XML_BYTES: usize = 64 << 10;

const NAMESPACE: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
const TYPES: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";

/// Plain, the bold header, and times to the millisecond, in this order.
const STYLES: &str = "<numFmts count=\"1\"><numFmt numFmtId=\"164\" formatCode=\"yyyy-mm-dd hh:mm:ss.000\"/></numFmts>\
    <fonts count=\"2\"><font><sz val=\"11\"/><name val=\"Calibri\"/><family val=\"2\"/></font>\
    <font><b/><sz val=\"11\"/><name val=\"Calibri\"/><family val=\"2\"/></font></fonts>\
    <fills count=\"2\"><fill><patternFill patternType=\"none\"/></fill><fill><patternFill patternType=\"gray125\"/></fill></fills>\
    <borders count=\"1\"><border><left/><right/><top/><bottom/><diagonal/></border></borders>\
    <cellStyleXfs count=\"1\"><xf numFmtId=\"0\" fontId=\"0\" fillId=\"0\" borderId=\"0\"/></cellStyleXfs>\
    <cellXfs count=\"3\"><xf numFmtId=\"0\" fontId=\"0\" fillId=\"0\" borderId=\"0\" xfId=\"0\"/>\
    <xf numFmtId=\"0\" fontId=\"1\" fillId=\"0\" borderId=\"0\" xfId=\"0\" applyFont=\"1\"/>\
    <xf numFmtId=\"164\" fontId=\"0\" fillId=\"0\" borderId=\"0\" xfId=\"0\" applyNumberFormat=\"1\"/></cellXfs>\
    <cellStyles count=\"1\"><cellStyle name=\"Normal\" xfId=\"0\" builtinId=\"0\"/></cellStyles>";

/// When a sheet is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows below its header.
    pub(super) rows: u32,
    /// Bytes of its XML. An entry of 4 GiB needs an extension of the archive that spreadsheets complain about.
    pub(super) bytes: u64,
}

impl Limits {
    pub(super) const FORMAT: Self = Self { rows: 1_048_575, bytes: 4_000_000_000 };
}

/// A workbook that goes on on a further sheet when one is full.
pub(super) struct Book<'a, T, W: Write> {
    archive: ZipWriter<StreamWriter<W>>,
    table: &'a T,
    limits: Limits,
    columns: Vec<String>,
    sheets: usize,
    /// Of the sheet that is open.
    rows: u32,
    bytes: u64,
    /// What is not handed over yet.
    xml: Vec<u8>,
}

impl<'a, T: Table, W: Write> Book<'a, T, W> {
    pub(super) fn new(table: &'a T, limits: Limits, out: W) -> Result<Self, SheetError> {
        let columns = table.names().enumerate().map(|(place, _)| cell::letters(place)).collect();
        let archive = ZipWriter::new_stream(out);
        let mut book = Self { archive, table, limits, columns, sheets: 0, rows: 0, bytes: 0, xml: Vec::new() };
        let relation =
            format!("<Relationship Id=\"rId1\" Type=\"{RELATIONS}/officeDocument\" Target=\"xl/workbook.xml\"/>");
        book.part("_rels/.rels", "Relationships", &format!("{PACKAGE}/relationships"), &relation)?;
        book.part("xl/styles.xml", "styleSheet", NAMESPACE, STYLES)?;
        book.open()?;
        Ok(book)
    }

    pub(super) fn add(&mut self, row: &T::Row) -> Result<(), SheetError> {
        let bytes = self.bytes + self.xml.len() as u64;
        if self.rows == self.limits.rows || bytes >= self.limits.bytes {
            self.close()?;
            self.open()?;
        }
        self.rows += 1;
        cell::row(&mut self.xml, self.rows + 1, &self.columns, self.table.cells(row));
        if self.xml.len() >= XML_BYTES { self.hand_over() } else { Ok(()) }
    }

    /// Sends every row so far on its way.
    pub(super) fn flush(&mut self) -> Result<(), SheetError> {
        self.hand_over()?;
        Ok(self.archive.flush()?)
    }

    /// Ends the workbook.
    pub(super) fn finish(mut self) -> Result<W, SheetError> {
        self.close()?;
        let (mut sheets, mut relations, mut types) = (String::new(), String::new(), String::new());
        for number in 1..=self.sheets {
            let name = match number {
                1 => T::TITLE.to_owned(),
                number => format!("{} {number}", T::TITLE),
            };
            sheets += &format!("<sheet name=\"{name}\" sheetId=\"{number}\" r:id=\"rId{number}\"/>");
            relations += &format!(
                "<Relationship Id=\"rId{number}\" Type=\"{RELATIONS}/worksheet\" Target=\"worksheets/sheet{number}.xml\"/>"
            );
            types += &format!(
                "<Override PartName=\"/xl/worksheets/sheet{number}.xml\" ContentType=\"{TYPES}.worksheet+xml\"/>"
            );
        }
        let styles = self.sheets + 1;
        relations += &format!("<Relationship Id=\"rId{styles}\" Type=\"{RELATIONS}/styles\" Target=\"styles.xml\"/>");
        let types = format!(
            "<Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
             <Default Extension=\"xml\" ContentType=\"application/xml\"/>\
             <Override PartName=\"/xl/workbook.xml\" ContentType=\"{TYPES}.sheet.main+xml\"/>\
             <Override PartName=\"/xl/styles.xml\" ContentType=\"{TYPES}.styles+xml\"/>{types}"
        );
        let workbook = format!("<bookViews><workbookView/></bookViews><sheets>{sheets}</sheets>");
        let namespaces = format!("{NAMESPACE}\" xmlns:r=\"{RELATIONS}");
        self.part("xl/workbook.xml", "workbook", &namespaces, &workbook)?;
        self.part("xl/_rels/workbook.xml.rels", "Relationships", &format!("{PACKAGE}/relationships"), &relations)?;
        self.part("[Content_Types].xml", "Types", &format!("{PACKAGE}/content-types"), &types)?;
        Ok(self.archive.finish()?.into_inner())
    }

    /// A small part, whole.
    fn part(&mut self, path: &str, root: &str, namespace: &str, content: &str) -> Result<(), SheetError> {
        self.start(path)?;
        let xml = format!("{DECLARATION}<{root} xmlns=\"{namespace}\">{content}</{root}>");
        Ok(self.archive.write_all(xml.as_bytes())?)
    }

    fn start(&mut self, path: &str) -> Result<(), SheetError> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(EFFORT));
        Ok(self.archive.start_file(path, options)?)
    }

    /// Begins a sheet with its frozen header.
    fn open(&mut self) -> Result<(), SheetError> {
        (self.sheets, self.rows, self.bytes) = (self.sheets + 1, 0, 0);
        let path = format!("xl/worksheets/sheet{}.xml", self.sheets);
        self.start(&path)?;
        let selected = if self.sheets == 1 { " tabSelected=\"1\"" } else { "" };
        let head = format!(
            "{DECLARATION}<worksheet xmlns=\"{NAMESPACE}\"><sheetViews><sheetView{selected} workbookViewId=\"0\">\
             <pane ySplit=\"1\" topLeftCell=\"A2\" activePane=\"bottomLeft\" state=\"frozen\"/>\
             </sheetView></sheetViews><sheetFormatPr defaultRowHeight=\"15\"/><sheetData>"
        );
        self.xml.extend_from_slice(head.as_bytes());
        cell::header(&mut self.xml, &self.columns, self.table.names());
        Ok(())
    }

    fn close(&mut self) -> Result<(), SheetError> {
        self.xml.extend_from_slice(b"</sheetData></worksheet>");
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), SheetError> {
        self.archive.write_all(&self.xml)?;
        self.bytes += self.xml.len() as u64;
        self.xml.clear();
        Ok(())
    }
}
