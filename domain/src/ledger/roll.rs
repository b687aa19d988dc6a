//! A file of checkpoints, read line by line: which of them count, and what is wrong with the file.
//!
//! The lines of a project must grow its tree leaf by leaf. Where they do, one signature over the newest root vouches
//! for all of them; where the tree is not known, each needs its own. A line that cannot be read is left out: a crash
//! tears the last one, and whoever garbles another takes a leaf away that the next root misses.

use std::collections::HashMap;

use super::chain::Hash;
use super::checkpoint::{Checkpoint, NoCheckpoint, PublicKey};
use super::tree::Tree;
use crate::id::ProjectId;
use crate::time::Timestamp;

/// A signed entry, as much of it as a chain is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    pub seq: u64,
    pub hash: Hash,
    /// When it was signed.
    pub at: Timestamp,
}

/// What is to be said about a line. Lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Remark {
    /// No fault: a crash does this.
    #[error("line {line} is torn and was left out")]
    Torn { line: u64 },
    /// No fault: an older file holds what is missing, or it is lost.
    #[error("line {line} begins the checkpoints of {project} at the {size}th: those before it are not in this file")]
    Late { line: u64, project: ProjectId, size: u64 },
    /// No fault: the server found no checkpoints that it could go on from.
    #[error("line {line} begins the checkpoints of {project} anew: some before it may be lost")]
    Anew { line: u64, project: ProjectId },
    #[error("line {line} is not signed by the key")]
    Signature { line: u64 },
    #[error(
        "before line {line} checkpoints of {project} are missing: it is the {found}th and should be the {expected}th"
    )]
    Missing { line: u64, project: ProjectId, expected: u64, found: u64 },
    #[error("line {line} does not follow from the checkpoints of {project} before it: one of them was changed")]
    Root { line: u64, project: ProjectId },
}

impl Remark {
    /// Whether somebody must have changed the file, or it was signed by somebody else.
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::Torn { .. } | Self::Late { .. } | Self::Anew { .. } => false,
            Self::Signature { .. } | Self::Missing { .. } | Self::Root { .. } => true,
        }
    }
}

/// What a file says about one project.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// In the order of the file.
    pub witnesses: Vec<Witness>,
    pub newest: Option<Checkpoint>,
    /// Where the next leaf belongs; `None` if the lines do not tell.
    pub tree: Option<Tree>,
}

/// A file that was read to its end.
#[derive(Clone, Debug, Default)]
pub struct Rolled {
    pub projects: HashMap<ProjectId, Signed>,
    pub remarks: Vec<Remark>,
}

/// A project's lines so far.
#[derive(Default)]
struct Thread {
    signed: Signed,
    /// Waits for the signature of its last line.
    pending: Vec<Witness>,
    last: Option<(u64, Checkpoint)>,
}

/// Reads a file.
pub struct Roll<'a> {
    keys: &'a [PublicKey],
    line: u64,
    threads: HashMap<ProjectId, Thread>,
    remarks: Vec<Remark>,
}

impl<'a> Roll<'a> {
    /// Reads lines that one of the keys signed.
    pub fn new(keys: &'a [PublicKey]) -> Self {
        Self { keys, line: 0, threads: HashMap::new(), remarks: Vec::new() }
    }

    /// Passes over a line that is not asked for.
    pub fn skip(&mut self) {
        self.line += 1;
    }

    /// Takes the next line.
    pub fn read(&mut self, text: &str) {
        self.line += 1;
        let line = self.line;
        if text.trim().is_empty() {
            return;
        }
        let checkpoint = match text.parse::<Checkpoint>() {
            Ok(checkpoint) => checkpoint,
            Err(NoCheckpoint) => return self.remarks.push(Remark::Torn { line }),
        };
        let project = checkpoint.point.project;
        let thread = self.threads.entry(project).or_default();
        let is_first = thread.last.is_none() && thread.signed.newest.is_none();
        if checkpoint.size == 1 {
            self.remarks.extend(thread.close(self.keys));
            self.remarks.extend((!is_first).then_some(Remark::Anew { line, project }));
            thread.signed.tree = Some(Tree::default());
        } else if is_first {
            self.remarks.push(Remark::Late { line, project, size: checkpoint.size });
        }
        let remark = thread.take(line, checkpoint, self.keys);
        self.remarks.extend(remark);
    }

    /// The end of the file.
    pub fn end(mut self) -> Rolled {
        let mut projects = HashMap::new();
        for (project, mut thread) in self.threads {
            self.remarks.extend(thread.close(self.keys));
            projects.insert(project, thread.signed);
        }
        self.remarks.sort_by_key(Remark::line);
        Rolled { projects, remarks: self.remarks }
    }
}

impl Remark {
    const fn line(&self) -> u64 {
        match self {
            Self::Torn { line }
            | Self::Late { line, .. }
            | Self::Anew { line, .. }
            | Self::Signature { line }
            | Self::Missing { line, .. }
            | Self::Root { line, .. } => *line,
        }
    }
}

impl Thread {
    fn take(&mut self, line: u64, checkpoint: Checkpoint, keys: &[PublicKey]) -> Option<Remark> {
        let project = checkpoint.point.project;
        let Some(tree) = &mut self.signed.tree else { return self.take_alone(line, checkpoint, keys) };
        let expected = tree.size() + 1;
        tree.push(&checkpoint.point.leaf());
        let remark = if checkpoint.size != expected {
            Remark::Missing { line, project, expected, found: checkpoint.size }
        } else if tree.root() != checkpoint.root {
            Remark::Root { line, project }
        } else {
            self.pending.push(Witness::of(&checkpoint));
            self.last = Some((line, checkpoint));
            return None;
        };
        // From here on the tree is not known. A fault at the lines before is found where they end.
        let before = self.close(keys);
        self.signed.tree = None;
        let alone = self.take_alone(line, checkpoint, keys);
        Some(before.or(alone).unwrap_or(remark))
    }

    fn take_alone(&mut self, line: u64, checkpoint: Checkpoint, keys: &[PublicKey]) -> Option<Remark> {
        if !checkpoint.is_signed_by(keys) {
            return Some(Remark::Signature { line });
        }
        self.signed.witnesses.push(Witness::of(&checkpoint));
        self.signed.newest = Some(checkpoint);
        None
    }

    /// Checks the signature that stands for all lines that wait; without it none of them counts.
    fn close(&mut self, keys: &[PublicKey]) -> Option<Remark> {
        let (line, checkpoint) = self.last.take()?;
        let pending = std::mem::take(&mut self.pending);
        if !checkpoint.is_signed_by(keys) {
            self.signed.tree = None;
            return Some(Remark::Signature { line });
        }
        self.signed.witnesses.extend(pending);
        self.signed.newest = Some(checkpoint);
        None
    }
}

impl Witness {
    fn of(checkpoint: &Checkpoint) -> Self {
        let point = checkpoint.point;
        Self { seq: point.seq, hash: point.hash, at: point.at }
    }

    /// Witnesses of several files in the order of the chain, each once. Two that contradict each other both stay.
    pub fn in_order(mut witnesses: Vec<Self>) -> Vec<Self> {
        witnesses.sort_by_key(|witness| (witness.seq, witness.hash, witness.at));
        witnesses.dedup_by_key(|witness| (witness.seq, witness.hash));
        witnesses
    }

    /// At most so many, the newest among them: a chain that holds up to the newest holds before it too, so the others
    /// only narrow down where it does not.
    pub fn thinned(mut witnesses: Vec<Self>, most: usize) -> Vec<Self> {
        while witnesses.len() > most.max(1) {
            let mut kept = witnesses.len().is_multiple_of(2);
            witnesses.retain(|_| {
                kept = !kept;
                kept
            });
        }
        witnesses
    }
}

#[cfg(test)]
mod tests;
