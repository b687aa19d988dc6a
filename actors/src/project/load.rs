//! From the store to memory: the fold, and the projections it can vouch for.

use cql::ledger::{Projector, entries, head};
use cql::{Store, StoreError};
use domain::id::ProjectId;
use domain::ledger::{Broken, Change, Fold, LedgerKey, Log};

/// Entries read at a time.
const PAGE: usize = 500;

#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("the chain does not hold")]
    Broken(#[from] Broken),
}

pub(super) struct Loaded {
    pub(super) log: Log,
    pub(super) projector: Projector,
    pub(super) head_seq: u64,
}

/// Folds a ledger from its head, or from its first entry if the head does not fit.
pub(super) async fn load(store: &dyn Store, project: ProjectId, key: &LedgerKey) -> Result<Loaded, LoadError> {
    let fold = head::load(store, project).await?;
    let head_seq = fold.seq();
    match from(store, fold, key).await {
        Err(LoadError::Broken(broken)) if head_seq > 0 => {
            tracing::warn!(project.id = %project, error = %broken, "ledger head does not fit; folding from the start");
            from(store, Fold::new(project), key).await
        }
        loaded => loaded,
    }
}

async fn from(store: &dyn Store, fold: Fold, key: &LedgerKey) -> Result<Loaded, LoadError> {
    let head_seq = fold.seq();
    let mut loaded = Loaded { log: Log::from_fold(fold, key.clone()), projector: Projector::default(), head_seq };
    read_on(store, &mut loaded.log, &mut loaded.projector).await?;
    Ok(loaded)
}

/// Takes entries in that others have written, and writes what follows from them: their home may have died in
/// between, and rows that are not ours may not be seen yet. True if there were any.
pub(super) async fn read_on(store: &dyn Store, log: &mut Log, projector: &mut Projector) -> Result<bool, LoadError> {
    let mut found = false;
    loop {
        let page = entries::tail(store, log.fold.project(), log.fold.seq() + 1, PAGE).await?;
        let mut changes: Vec<(u64, Change)> = Vec::new();
        for sealed in &page {
            let (entry, follow) = log.read(sealed)?;
            changes.extend(follow.into_iter().map(|change| (entry.seq, change)));
        }
        let writes = projector.writes(store, log.fold.project(), &changes).await?;
        if !writes.is_empty() {
            match store.write(writes.clone()).await {
                Err(StoreError::Full) => projector.owe(writes),
                written => written?,
            }
        }
        found |= !page.is_empty();
        if page.len() < PAGE {
            return Ok(found);
        }
    }
}
