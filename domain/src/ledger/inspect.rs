//! A walk over a chain, entry by entry, beside what was signed: where it breaks first, and how far it is proven.
//!
//! The chain alone shows an edit, an insertion, a deletion and a swap. What it cannot show is a tail that was cut off
//! and a chain that was written anew from some entry on; the [`Witness`]es can. Beyond the newest of them nothing is
//! proven yet.

use super::chain::{Broken, Fault, Hash, LedgerKey, Sealed, genesis, link};
use super::entry::Entry;
use super::roll::Witness;
use crate::id::ProjectId;

/// What is wrong, at the first entry where it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    pub seq: u64,
    pub kind: Fault,
    /// The last signed entry before it that stands as it was signed. Of a fork, the first entry that was written anew
    /// is one of those after it.
    pub proven: u64,
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The entry where the walk began.
    pub first: u64,
    /// Entries that follow from each other, from the first on.
    pub checked: u64,
    pub head_seq: u64,
    pub head_hash: Hash,
    /// The last entry that stands as it was signed; zero if none does.
    pub proven: u64,
    /// The newest entry that was signed, whether it stands or not.
    pub signed: Option<Witness>,
    pub first_bad: Option<Finding>,
}

impl Inspected {
    /// The first entry of which nothing is provable yet.
    pub fn unproven_from(&self) -> Option<u64> {
        (self.head_seq > self.proven).then_some(self.proven + 1)
    }

    /// What is wrong, in words.
    pub fn sentence(&self) -> Option<String> {
        let Finding { seq, kind, proven } = self.first_bad?;
        Some(match kind {
            Fault::Gap => format!("seq {seq} is missing, though later entries are there: it was deleted"),
            Fault::Unreadable => format!("seq {seq} is no entry that this version can read"),
            Fault::Misplaced => {
                format!(
                    "what stands at seq {seq} says that it is another entry: entries were deleted, swapped or renumbered"
                )
            }
            Fault::Doubled => format!("seq {seq} stands twice: one of the two was inserted"),
            Fault::Inserted => {
                format!("seq {seq} was inserted: the entry after it follows from the one before it")
            }
            Fault::Hash => {
                format!("seq {seq} does not follow from what stands before it: it was edited, or the entry before it")
            }
            Fault::Mac => format!("seq {seq} was not written with the key of this ledger: it was edited or inserted"),
            Fault::Short => match self.signed.filter(|signed| signed.seq >= seq) {
                Some(Witness { seq: last, at, .. }) => format!(
                    "seq {seq} is missing and nothing follows it, though seq {last} was signed at {at}: the tail was cut \
                     off, or this copy is older than the checkpoints"
                ),
                None => format!("seq {seq} is missing, though the store knows of later entries: the tail was cut off"),
            },
            Fault::Fork => {
                let from = proven + 1;
                let since = if from < seq {
                    format!("from one of seq {from} to {seq} on")
                } else {
                    format!("from seq {seq} on")
                };
                format!("seq {seq} is not the entry that was signed: the chain was written anew {since}")
            }
            Fault::Retold => format!("what is shown of seq {seq} is not what its entry says: it was edited"),
        })
    }
}

/// A walk under way.
pub struct Inspection<'a> {
    key: Option<&'a LedgerKey>,
    /// In the order of the chain; those before `next` are behind us.
    witnesses: &'a [Witness],
    next: usize,
    /// The hash before the next entry; `None` when the walk begins in the middle and nobody vouches for it.
    before: Option<Hash>,
    /// The hash before that.
    earlier: Option<Hash>,
    found: Inspected,
}

impl<'a> Inspection<'a> {
    /// Walks a whole chain. With the key, entries made by others are found too; an outsider has none. The witnesses
    /// are in the order of [`Witness::in_order`].
    pub fn new(project: ProjectId, key: Option<&'a LedgerKey>, witnesses: &'a [Witness]) -> Self {
        let found = Inspected {
            first: 1,
            checked: 0,
            head_seq: 0,
            head_hash: genesis(project),
            proven: 0,
            signed: witnesses.last().copied(),
            first_bad: None,
        };
        Self { key, witnesses, next: 0, before: Some(found.head_hash), earlier: None, found }
    }

    /// Walks the part of a chain from `first` on. Its first entry is taken on its word, unless the entry before it
    /// was signed.
    pub fn from(first: u64, project: ProjectId, key: Option<&'a LedgerKey>, witnesses: &'a [Witness]) -> Self {
        let mut walk = Self::new(project, key, witnesses);
        if first > 1 {
            walk.next = witnesses.partition_point(|witness| witness.seq < first);
            let before = witnesses[..walk.next].last().filter(|witness| witness.seq + 1 == first);
            walk.before = before.map(|witness| witness.hash);
            (walk.found.first, walk.found.head_seq) = (first, first - 1);
            walk.found.proven = walk.before.map_or(0, |_| first - 1);
        }
        walk
    }

    /// What was found so far.
    pub const fn found(&self) -> &Inspected {
        &self.found
    }

    /// Takes the next entry, and reads it. After a finding the walk is over.
    pub fn take(&mut self, sealed: &Sealed) -> Result<Entry, Finding> {
        let key = self.key;
        self.step(sealed, |sealed| sealed.read(key))
    }

    /// Takes the next entry by its hash and its MAC alone: what was made with the key in this place of the chain is as it
    /// was written, so who only signs need not read it.
    pub fn pass(&mut self, sealed: &Sealed, key: &LedgerKey) -> Result<(), Finding> {
        self.step(sealed, |sealed| sealed.is_by(key))
    }

    fn step<T>(&mut self, sealed: &Sealed, check: impl FnOnce(&Sealed) -> Result<T, Broken>) -> Result<T, Finding> {
        let expected = self.found.head_seq + 1;
        if sealed.seq < expected {
            return Err(self.bad(sealed.seq, Fault::Doubled));
        }
        // An entry that nobody vouches for vouches for itself.
        let is_vouched = self.before.is_some() || sealed.seq != expected;
        let before = self.before.unwrap_or(sealed.hash);
        let follows = if is_vouched { sealed.follows(expected, &before) } else { Ok(()) };
        let checked = match follows.and_then(|()| check(sealed)) {
            Ok(checked) => checked,
            Err(broken) => return Err(self.diagnose(sealed, broken)),
        };
        while let Some(witness) = self.witnesses.get(self.next).filter(|witness| witness.seq <= sealed.seq) {
            if witness.seq == sealed.seq && witness.hash != sealed.hash {
                return Err(self.bad(sealed.seq, Fault::Fork));
            }
            self.found.proven = witness.seq;
            self.next += 1;
        }
        (self.earlier, self.before) = (self.before, Some(sealed.hash));
        self.found.checked += 1;
        (self.found.head_seq, self.found.head_hash) = (sealed.seq, sealed.hash);
        Ok(checked)
    }

    /// Something else is wrong with the entry that comes next or was just taken.
    pub fn bad(&mut self, seq: u64, kind: Fault) -> Finding {
        let finding = Finding { seq, kind, proven: self.found.proven.min(seq.saturating_sub(1)) };
        self.found.first_bad = Some(finding);
        finding
    }

    /// The chain ends here; `known` is an entry that it is known to have had, or zero.
    pub fn end(mut self, known: u64) -> Inspected {
        let head = self.found.head_seq;
        if self.found.first_bad.is_none() && head < known.max(self.found.signed.map_or(0, |signed| signed.seq)) {
            self.bad(head + 1, Fault::Short);
        }
        self.found
    }

    /// Looks again at an entry that does not follow: whether it, or the one before it, belongs elsewhere.
    fn diagnose(&mut self, sealed: &Sealed, broken: Broken) -> Finding {
        let Broken { seq, kind } = broken;
        if kind != Fault::Hash {
            return self.bad(seq, kind);
        }
        let follows_earlier = self.earlier.is_some_and(|earlier| link(&earlier, &sealed.bytes) == sealed.hash);
        if follows_earlier {
            self.found.checked -= 1;
            return self.bad(seq - 1, Fault::Inserted);
        }
        let is_elsewhere = Entry::decode(&sealed.bytes).is_ok_and(|entry| entry.seq != seq);
        self.bad(seq, if is_elsewhere { Fault::Misplaced } else { Fault::Hash })
    }
}

#[cfg(test)]
mod tests;
