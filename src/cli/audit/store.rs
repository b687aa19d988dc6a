//! Every ledger of a store, verified with the server stopped (or beside it on a cluster).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use actors::Clock;
use anyhow::{Context as _, bail};
use cql::accounts::project;
use cql::engine::fjall::OpenError;
use cql::ledger::audit;
use domain::id::ProjectId;
use domain::ledger::{LedgerKey, PublicKey};
use domain::secret::{KeyUse, MasterSecret};

use super::signed::Signed;
use super::{Walked, progress, say};
use crate::checkpoints::key;
use crate::config::{Config, StoreConfig};
use crate::master;
use crate::store::{self, Opened};

/// Entries between two words of progress.
const PROGRESS_EVERY: u64 = 100_000;

pub(super) async fn verify(
    config: &Config,
    files: &[&str],
    keys: Vec<PublicKey>,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    if matches!(config.store, StoreConfig::Embedded) && !config.data_dir.join("store").is_dir() {
        bail!("there is no store in the data folder {} (setting `data-dir`)", config.data_dir.display());
    }
    let Some(master) = master::existing(config)? else {
        bail!(
            "there is no master secret in the data folder {}, and without it no entry can be verified",
            config.data_dir.display()
        );
    };
    let opened = open(config).await?;
    master::check(opened.store.as_ref(), &master, Clock::machine().now()).await?;
    let (files, keys) = signers(config, files, keys, out)?;
    let signed = Signed::read(&files, &keys, None)?;
    let done = ledgers(&opened, &master, &signed, out).await;
    opened.close().await;
    let is_whole = done?;
    Ok(signed.say(out)? && is_whole)
}

async fn open(config: &Config) -> anyhow::Result<Opened> {
    store::open_briefly(config).await.map_err(|error| {
        let is_locked = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OpenError::InUse { .. })));
        if is_locked {
            error.context(
                "a server runs on this data folder: stop it first, or ask it: GET /api/v1/projects/SLUG/audit/verify",
            )
        } else {
            error
        }
    })
}

/// The files and keys to compare with: those that were given, else the server's own.
fn signers(
    config: &Config,
    files: &[&str],
    mut keys: Vec<PublicKey>,
    out: &mut impl Write,
) -> anyhow::Result<(Vec<PathBuf>, Vec<PublicKey>)> {
    let own = &config.checkpoints;
    let files = match files {
        [] if own.file.exists() => vec![own.file.clone()],
        [] => {
            writeln!(out, "there are no checkpoints {}; name them with --checkpoints", own.file.display())?;
            return Ok((Vec::new(), Vec::new()));
        }
        files => files.iter().map(PathBuf::from).collect(),
    };
    if keys.is_empty() {
        let path = &own.key;
        let key = key::load(path)?
            .with_context(|| format!("there is no key {}; name one with --public-key", path.display()))?;
        writeln!(out, "the key {} is taken on its word; name the one you noted with --public-key", path.display())?;
        keys.push(key.public());
    }
    Ok((files, keys))
}

/// Walks every ledger, those too of which only checkpoints are left.
async fn ledgers(
    opened: &Opened,
    master: &MasterSecret,
    signed: &Signed,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let store = opened.store.as_ref();
    let mut names: BTreeMap<ProjectId, String> =
        signed.projects().map(|project| (project, "which the store does not know".to_owned())).collect();
    names.extend(project::list(store).await?.into_iter().map(|project| (project.id, project.slug)));
    names.insert(ProjectId::NIL, "the system".to_owned());
    let mut is_whole = true;
    for (project, name) in names {
        let key = LedgerKey::new(master.site_key(KeyUse::Ledger, project).as_bytes());
        let witnesses = signed.of(project);
        let mut told = 0;
        let found = audit::verify(store, project, &key, &witnesses, |checked| {
            if checked / PROGRESS_EVERY > told {
                told = checked / PROGRESS_EVERY;
                progress(format_args!("{checked} entries of {name} verified"));
            }
        });
        let found = found.await.with_context(|| format!("the ledger of project {project} cannot be read"))?;
        writeln!(out, "project {project}, {name}:")?;
        is_whole &= say(out, &Walked { found, detail: None, has_witnesses: !witnesses.is_empty() })?;
    }
    Ok(is_whole)
}
