//! What files of checkpoints say, taken together.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use domain::id::ProjectId;
use domain::ledger::{PublicKey, Remark, Witness};

use super::progress;
use crate::checkpoints::file;

/// Checkpoints by project, and remarks by file.
#[derive(Default)]
pub(super) struct Signed {
    witnesses: HashMap<ProjectId, Vec<Witness>>,
    remarks: Vec<(String, Remark)>,
}

impl Signed {
    /// Reads files; each must be there.
    pub(super) fn read(
        files: &[impl AsRef<Path>],
        keys: &[PublicKey],
        only: Option<ProjectId>,
    ) -> anyhow::Result<Self> {
        let mut signed = Self::default();
        for path in files.iter().map(AsRef::as_ref) {
            let name = path.display().to_string();
            let rolled = file::read(path, keys, only, |lines| progress(format_args!("{lines} lines of {name} read")))
                .with_context(|| format!("cannot read the checkpoints {name}"))?;
            signed.remarks.extend(rolled.remarks.into_iter().map(|remark| (name.clone(), remark)));
            for (project, of_project) in rolled.projects {
                signed.witnesses.entry(project).or_default().extend(of_project.witnesses);
            }
        }
        for witnesses in signed.witnesses.values_mut() {
            *witnesses = Witness::in_order(std::mem::take(witnesses));
        }
        Ok(signed)
    }

    /// The checkpoints of a project in the order of its chain.
    pub(super) fn of(&self, project: ProjectId) -> Vec<Witness> {
        self.witnesses.get(&project).cloned().unwrap_or_default()
    }

    /// Every project that has a checkpoint.
    pub(super) fn projects(&self) -> impl Iterator<Item = ProjectId> {
        self.witnesses.iter().filter(|(_, witnesses)| !witnesses.is_empty()).map(|(project, _)| *project)
    }

    /// Says what there is to say about the files, and whether nothing is wrong with them.
    pub(super) fn say(&self, out: &mut impl Write) -> std::io::Result<bool> {
        for (file, remark) in &self.remarks {
            let word = if remark.is_fault() { "BROKEN: " } else { "" };
            writeln!(out, "{word}checkpoints {file}: {remark}")?;
        }
        Ok(!self.remarks.iter().any(|(_, remark)| remark.is_fault()))
    }
}
