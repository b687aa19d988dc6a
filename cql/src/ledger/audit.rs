//! Entries as auditors read them, and the walk that verifies a whole chain.

use domain::id::ProjectId;
use domain::ledger::{AuditFilter, AuditItem, Entry, Inspected, Inspection, LedgerKey, Witness};

use super::{entries, head};
use crate::store::{Result, Store, StoreError};

/// Entries read at a time.
const PAGE: usize = 500;

/// Items newest first, and below which seq to go on.
#[derive(Debug)]
pub struct AuditPage {
    pub items: Vec<AuditItem>,
    pub next: Option<u64>,
}

/// A page of audit items below `before`, newest first.
pub async fn list(
    store: &dyn Store,
    project: ProjectId,
    filter: &AuditFilter,
    before: Option<u64>,
    limit: usize,
) -> Result<AuditPage> {
    let mut below = match before {
        Some(seq) => seq,
        None => match entries::last(store, project, head::load(store, project).await?.seq()).await? {
            Some(last) => last.seq + 1,
            None => return Ok(AuditPage { items: Vec::new(), next: None }),
        },
    };
    below = filter.starts_below(below);
    let mut items: Vec<AuditItem> = Vec::new();
    loop {
        let page = entries::before(store, project, below, PAGE.min(limit * 4 + 1)).await?;
        let Some(last) = page.last() else { return Ok(AuditPage { items, next: None }) };
        below = last.seq;
        for sealed in &page {
            let entry = Entry::decode(&sealed.bytes).map_err(|_| StoreError::Corrupt { what: "ledger entry" })?;
            let item = AuditItem::of(project, &entry, &sealed.hash);
            if filter.ends_before(&item) {
                return Ok(AuditPage { items, next: None });
            }
            if !filter.admits(&item) {
                continue;
            }
            if items.len() == limit {
                let next = items.last().map(|item| item.seq);
                return Ok(AuditPage { items, next });
            }
            items.push(item);
        }
    }
}

/// Walks a chain from its first entry, beside the checkpoints that were signed of it, in order; `progress` hears how
/// many entries hold so far.
pub async fn verify(
    store: &dyn Store,
    project: ProjectId,
    key: &LedgerKey,
    witnesses: &[Witness],
    mut progress: impl FnMut(u64) + Send,
) -> Result<Inspected> {
    let mut walk = Inspection::new(project, Some(key), witnesses);
    // Read first: the head may only grow while we walk.
    let known = head::load(store, project).await?.seq();
    loop {
        let page = entries::tail(store, project, walk.found().head_seq + 1, PAGE).await?;
        for sealed in &page {
            if walk.take(sealed).is_err() {
                return Ok(walk.end(known));
            }
        }
        progress(walk.found().checked);
        if page.len() < PAGE {
            return Ok(walk.end(known));
        }
    }
}
