//! Exports of a chain, newest first, as a stream in constant memory.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cql::ledger::{entries, head};
use cql::{Store, StoreError};
use domain::id::ProjectId;
use domain::ledger::{AuditFilter, AuditItem, Entry, Sealed};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::mpsc;

use super::column::{Chain, Column, Row};
use crate::edge::app::App;
use crate::edge::error::ApiResult;
use crate::edge::sheet::{self, SheetError};

/// Entries read at a time.
const PAGE: usize = 500;
/// Pieces of a sheet that may wait for the client.
const AHEAD: usize = 2;

/// A line of the ndjson export: the item, and what an offline verifier needs.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    item: &'a AuditItem,
    /// Base64 of the entry's exact bytes.
    entry: String,
    mac: String,
}

/// An export's form.
pub(super) enum Form {
    Csv(Vec<Column>),
    Xlsx(Vec<Column>),
    /// Whole lines, with what a verifier needs, or the asked members.
    Ndjson(Option<Vec<Column>>),
}

/// Where an export is.
struct Walk {
    store: Arc<dyn Store>,
    project: ProjectId,
    filter: AuditFilter,
    below: u64,
}

pub(super) async fn respond(
    app: &App,
    project: ProjectId,
    name: &str,
    filter: AuditFilter,
    form: Form,
) -> ApiResult<Response> {
    let store = app.store.clone();
    let last = entries::last(&*store, project, head::load(&*store, project).await?.seq()).await?;
    let below = filter.starts_below(last.map_or(0, |last| last.seq + 1));
    let walk = Walk { store, project, filter, below };
    let pages = stream::try_unfold(walk, |mut walk| async move { Ok(walk.page().await?.map(|page| (page, walk))) });
    let (body, extension, kind) = match form {
        Form::Csv(columns) => {
            let head = stream::iter([Ok::<_, StoreError>(header(&columns))]);
            let rows = pages.map_ok(move |page| table(&columns, &page));
            (Body::from_stream(head.chain(rows)), "csv", "text/csv; charset=utf-8")
        }
        Form::Ndjson(columns) => {
            let lines = pages.map_ok(move |page| lines(columns.as_deref(), &page));
            (Body::from_stream(lines), "ndjson", "application/x-ndjson")
        }
        Form::Xlsx(columns) => {
            let (out, pieces) = mpsc::channel::<Result<Bytes, SheetError>>(AHEAD);
            let rows = pages.map_ok(|page| page.iter().map(|(item, _)| Row::of(item)).collect());
            tokio::spawn(async move { sheet::run(rows, Chain(columns), out).await });
            let pieces =
                stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (piece, pieces)) });
            (Body::from_stream(pieces), "xlsx", sheet::CONTENT_TYPE)
        }
    };
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"z4j-audit-{name}.{extension}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

impl Walk {
    async fn page(&mut self) -> Result<Option<Vec<(AuditItem, Sealed)>>, StoreError> {
        let page = entries::before(&*self.store, self.project, self.below, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.below = last.seq;
        let mut items = Vec::new();
        for sealed in page {
            let entry = Entry::decode(&sealed.bytes).map_err(|_| StoreError::Corrupt { what: "ledger entry" })?;
            let item = AuditItem::of(self.project, &entry, &sealed.hash);
            if self.filter.ends_before(&item) {
                self.below = 0;
                break;
            }
            if self.filter.admits(&item) {
                items.push((item, sealed));
            }
        }
        Ok(Some(items))
    }
}

fn lines(columns: Option<&[Column]>, page: &[(AuditItem, Sealed)]) -> Bytes {
    let mut out = Vec::new();
    for (item, sealed) in page {
        // Plain members always serialise.
        out.extend(match columns {
            Some(columns) => serde_json::to_vec(&Row::of(item).projected(columns)).unwrap_or_default(),
            None => {
                let line = Line { item, entry: STANDARD.encode(&sealed.bytes), mac: hex::encode(sealed.mac) };
                serde_json::to_vec(&line).unwrap_or_default()
            }
        });
        out.push(b'\n');
    }
    out.into()
}

fn header(columns: &[Column]) -> Bytes {
    let names: Vec<&str> = columns.iter().map(|column| column.name()).collect();
    (names.join(",") + "\r\n").into()
}

fn table(columns: &[Column], page: &[(AuditItem, Sealed)]) -> Bytes {
    let mut out = Vec::new();
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut out);
    for (item, _) in page {
        let row = Row::of(item);
        // A vector takes every byte.
        drop(writer.write_record(columns.iter().map(|column| row.text(*column).into_owned())));
    }
    drop(writer);
    out.into()
}
