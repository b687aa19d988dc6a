//! The master secret: given, or made at the first start and kept in the data folder.

use std::path::Path;

use anyhow::{Context as _, bail};
use cql::Store;
use cql::accounts::setting;
use domain::secret::MasterSecret;
use domain::time::Timestamp;
use secrecy::ExposeSecret;

use crate::config::{Config, StoreConfig};
use crate::private;

const FILE: &str = "master-secret";

/// The secret of the settings, else of the data folder, else a new one kept there.
pub fn load(config: &Config) -> anyhow::Result<MasterSecret> {
    match existing(config)? {
        Some(secret) => Ok(secret),
        None => make(&config.data_dir.join(FILE)),
    }
}

/// The secret of the settings, else of the data folder.
pub fn existing(config: &Config) -> anyhow::Result<Option<MasterSecret>> {
    if let Some(secret) = &config.master_secret {
        return Ok(Some(MasterSecret::new(secret.expose_secret())?));
    }
    if matches!(config.store, StoreConfig::Cql(_)) {
        bail!("`master-secret` is needed with `--store cql`");
    }
    let path = config.data_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let secret = MasterSecret::new(text.trim());
            Ok(Some(secret.with_context(|| format!("{} does not hold a master secret", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn make(path: &Path) -> anyhow::Result<MasterSecret> {
    let text = MasterSecret::mint_text();
    private::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(MasterSecret::new(&text)?)
}

/// Refuses to go on with a secret other than the one that the store was first used with.
pub async fn check(store: &dyn Store, master: &MasterSecret, now: Timestamp) -> anyhow::Result<()> {
    if !setting::agree_on_fingerprint(store, master.fingerprint(), now).await? {
        bail!(
            "the master secret is not the one this store was first used with: no token, key or cursor would fit. \
             Set `master-secret` to that of the other nodes, or restore the file `{FILE}` of the data folder"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use cql::engine::memory::Memory;

    use super::*;
    use crate::config::Layers;

    #[tokio::test]
    async fn a_secret_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let flags = BTreeMap::from([("data-dir", folder.path().to_str().unwrap().to_owned())]);
        let config = Config::resolve(&Layers::collect(flags, &|_| None).unwrap()).unwrap();
        let first = load(&config).unwrap();
        assert_eq!(load(&config).unwrap().fingerprint(), first.fingerprint());
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_store_is_opened_with_its_first_secret_only() {
        let (store, now) = (Memory::new(), Timestamp::from_secs(1_776_340_800));
        let first = MasterSecret::new("0123456789abcdef0123456789abcdef").unwrap();
        let other = MasterSecret::new("0123456789abcdef0123456789abcdeX").unwrap();
        check(&store, &first, now).await.unwrap();
        check(&store, &first, now).await.unwrap();
        let refused = check(&store, &other, now).await.unwrap_err().to_string();
        assert!(refused.contains("not the one this store was first used with"), "{refused}");
    }
}
