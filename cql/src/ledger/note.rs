//! One entry from a process that has no actor of the project, such as the command line.

use domain::id::ProjectId;
use domain::ledger::{LedgerKey, Log, Proposal};
use domain::time::Timestamp;

use super::entries::{self, Appended};
use super::head;
use crate::store::{Result, Store, StoreError};

/// Entries read at a time.
const PAGE: usize = 500;
/// A server beside us may append first, as often as it is asked to.
const TRIES: u32 = 16;

/// What became of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    Done,
    /// It may stand in the ledger or not.
    Unknown,
}

/// Reads the ledger to its end and appends one entry there. It must be none that projections follow from.
pub async fn note(
    store: &dyn Store,
    project: ProjectId,
    key: &LedgerKey,
    proposal: &Proposal,
    now: Timestamp,
) -> Result<Noted> {
    let corrupt = |_| StoreError::Corrupt { what: "ledger entry" };
    for _ in 0..TRIES {
        let mut log = Log::from_fold(head::load(store, project).await?, key.clone());
        loop {
            let page = entries::tail(store, project, log.fold.seq() + 1, PAGE).await?;
            for sealed in &page {
                log.read(sealed).map_err(corrupt)?;
            }
            if page.len() < PAGE {
                break;
            }
        }
        let (sealed, _) = log.record(proposal.clone(), now);
        match entries::append(store, project, &[sealed], Vec::new()).await? {
            Appended::Done(_) => return Ok(Noted::Done),
            Appended::Lost => {}
            Appended::Unknown => return Ok(Noted::Unknown),
        }
    }
    Ok(Noted::Unknown)
}
