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
use futures_util::{StreamExt, stream};
use serde::Serialize;
use std::sync::Arc;

use crate::edge::app::App;
use crate::edge::error::ApiResult;
use crate::edge::tasks::neutral;

/// Entries read at a time.
const PAGE: usize = 500;
const COLUMNS: [&str; 14] = [
    "seq",
    "occurred_at",
    "actor",
    "action",
    "target_type",
    "target_id",
    "result",
    "outcome",
    "command_id",
    "force",
    "global_throttle",
    "source_ip",
    "user_agent",
    "hash",
];

/// A line of the ndjson export: the item, and what an offline verifier needs.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    item: &'a AuditItem,
    /// Base64 of the entry's exact bytes.
    entry: String,
    mac: String,
}

/// Where an export is.
struct Walk {
    store: Arc<dyn Store>,
    project: ProjectId,
    filter: AuditFilter,
    below: u64,
    columnar: bool,
}

pub(super) async fn respond(
    app: &App,
    project: ProjectId,
    name: &str,
    filter: AuditFilter,
    columnar: bool,
) -> ApiResult<Response> {
    let store = app.store.clone();
    let last = entries::last(&*store, project, head::load(&*store, project).await?.seq()).await?;
    let below = last.map_or(0, |last| last.seq + 1);
    let head = if columnar { COLUMNS.join(",") + "\r\n" } else { String::new() };
    let walk = Walk { store, project, filter, below, columnar };
    let pages = stream::try_unfold(walk, |mut walk| async move { Ok(walk.page().await?.map(|page| (page, walk))) });
    let body = Body::from_stream(stream::iter([Ok::<_, StoreError>(Bytes::from(head))]).chain(pages));
    let (extension, kind) =
        if columnar { ("csv", "text/csv; charset=utf-8") } else { ("ndjson", "application/x-ndjson") };
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"z4j-audit-{name}.{extension}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

impl Walk {
    async fn page(&mut self) -> Result<Option<Bytes>, StoreError> {
        let page = entries::before(&*self.store, self.project, self.below, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.below = last.seq;
        let mut out = Vec::new();
        for sealed in &page {
            let entry = Entry::decode(&sealed.bytes).map_err(|_| StoreError::Corrupt { what: "ledger entry" })?;
            let item = AuditItem::of(self.project, &entry, &sealed.hash);
            // Entries are in time order, so the first one that is too old ends the walk.
            if self.filter.since.is_some_and(|since| item.occurred_at < since) {
                self.below = 0;
                break;
            }
            if self.filter.admits(&item) {
                if self.columnar { row(&item, &mut out) } else { line(&item, sealed, &mut out) }
            }
        }
        Ok(Some(out.into()))
    }
}

fn line(item: &AuditItem, sealed: &Sealed, out: &mut Vec<u8>) {
    let line = Line { item, entry: STANDARD.encode(&sealed.bytes), mac: hex::encode(sealed.mac) };
    // Plain members always serialise.
    out.extend(serde_json::to_vec(&line).unwrap_or_default());
    out.push(b'\n');
}

fn row(item: &AuditItem, out: &mut Vec<u8>) {
    let optional = |value: Option<String>| value.unwrap_or_default();
    let cells = [
        item.seq.to_string(),
        item.occurred_at.to_string(),
        item.actor.clone(),
        item.action.clone(),
        item.target_type.to_owned(),
        optional(item.target_id.clone()),
        item.result.to_owned(),
        item.outcome.to_owned(),
        optional(item.command_id.map(|id| id.to_string())),
        item.force.to_string(),
        item.global_throttle.to_string(),
        optional(item.source_ip.clone()),
        optional(item.user_agent.clone()),
        item.hash.clone(),
    ];
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut *out);
    // A vector takes every byte.
    drop(writer.write_record(cells.into_iter().map(|cell| neutral(cell.into()).into_owned())));
    drop(writer.flush());
}
