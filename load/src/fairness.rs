//! One project that floods the server and many small ones beside it: how long the small ones wait for their acks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use domain::wire::UNACKED_MAX;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::{Agent, Finished, Progress, Totals};
use crate::events::Clues;
use crate::pace::Pace;
use crate::process::Usage;
use crate::report::Report;
use crate::rest::Rest;
use crate::swarm;
use crate::target::{Credentials, Target};
use crate::watch::Watch;

/// How long the large project floods before the small ones are measured.
const HEAD_START: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Fairness {
    #[command(flatten)]
    target: Target,
    /// Small projects, one agent each.
    #[arg(long, default_value_t = 99)]
    small: u16,
    /// Events per second of each small project.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Agents of the large project. Eight fill a server's capacity; ten times as many offer ten times that.
    #[arg(long, default_value_t = 80)]
    agents: u16,
    /// Seconds for which the small projects are measured.
    #[arg(long, default_value_t = 30.0)]
    duration: f64,
}

/// A project of the run: how many tasks it had, and who reports to it.
struct Part {
    target: Target,
    before: u64,
    credentials: Vec<Credentials>,
}

pub(crate) async fn run(fairness: &Fairness) -> Result<String> {
    let target = &fairness.target;
    let mut rest = Rest::login(target).await?;
    let large = part(target, &mut rest, format!("{}-large", target.project), fairness.agents).await?;
    let mut small = Vec::new();
    for number in 0..fairness.small {
        small.push(part(target, &mut rest, format!("{}-small-{number}", target.project), 1).await?);
    }
    let clues = Clues::new(0);
    let (progress, mut place) = (Progress::default(), 0);
    let flood = connect(&large, clues, &mut place, &progress).await?;
    let mut quiet = Vec::new();
    for part in &small {
        quiet.extend(connect(part, clues, &mut place, &Progress::default()).await?);
    }

    let (server, own) = (target.usage()?, Usage::of(std::process::id())?);
    let watch = Watch::start(target, progress);
    let (stop, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let mut flooding = JoinSet::new();
    for agent in flood {
        flooding.spawn(agent.run(Pace::new(started, None, None, None, 1).until(&stop)));
    }
    tokio::time::sleep(HEAD_START).await;
    let begun = Instant::now();
    let mut waiting = JoinSet::new();
    for (place, agent) in quiet.into_iter().enumerate() {
        let pace = Pace::new(begun, Some(Duration::from_secs_f64(fairness.duration)), None, Some(fairness.rate), 1);
        waiting.spawn(async move { agent.run(pace).await.map(|finished| (place, finished)) });
    }
    let mut small_finished: Vec<Option<Finished>> = small.iter().map(|_| None).collect();
    while let Some(ended) = waiting.join_next().await {
        let (place, finished) = ended??;
        small_finished[place] = Some(finished);
    }
    stop.store(true, Ordering::Relaxed);
    let elapsed = started.elapsed();
    let large_finished = swarm::all(flooding).await?;
    let (watched, server_after) = (watch.stop().await?, target.usage()?);

    let large_totals = Totals::of(&large_finished);
    let small_finished: Vec<Finished> = small_finished.into_iter().flatten().collect();
    let small_totals = Totals::of(&small_finished);
    let mut report = Report::new("fairness");
    report.figure("small projects", fairness.small.into());
    report.figure("small projects, acked events per second in all", per_second(&small_totals, begun.elapsed()));
    report.figure("large project, frames offered at a time", f64::from(fairness.agents) * UNACKED_MAX as f64);
    report.figure("large project, acked events per second", per_second(&large_totals, elapsed));
    if let (Some(before), Some(after)) = (server, server_after) {
        report.cpu("server", before, after, elapsed, large_totals.acked_events + small_totals.acked_events);
    }
    let own_after = Usage::of(std::process::id())?;
    report.cpu("generator", own, own_after, elapsed, large_totals.acked_events + small_totals.acked_events);
    report.latency("small projects, ack", &small_totals.ack_latency);
    report.latency("large project, ack", &large_totals.ack_latency);
    watched.add_to(&mut report);
    large_totals.check()?;
    small_totals.check()?;
    verify(&mut rest, &large, &large_finished).await?;
    for (part, finished) in small.iter().zip(small_finished) {
        verify(&mut rest, part, &[finished]).await?;
    }
    report.finish(&target.output)
}

fn per_second(totals: &Totals, elapsed: Duration) -> f64 {
    totals.acked_events as f64 / elapsed.as_secs_f64()
}

async fn part(target: &Target, rest: &mut Rest, slug: String, agents: u16) -> Result<Part> {
    let target = target.in_project(&slug);
    rest.in_project(&slug);
    let credentials = target.mint(rest, agents).await?;
    Ok(Part { before: rest.task_count().await?, target, credentials })
}

/// Connects the agents of a project; `place` counts all agents of the run.
async fn connect(part: &Part, clues: Clues, place: &mut u16, progress: &Progress) -> Result<Vec<Agent>> {
    let mut agents = Vec::new();
    for credentials in &part.credentials {
        agents.push(Agent::connect(&part.target, credentials, clues.for_agent(*place), Arc::clone(progress)).await?);
        *place += 1;
    }
    Ok(agents)
}

/// What was acked must be listed, in every project.
async fn verify(rest: &mut Rest, part: &Part, finished: &[Finished]) -> Result<()> {
    rest.in_project(&part.target.project);
    swarm::verify(rest, finished, part.before, 4).await.with_context(|| format!("project {}", part.target.project))
}
