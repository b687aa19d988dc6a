//! Starts everything in order, serves, and drains.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::{Clock, Mesh, MeshConfig, meters};
use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use cql::accounts::project;
use domain::id::NodeId;
use domain::id::address::Layout;
use domain::ledger::Terms;
use domain::secret::MasterSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::checkpoints::{self, Checkpoints, Keeper, Wiring};
use crate::config::{Config, StoreConfig};
use crate::edge::app::App;
use crate::edge::listener::PieceListener;
use crate::first_start::{self, Start};
use crate::store::Opened;
use crate::{edge, master, store, telemetry};

/// Requests that run longer than this are cut off at shutdown.
const DRAIN: Duration = Duration::from_secs(20);
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Tasks are dealt out among so many recorders; each shares its commits among all that waits for it.
const RECORDERS: usize = 4;
const DAY_SECS: i64 = 86_400;

/// A server that has its store and secret, and is not serving yet.
pub struct Ready {
    pub opened: Opened,
    pub master: MasterSecret,
    pub clock: Clock,
    pub start: Start,
}

/// Opens the store, checks the secret, and makes what a first start needs.
pub async fn prepare(config: &Config) -> anyhow::Result<Ready> {
    if matches!(config.store, StoreConfig::Embedded) {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
    }
    let master = master::load(config)?;
    let opened = store::open_store(config).await?;
    let (store, clock) = (opened.store.as_ref(), Clock::machine());
    master::check(store, &master, clock.now()).await?;
    let start = first_start::prepare(store, &clock, config).await?;
    Ok(Ready { opened, master, clock, start })
}

/// Starts the node's actors.
pub async fn mesh(config: &Config, ready: &Ready) -> anyhow::Result<Mesh> {
    let alone = matches!(config.store, StoreConfig::Embedded);
    let terms = Terms {
        command_timeout_secs: u32::try_from(config.command_timeout.as_secs())?,
        bulk_limit_per_minute: config.bulk_limit_per_minute,
    };
    let started = Mesh::start(MeshConfig {
        store: Arc::clone(&ready.opened.store),
        clock: ready.clock.clone(),
        node: NodeId::mint(ready.clock.now()),
        alone,
        recorders: RECORDERS,
        layout: if alone { Layout::Day } else { Layout::Hour },
        retention_secs: i64::from(config.retention_days) * DAY_SECS,
        lost_after: config.lost_after,
        terms,
        master: ready.master.clone(),
    });
    Ok(started.await?)
}

/// Serves until `shutdown` is cancelled, then lets sessions and requests end and makes everything durable.
pub async fn serve(
    config: Config,
    ready: Ready,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mesh = mesh(&config, &ready).await?;
    let Ready { opened, master, clock, start: _ } = ready;
    for project in project::list(opened.store.as_ref()).await? {
        meters::name_project(project.id, &project.slug);
    }
    let (checkpoints, keeper) = sign(&config, &opened, &master, &mesh, clock).unzip();
    let app = App::new(opened.clone(), config, master, mesh.clone(), checkpoints);
    let router = edge::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let tidy = tokio::spawn(tidy_metrics());
    let asked = shutdown.clone();
    // An answer in two writes must not wait for the other side's delayed acknowledgement of the first.
    let listener = PieceListener(listener).tap_io(|stream| {
        if let Err(error) = stream.get_ref().set_nodelay(true) {
            tracing::debug!(error = &error as &dyn std::error::Error, "connection without TCP_NODELAY");
        }
    });
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { asked.cancelled().await });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        // First: without open connections the listener ends in the same moment, and there is still all to drain.
        biased;
        () = shutdown.cancelled() => tracing::info!("draining"),
        ended = &mut server => return Ok(ended??),
        () = opened.broken() => anyhow::bail!("the store cannot go on; start the server again"),
    }
    // The listener is closed by now; sessions and requests end side by side.
    let (requests, ()) = tokio::join!(tokio::time::timeout(DRAIN, &mut server), mesh.shutdown());
    tidy.abort();
    if let Some(keeper) = keeper {
        keeper.finish().await;
    }
    opened.close().await;
    match requests {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            server.abort();
            tracing::warn!("requests were still running after {} s and were cut off", DRAIN.as_secs());
            Ok(())
        }
    }
}

/// Begins to sign checkpoints. A key that is not there and cannot be made keeps nobody from serving.
fn sign(
    config: &Config,
    opened: &Opened,
    master: &MasterSecret,
    mesh: &Mesh,
    clock: Clock,
) -> Option<(Checkpoints, Keeper)> {
    let settings = &config.checkpoints;
    let key = match checkpoints::key::load_or_make(&settings.key) {
        Ok(key) => Arc::new(key),
        Err(error) => {
            tracing::error!(
                "no checkpoints are signed, so the ledgers are not provable: {error:#}; see the setting `checkpoint-key`"
            );
            return None;
        }
    };
    tracing::info!(file = %settings.file.display(), public_key = %key.public(), "checkpoints are signed");
    let known = Checkpoints::new(settings, &key);
    let keeper = Keeper::start(Wiring {
        store: Arc::clone(&opened.store),
        changes: mesh.changes().clone(),
        clock,
        master: master.clone(),
        key,
        config: settings.clone(),
    });
    Some((known, keeper))
}

async fn tidy_metrics() {
    let mut every = tokio::time::interval(TIDY_EVERY);
    loop {
        every.tick().await;
        telemetry::tidy_metrics();
    }
}
