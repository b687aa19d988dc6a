//! Starts everything in order, serves, and drains.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::time::Duration;

use actors::{Clock, Directory};
use anyhow::Context as _;
use domain::secret::MasterSecret;
use domain::wire::CloseCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreConfig};
use crate::edge::app::App;
use crate::first_start::{self, Start};
use crate::store::Opened;
use crate::{edge, master, store, telemetry};

/// Requests that run longer than this are cut off at shutdown.
const DRAIN: Duration = Duration::from_secs(20);
const TIDY_EVERY: Duration = Duration::from_secs(5);

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

/// Serves until `shutdown` is cancelled, then lets running requests end.
pub async fn serve(
    config: Config,
    ready: Ready,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Ready { opened, master, clock, start: _ } = ready;
    let directory = Directory::default();
    let app = App::new(opened.clone(), clock, config, master, directory.clone());
    let router = edge::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let tidy = tokio::spawn(async {
        let mut every = tokio::time::interval(TIDY_EVERY);
        loop {
            every.tick().await;
            telemetry::tidy_metrics();
        }
    });
    let asked = shutdown.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { asked.cancelled().await });
    let mut server = tokio::spawn(server.into_future());
    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = shutdown.cancelled() => None,
        () = opened.broken() => anyhow::bail!("the store cannot go on; start the server again"),
    };
    if ended.is_none() {
        tracing::info!("draining");
        directory.close_all(CloseCode::ServerShutdown);
    }
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => tokio::time::timeout(DRAIN, &mut server).await,
    };
    tidy.abort();
    opened.close().await;
    match ended {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            server.abort();
            tracing::warn!("requests were still running after {} s and were cut off", DRAIN.as_secs());
            Ok(())
        }
    }
}
