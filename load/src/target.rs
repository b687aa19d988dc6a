//! The server under load, and the agents minted on it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use domain::secret::ProjectSecret;
use serde_json::{Value, json};

use crate::process::Usage;
use crate::report::{Output, Report, mib};
use crate::rest::Rest;

#[derive(Args, Clone)]
pub(crate) struct Target {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:7700")]
    pub(crate) url: String,
    #[arg(long, env = "THALAMUS_ADMIN_EMAIL", default_value = "admin@example.com")]
    pub(crate) admin_email: String,
    #[arg(long, env = "THALAMUS_ADMIN_PASSWORD", hide_env_values = true)]
    pub(crate) admin_password: String,
    /// The project's slug; made if it does not exist.
    #[arg(long, default_value = "load")]
    pub(crate) project: String,
    /// The server's process, to read its CPU time and memory.
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// The server's data folder, to report its size and the bytes it holds per task.
    #[arg(long)]
    pub(crate) server_data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What one agent connects with.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) agent_id: String,
    pub(crate) token: String,
    pub(crate) secret: Vec<u8>,
}

impl Target {
    /// `host:port` of the server.
    pub(crate) fn host(&self) -> Result<String> {
        let host = self.url.trim_end_matches('/');
        match host.strip_prefix("http://") {
            Some(host) if host.contains(':') => Ok(host.to_owned()),
            Some(host) => Ok(format!("{host}:80")),
            None => bail!("{host} is not a plain http address"),
        }
    }

    /// The same server, another project.
    pub(crate) fn in_project(&self, slug: &str) -> Self {
        Self { project: slug.to_owned(), ..self.clone() }
    }

    /// What the server has used so far, if its process is known.
    pub(crate) fn usage(&self) -> Result<Option<Usage>> {
        self.server_pid.map(Usage::of).transpose()
    }

    /// Adds how many tasks the project has, and what they take on disk.
    pub(crate) async fn add_size(&self, rest: &mut Rest, report: &mut Report) -> Result<()> {
        let tasks = rest.task_count().await?;
        report.figure("tasks in the project", tasks as f64);
        if let Some(folder) = &self.server_data {
            let bytes = folder_bytes(folder)?;
            report.figure("data folder, MiB", mib(bytes));
            report.figure("data folder, bytes per task", bytes as f64 / tasks.max(1) as f64);
        }
        Ok(())
    }

    /// Mints as many agents, named for this run.
    pub(crate) async fn mint(&self, rest: &mut Rest, count: u16) -> Result<Vec<Credentials>> {
        rest.ensure_project().await?;
        let run = hex::encode(domain::id::random::<4>());
        let mut agents = Vec::with_capacity(count.into());
        for number in 0..count {
            let made = rest.post("/agents", &json!({"name": format!("load-{run}-{number}")}), 201).await?;
            agents.push(Credentials::read(&made)?);
        }
        Ok(agents)
    }
}

/// What the files below a folder take on disk. Files come and go while a store compacts.
fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let Ok(about) = entry.metadata() else { continue };
        bytes += if about.is_dir() { folder_bytes(&entry.path())? } else { about.blocks() * 512 };
    }
    Ok(bytes)
}

impl Credentials {
    /// Reads the answer that minted an agent, or a line of a tokens file of the same shape.
    pub(crate) fn read(minted: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let secret = text(&minted["hmac_secret"]).context("no hmac_secret")?;
        Ok(Self {
            agent_id: text(&minted["agent"]["id"]).unwrap_or_default(),
            token: text(&minted["token"]).context("no token")?,
            secret: ProjectSecret::decode_text(&secret).context("hmac_secret is too short")?.to_vec(),
        })
    }

    /// A JSON object per line, as minting answers.
    pub(crate) fn read_file(path: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| Self::read(&serde_json::from_str(line)?))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_size_is_that_of_all_files_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("below")).expect("a folder");
        std::fs::write(folder.path().join("below/one"), vec![1; 100_000]).expect("a file");
        std::fs::write(folder.path().join("two"), vec![1; 50_000]).expect("a file");
        let bytes = folder_bytes(folder.path()).expect("readable");
        assert!((150_000..200_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_minted_agent_is_read_as_it_was_answered() {
        let secret = ProjectSecret::from_bytes([9; 32]);
        let minted = json!({"agent": {"id": "a"}, "token": "t", "hmac_secret": *secret.to_text()});
        let read = Credentials::read(&minted).expect("complete");
        assert_eq!((read.agent_id.as_str(), read.token.as_str(), read.secret.as_slice()), ("a", "t", &[9_u8; 32][..]));
        assert!(Credentials::read(&json!({"token": "t"})).is_err());
    }
}
