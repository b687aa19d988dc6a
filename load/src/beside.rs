//! A swarm that streams at a fixed rate beside what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::{Finished, Progress, Totals};
use crate::pace::Pace;
use crate::report::Report;
use crate::rest::Rest;
use crate::swarm;
use crate::target::Target;

/// How long the swarm streams before the measuring begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// Options of a scenario that can run beside ingest.
#[derive(Args)]
pub(crate) struct WithSwarm {
    /// Events per second that a swarm streams meanwhile, in all.
    #[arg(long)]
    with_rate: Option<f64>,
    /// Agents of that swarm.
    #[arg(long, default_value_t = 8)]
    with_agents: u16,
}

pub(crate) struct Beside {
    stop: Arc<AtomicBool>,
    started: Instant,
    before: u64,
    running: JoinSet<Result<Finished>>,
}

impl WithSwarm {
    /// Starts the swarm, if one is asked for, and lets it warm up.
    pub(crate) async fn start(&self, target: &Target, rest: &mut Rest) -> Result<Option<Beside>> {
        let Some(rate) = self.with_rate else { return Ok(None) };
        let credentials = target.mint(rest, self.with_agents).await?;
        let before = rest.task_count().await?;
        let agents = swarm::connect(target, &credentials, &Progress::default()).await?;
        let (stop, started) = (Arc::default(), Instant::now());
        let mut running = JoinSet::new();
        for agent in agents {
            let pace = Pace::new(started, None, None, Some(rate / f64::from(self.with_agents)), 1);
            running.spawn(agent.run(pace.until(&stop)));
        }
        tokio::time::sleep(WARM_UP).await;
        Ok(Some(Beside { stop, started, before, running }))
    }
}

impl Beside {
    /// Ends the swarm; everything it sent must have been acked and be listed.
    pub(crate) async fn finish(mut self, rest: &mut Rest, report: &mut Report) -> Result<()> {
        ensure!(self.running.try_join_next().is_none(), "an agent of the swarm beside ended early");
        self.stop.store(true, Ordering::Relaxed);
        let elapsed = self.started.elapsed();
        let finished = swarm::all(self.running).await?;
        let totals = Totals::of(&finished);
        report.figure("beside: acked events per second", totals.acked_events as f64 / elapsed.as_secs_f64());
        report.latency("beside: ack", &totals.ack_latency);
        totals.check()?;
        swarm::verify(rest, &finished, self.before, 0).await
    }
}
