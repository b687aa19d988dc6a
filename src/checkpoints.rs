//! Signed checkpoints of the ledgers, kept outside the store (DESIGN section 10).
//!
//! ```text
//! key     made at the first start
//! file    the append-only file, read and written
//! keeper  what is signed, and when
//! ```
//!
//! Nothing waits for a checkpoint. A file that cannot be written is an error in the log, tried again at the next
//! round; what is not signed yet is merely not provable yet.

pub mod file;
mod keeper;
pub mod key;

use std::path::PathBuf;
use std::sync::Arc;

use domain::id::ProjectId;
use domain::ledger::{Checkpoint, CheckpointKey, PublicKey, Remark, Witness};

pub use keeper::{Keeper, Wiring};

use crate::config::CheckpointConfig;

/// Most checkpoints of one project that an answer over REST is checked against.
const WITNESSES_MAX: usize = 10_000;

/// What a server knows of its checkpoints; cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    file: Arc<PathBuf>,
    public: PublicKey,
}

/// What was signed of one project.
#[derive(Clone, Debug, Default)]
pub struct OfProject {
    pub witnesses: Vec<Witness>,
    pub newest: Option<Checkpoint>,
    pub remarks: Vec<Remark>,
}

impl Checkpoints {
    /// Those that the settings name.
    pub fn new(config: &CheckpointConfig, key: &CheckpointKey) -> Self {
        Self { file: Arc::new(config.file.clone()), public: key.public() }
    }

    /// What others verify with.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Reads what the file says of a project; a file that is not there says nothing.
    pub async fn of(&self, project: ProjectId) -> std::io::Result<OfProject> {
        let (file, keys) = (Arc::clone(&self.file), [self.public]);
        let read = tokio::task::spawn_blocking(move || file::read(&file, &keys, Some(project), |_| {})).await;
        let mut rolled = match read.map_err(std::io::Error::other)? {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(OfProject::default()),
            rolled => rolled?,
        };
        let signed = rolled.projects.remove(&project).unwrap_or_default();
        let witnesses = Witness::thinned(Witness::in_order(signed.witnesses), WITNESSES_MAX);
        Ok(OfProject { witnesses, newest: signed.newest, remarks: rolled.remarks })
    }
}
