//! The walk over a whole chain, and what it found.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use cql::StoreError;
use cql::ledger::audit::{self, Verified};
use domain::id::ProjectId;
use domain::ledger::LedgerKey;
use domain::secret::KeyUse;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::edge::app::App;
use crate::edge::error::ApiResult;

/// Progress lines that may wait for the client; more are left out.
const AHEAD: usize = 16;

#[derive(Serialize, ToSchema)]
pub(super) struct Verdict {
    /// Every entry follows from the one before it and was made with our key.
    ok: bool,
    checked: u64,
    head: Head,
    #[schema(required)]
    first_bad: Option<FirstBad>,
    /// Null: this server signs no checkpoints yet.
    #[schema(required, value_type = Option<Object>)]
    checkpoint: Option<serde_json::Value>,
}

#[derive(Serialize, ToSchema)]
struct Head {
    seq: u64,
    /// Lowercase hex.
    hash: String,
}

#[derive(Serialize, ToSchema)]
struct FirstBad {
    seq: u64,
    /// gap, unreadable, misplaced, hash, mac or short.
    #[schema(value_type = String, example = "hash")]
    kind: domain::ledger::Fault,
}

impl From<Verified> for Verdict {
    fn from(verified: Verified) -> Self {
        Self {
            ok: verified.first_bad.is_none(),
            checked: verified.checked,
            head: Head { seq: verified.head_seq, hash: hex::encode(verified.head_hash) },
            first_bad: verified.first_bad.map(|broken| FirstBad { seq: broken.seq, kind: broken.kind }),
            checkpoint: None,
        }
    }
}

pub(super) async fn respond(app: App, project: ProjectId, headers: &HeaderMap) -> ApiResult<Response> {
    let key = LedgerKey::new(app.master.site_key(KeyUse::Ledger, project).as_bytes());
    let wants_lines = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/x-ndjson"));
    if !wants_lines {
        let verified = audit::verify(app.store.as_ref(), project, &key, |_| {}).await?;
        return Ok(Json(Verdict::from(verified)).into_response());
    }
    let (out, lines) = mpsc::channel::<Result<Bytes, StoreError>>(AHEAD);
    tokio::spawn(async move {
        let progress = |checked: u64| drop(out.try_send(Ok(line(&json!({ "progress": { "checked": checked } })))));
        let last = match audit::verify(app.store.as_ref(), project, &key, progress).await {
            Ok(verified) => Ok(line(&Verdict::from(verified))),
            Err(error) => Err(error),
        };
        // A client that is gone needs no verdict.
        drop(out.send(last).await);
    });
    let lines = stream::unfold(lines, |mut lines| async { lines.recv().await.map(|line| (line, lines)) });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn line(value: &impl Serialize) -> Bytes {
    // Plain members always serialise.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
