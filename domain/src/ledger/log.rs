//! A fold and its chain, kept together: whoever appends through it cannot forget one of the two.

use super::chain::{Broken, LedgerKey, Sealed};
use super::entry::{Entry, Proposal};
use super::fold::{Change, Fold};
use crate::id::ProjectId;
use crate::time::Timestamp;

/// One project's ledger in memory: everything up to its head.
#[derive(Clone, Debug)]
pub struct Log {
    pub fold: Fold,
    key: LedgerKey,
}

impl Log {
    pub fn new(project: ProjectId, key: LedgerKey) -> Self {
        Self { fold: Fold::new(project), key }
    }

    pub fn from_fold(fold: Fold, key: LedgerKey) -> Self {
        Self { fold, key }
    }

    /// Puts a proposal at the next place. The caller makes it durable, or forgets this log.
    pub fn record(&mut self, proposal: Proposal, now: Timestamp) -> (Sealed, Vec<Change>) {
        let Proposal { actor, source, kind } = proposal;
        let entry = Entry { seq: self.fold.seq() + 1, at: now.max(self.fold.at()), actor, source, kind };
        let sealed = Sealed::new(&entry, self.fold.hash(), &self.key);
        let changes = self.fold.apply(&entry, sealed.hash);
        (sealed, changes)
    }

    /// Reads the next stored entry, and refuses it if the chain breaks there.
    pub fn read(&mut self, sealed: &Sealed) -> Result<(Entry, Vec<Change>), Broken> {
        let entry = sealed.verify(self.fold.seq() + 1, self.fold.hash(), Some(&self.key))?;
        let changes = self.fold.apply(&entry, sealed.hash);
        Ok((entry, changes))
    }
}
