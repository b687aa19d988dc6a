//! The walk over a whole chain, and what it found.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use cql::StoreError;
use cql::ledger::audit;
use domain::id::ProjectId;
use domain::ledger::{Checkpoint, Fault, Finding, Inspected, LedgerKey, Remark};
use domain::secret::KeyUse;
use domain::time::Timestamp;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::checkpoints::OfProject;
use crate::edge::app::App;
use crate::edge::error::{ApiError, ApiResult};

/// Progress lines that may wait for the client; more are left out.
const AHEAD: usize = 16;
/// Remarks about the file of checkpoints that an answer holds.
const REMARKS_MAX: usize = 20;

#[derive(Serialize, ToSchema)]
pub(super) struct Verdict {
    /// Every entry follows from the one before it, was made with our key, and is the one that was signed; and the
    /// checkpoints are as they were written.
    ok: bool,
    checked: u64,
    head: Head,
    #[schema(required)]
    first_bad: Option<FirstBad>,
    /// The newest signed checkpoint. Null: none was signed yet, or none can be read.
    #[schema(required)]
    checkpoint: Option<Signed>,
    /// The first entry that no checkpoint proves yet. Null: all are proven.
    #[schema(required)]
    unproven_from: Option<u64>,
    /// Verifies checkpoints, 64 hex digits. Null: this server cannot sign.
    #[schema(required, example = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")]
    public_key: Option<String>,
    /// What there is to say about the file of checkpoints, a torn line for example.
    remarks: Vec<String>,
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
    /// gap, unreadable, misplaced, doubled, inserted, hash, mac, short, fork or retold.
    #[schema(value_type = String, example = "hash")]
    kind: Fault,
    /// The last entry before it that stands as it was signed; zero if none does.
    proven: u64,
    message: String,
}

/// An entry that was signed.
#[derive(Serialize, ToSchema)]
struct Signed {
    seq: u64,
    /// Lowercase hex, as are the root and the signature.
    hash: String,
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// Checkpoints of this chain so far.
    size: u64,
    /// The root of the Merkle tree over them.
    root: String,
    signature: String,
}

impl Verdict {
    fn new(app: &App, found: &Inspected, signed: &OfProject) -> Self {
        let message = found.sentence().unwrap_or_default();
        let bad = |it: Finding| FirstBad { seq: it.seq, kind: it.kind, proven: it.proven, message };
        Self {
            ok: found.first_bad.is_none() && !signed.remarks.iter().any(Remark::is_fault),
            checked: found.checked,
            head: Head { seq: found.head_seq, hash: hex::encode(found.head_hash) },
            first_bad: found.first_bad.map(bad),
            checkpoint: signed.newest.as_ref().map(Signed::from),
            unproven_from: found.unproven_from(),
            public_key: app.checkpoints.as_ref().map(|checkpoints| checkpoints.public().to_string()),
            remarks: signed.remarks.iter().take(REMARKS_MAX).map(ToString::to_string).collect(),
        }
    }
}

impl From<&Checkpoint> for Signed {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self {
            seq: checkpoint.point.seq,
            hash: hex::encode(checkpoint.point.hash),
            at: checkpoint.point.at,
            size: checkpoint.size,
            root: hex::encode(checkpoint.root),
            signature: hex::encode(checkpoint.signature),
        }
    }
}

/// What was signed of the project. It is read before the chain, which only grows meanwhile.
async fn signed(app: &App, project: ProjectId) -> ApiResult<OfProject> {
    let Some(checkpoints) = &app.checkpoints else { return Ok(OfProject::default()) };
    checkpoints.of(project).await.map_err(|error| ApiError::Internal(Box::new(error)))
}

pub(super) async fn respond(app: App, project: ProjectId, headers: &HeaderMap) -> ApiResult<Response> {
    let key = LedgerKey::new(app.master.site_key(KeyUse::Ledger, project).as_bytes());
    let wants_lines = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/x-ndjson"));
    let signed = signed(&app, project).await?;
    if !wants_lines {
        let found = audit::verify(app.store.as_ref(), project, &key, &signed.witnesses, |_| {}).await?;
        return Ok(Json(Verdict::new(&app, &found, &signed)).into_response());
    }
    let (out, lines) = mpsc::channel::<Result<Bytes, StoreError>>(AHEAD);
    tokio::spawn(async move {
        let progress = |checked: u64| drop(out.try_send(Ok(line(&json!({ "progress": { "checked": checked } })))));
        let last = match audit::verify(app.store.as_ref(), project, &key, &signed.witnesses, progress).await {
            Ok(found) => Ok(line(&Verdict::new(&app, &found, &signed))),
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
