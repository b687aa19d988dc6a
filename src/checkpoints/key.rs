//! The key that signs checkpoints: made at the first start, for its owner only.

use std::path::Path;

use anyhow::Context as _;
use domain::ledger::CheckpointKey;
use zeroize::Zeroizing;

use crate::private;

/// The key in the file, or a new one kept there.
pub fn load_or_make(path: &Path) -> anyhow::Result<CheckpointKey> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let key = CheckpointKey::mint();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    private::write(path, &key.text()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// The key in the file, if there is one.
pub fn load(path: &Path) -> anyhow::Result<Option<CheckpointKey>> {
    match std::fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => {
            let key = CheckpointKey::parse(text.trim());
            Ok(Some(key.with_context(|| format!("{} does not hold a checkpoint key", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint-key");
        assert!(load(&path).unwrap().is_none());
        let first = load_or_make(&path).unwrap().public();
        assert_eq!(load_or_make(&path).unwrap().public(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "no key").unwrap();
        assert!(load_or_make(&path).unwrap_err().to_string().contains("does not hold a checkpoint key"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "no key", "nothing is written over");
    }
}
