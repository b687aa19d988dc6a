//! `ledger_head`: where a fold may start instead of the first entry.
//!
//! A hint: readers go on from it. It is written only when every projection of the entries below it is durable.

use bytes::Bytes;
use domain::id::ProjectId;
use domain::ledger::Fold;

use crate::store::{Key, Result, Store, Write};
use crate::table::Table;

fn key(project: ProjectId) -> Key {
    Key::new(Table::LedgerHead, Bytes::copy_from_slice(&project.bytes()), Bytes::new())
}

/// The write of a fold as head; `None` if it is too large to be worth it.
pub fn put(fold: &Fold) -> Option<Write> {
    let stamp = i64::try_from(fold.seq()).unwrap_or(i64::MAX);
    Some(Write::put(key(fold.project()), fold.snapshot()?).stamped(stamp))
}

/// Where to start: the head, or an empty ledger. A head that is not readable is none.
pub async fn load(store: &dyn Store, project: ProjectId) -> Result<Fold> {
    let head = store.get(&key(project)).await?;
    let fold = head.and_then(|bytes| Fold::from_snapshot(&bytes)).filter(|fold| fold.project() == project);
    Ok(fold.unwrap_or_else(|| Fold::new(project)))
}
