//! The server under load, and the agents minted on it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use domain::secret::ProjectSecret;
use serde_json::{Value, json};

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
    /// A folder for the report as JSON and Markdown.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
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
    pub(crate) fn read_file(path: &std::path::Path) -> Result<Vec<Self>> {
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
    fn a_minted_agent_is_read_as_it_was_answered() {
        let secret = ProjectSecret::from_bytes([9; 32]);
        let minted = json!({"agent": {"id": "a"}, "token": "t", "hmac_secret": *secret.to_text()});
        let read = Credentials::read(&minted).expect("complete");
        assert_eq!((read.agent_id.as_str(), read.token.as_str(), read.secret.as_slice()), ("a", "t", &[9_u8; 32][..]));
        assert!(Credentials::read(&json!({"token": "t"})).is_err());
    }
}
