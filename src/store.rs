//! Opens the store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cql::Store;
use cql::engine::cql::{Cql, CqlConfig};
use cql::engine::fjall::{Fjall, FjallConfig};
use cql::engine::memory::Memory;

use secrecy::ExposeSecret;

use crate::config::{Config, StoreConfig};

/// A commit that runs longer than this means the disk hangs.
const COMMIT_MAX: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

/// An open store, with what only its engine can say and do.
#[derive(Clone)]
pub struct Opened {
    pub store: Arc<dyn Store>,
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    /// Nothing on disk: tests.
    Memory,
    Fjall(Fjall),
    Cql,
}

impl Opened {
    /// A store that is gone with the process.
    pub fn memory(memory: Memory) -> Self {
        Self { store: Arc::new(memory), engine: Engine::Memory }
    }

    fn fjall(fjall: Fjall) -> Self {
        Self { store: Arc::new(fjall.clone()), engine: Engine::Fjall(fjall) }
    }

    /// Why the engine cannot serve now, if it cannot.
    pub fn unfit(&self) -> Option<&'static str> {
        match &self.engine {
            Engine::Memory | Engine::Cql => None,
            Engine::Fjall(fjall) => {
                let health = fjall.health();
                if health.poisoned {
                    Some("the store must be reopened")
                } else if health.full {
                    Some("the store is out of space")
                } else if health.commit_age.is_some_and(|age| age > COMMIT_MAX) {
                    Some("the store has not finished a write for 10 seconds")
                } else {
                    None
                }
            }
        }
    }

    /// Resolves when the store cannot go on in this process.
    pub async fn broken(&self) {
        match &self.engine {
            Engine::Memory | Engine::Cql => std::future::pending().await,
            Engine::Fjall(fjall) => fjall.poisoned().await,
        }
    }

    /// Answers what waits and refuses new writes.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Memory | Engine::Cql => {}
            Engine::Fjall(fjall) => fjall.close().await,
        }
    }
}

/// Opens the store to serve from it; it is ready when this returns.
pub async fn open_store(config: &Config) -> anyhow::Result<Opened> {
    open(config, true, Some(DAY * config.retention_days)).await
}

/// Opens the store for a command that ends soon. It removes no tasks: how long the server keeps them is not known
/// here. Nor does it make a keyspace: a name that was mistyped would look like a store that lost everything.
pub async fn open_briefly(config: &Config) -> anyhow::Result<Opened> {
    open(config, false, None).await
}

async fn open(config: &Config, create: bool, task_retention: Option<Duration>) -> anyhow::Result<Opened> {
    match &config.store {
        StoreConfig::Embedded => {
            let path = config.data_dir.join("store");
            let fjall = FjallConfig { task_retention, ..FjallConfig::new(path) };
            // Replaying the journal after a crash blocks for up to some seconds.
            let opened = tokio::task::spawn_blocking(move || Fjall::open(&fjall)).await?;
            let fjall = opened
                .with_context(|| format!("cannot open the store in the data folder {}", config.data_dir.display()))?;
            Ok(Opened::fjall(fjall))
        }
        StoreConfig::Cql(cql) => {
            let user = cql.user.clone().map(|user| {
                (user, cql.password.as_ref().map(|password| password.expose_secret().to_owned()).unwrap_or_default())
            });
            let cluster = CqlConfig { user, create, ..CqlConfig::new(cql.nodes.clone(), cql.keyspace.clone()) };
            let opened = Cql::open(&cluster).await;
            let opened = opened.with_context(|| format!("cannot use the cluster at {}", cql.nodes.join(", ")))?;
            Ok(Opened { store: Arc::new(opened), engine: Engine::Cql })
        }
    }
}
