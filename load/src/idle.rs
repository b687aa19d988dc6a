//! Sessions that only beat: what each costs the server in memory, and all of them in CPU time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::clock;
use crate::events::Clues;
use crate::process;
use crate::report::{Report, mib};
use crate::rest::Rest;
use crate::session::{Buffers, Session, heartbeat};
use crate::target::Target;

/// Files that this process and, as a rule, the server have open beside the sessions.
const OTHER_FILES: u64 = 200;
/// Between the last change and a look at the server's memory.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    target: Target,
    /// Sessions in all.
    #[arg(long, default_value_t = 5000)]
    agents: u16,
    /// Processes that share an agent's token; a server takes at most 64.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    sessions_per_agent: u16,
    /// Seconds to watch once all are connected and have beaten.
    #[arg(long, default_value_t = 60.0)]
    duration: f64,
}

pub(crate) async fn run(idle: &Idle) -> Result<String> {
    let target = &idle.target;
    process::allow_files(u64::from(idle.agents) + OTHER_FILES)?;
    let mut rest = Rest::login(target).await?;
    let credentials = target.mint(&mut rest, idle.agents.div_ceil(idle.sessions_per_agent)).await?;
    tokio::time::sleep(SETTLE).await;
    let before = target.usage()?;

    let beats = Arc::new(AtomicU64::new(0));
    let mut sessions = JoinSet::new();
    let (clues, started) = (Clues::new(0), Instant::now());
    let mut beat_every = Duration::ZERO;
    for number in 0..idle.agents {
        let credentials = &credentials[usize::from(number / idle.sessions_per_agent)];
        let clues = clues.for_agent(number);
        let session = Session::open(target, credentials, clues, number.into(), Buffers::Small)
            .await
            .with_context(|| format!("session {number}: see `ulimit -n` of the server if it ran out of files"))?;
        beat_every = session.beat_every;
        sessions.spawn(keep(session, clues, Arc::clone(&beats)));
    }
    let connecting = started.elapsed();
    tokio::time::sleep(beat_every + SETTLE).await;

    let (server, own, begun) = (target.usage()?, process::Usage::of(std::process::id())?, Instant::now());
    let beaten = beats.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs_f64(idle.duration)).await;
    let (server_after, elapsed) = (target.usage()?, begun.elapsed());
    let beaten = beats.load(Ordering::Relaxed) - beaten;

    let mut report = Report::new("idle");
    report.figure("sessions", idle.agents.into());
    report.figure("agents", credentials.len() as f64);
    report.figure("seconds to connect all", connecting.as_secs_f64());
    report.figure("heartbeats per second", beaten as f64 / elapsed.as_secs_f64());
    if let (Some(before), Some(server), Some(after)) = (before, server, server_after) {
        let grown = after.resident.saturating_sub(before.resident);
        report.figure("server memory before, MiB", mib(before.resident));
        report.figure("server memory per session, KB", grown as f64 / 1024.0 / f64::from(idle.agents));
        report.cpu("server", server, after, elapsed, beaten);
    }
    report.cpu("generator", own, process::Usage::of(std::process::id())?, elapsed, beaten);
    if let Some(ended) = sessions.try_join_next() {
        ended??;
    }
    let online =
        online(&mut rest, &credentials.iter().map(|agent| agent.agent_id.as_str()).collect::<Vec<_>>()).await?;
    ensure!(online == credentials.len(), "{online} of {} agents are shown online", credentials.len());
    report.figure("agents shown online", online as f64);
    let least = (elapsed.as_secs_f64() / beat_every.as_secs_f64()).floor() * f64::from(idle.agents) * 0.9;
    ensure!(beaten as f64 >= least, "only {beaten} heartbeats in {elapsed:?}: the generator cannot keep up");
    report.finish(&target.output)
}

/// Beats as the server asked; ends with an error when the session does.
async fn keep(mut session: Session, clues: Clues, beats: Arc<AtomicU64>) -> Result<()> {
    let heartbeat = heartbeat(clues)?;
    let mut tick = tokio::time::interval(session.beat_every);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                session.beat(&heartbeat).await?;
                session.socket.flush().await?;
                beats.fetch_add(1, Ordering::Relaxed);
            }
            message = session.socket.next() => match message.context("the server went away")?? {
                Message::Close(close) => bail!("closed by the server: {close:?}"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                message @ (Message::Text(_) | Message::Binary(_)) => {
                    let frame = message.into_data();
                    let said = session.side.accept(&frame, clock::now())?;
                    bail!("an idle agent was told {said:?}");
                }
            },
        }
    }
}

/// How many of these agents the server shows online.
async fn online(rest: &mut Rest, ids: &[&str]) -> Result<usize> {
    let listed = rest.get("/agents").await?;
    let listed = listed.as_array().context("agents are not a list")?;
    let online: std::collections::HashSet<_> =
        listed.iter().filter(|agent| agent["state"] == "online").filter_map(|agent| agent["id"].as_str()).collect();
    Ok(ids.iter().filter(|id| online.contains(*id)).count())
}
