//! Agents that stream events as fast as acks allow, and a check that what was acked can be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use domain::wire::UNACKED_MAX;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::{Agent, Finished, Progress, Totals};
use crate::events::{Clues, Fate, TASK_NAME, queue_of};
use crate::pace::Pace;
use crate::process::Usage;
use crate::report::Report;
use crate::rest::Rest;
use crate::target::{Credentials, Target};
use crate::watch::Watch;

#[derive(Args)]
pub(crate) struct Swarm {
    #[command(flatten)]
    target: Target,
    /// Agents, one connection each.
    #[arg(long, default_value_t = 16)]
    agents: u16,
    /// Use these agents (a minted agent's JSON per line) instead of minting new ones.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Seconds to stream for.
    #[arg(long, default_value_t = 30.0, conflicts_with = "events")]
    duration: f64,
    /// Events to send in all, instead of a duration.
    #[arg(long)]
    events: Option<u64>,
    /// Events per second in all; without it as many as are acked.
    #[arg(long)]
    rate: Option<f64>,
    /// Real agents send one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    events_per_frame: u32,
    /// Frames that an agent has un-acked at most; real agents: 256.
    #[arg(long, default_value_t = UNACKED_MAX)]
    window: usize,
    /// Of a hundred tasks so many do not end: half of them wait, half run.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    open: u8,
    /// Tasks whose details are compared with what was sent.
    #[arg(long, default_value_t = 50)]
    checks: usize,
    /// Do not read anything back.
    #[arg(long)]
    skip_verify: bool,
}

pub(crate) async fn run(swarm: &Swarm) -> Result<String> {
    let target = &swarm.target;
    let mut rest = Rest::login(target).await?;
    let credentials = match &swarm.tokens {
        Some(path) => Credentials::read_file(path)?,
        None => target.mint(&mut rest, swarm.agents).await?,
    };
    let before = if swarm.skip_verify { 0 } else { rest.task_count().await? };
    let progress = Progress::default();
    let agents = connect(target, &credentials, &progress).await?;
    let count = agents.len() as u64;

    let (server, own) = (target.usage()?, Usage::of(std::process::id())?);
    let watch = Watch::start(target, progress);
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (place, agent) in agents.into_iter().enumerate() {
        let share = |events: u64| events / count + u64::from((place as u64) < events % count);
        let duration = swarm.events.is_none().then_some(Duration::from_secs_f64(swarm.duration));
        let rate = swarm.rate.map(|rate| rate / count as f64);
        let pace = Pace::new(started, duration, swarm.events.map(share), rate, swarm.events_per_frame);
        running.spawn(agent.with_window(swarm.window).leaving(swarm.open).run(pace));
    }
    let finished = all(running).await?;
    let elapsed = started.elapsed();
    let watched = watch.stop().await?;

    let totals = Totals::of(&finished);
    let mut report = Report::new("swarm");
    report.figure("agents", count as f64);
    report.figure("events per frame", swarm.events_per_frame.into());
    report.figure("seconds", elapsed.as_secs_f64());
    report.figure("acked events", totals.acked_events as f64);
    report.figure("acked events per second", totals.acked_events as f64 / elapsed.as_secs_f64());
    if let (Some(before), Some(after)) = (server, target.usage()?) {
        report.cpu("server", before, after, elapsed, totals.acked_events);
    }
    report.cpu("generator", own, Usage::of(std::process::id())?, elapsed, totals.acked_events);
    report.latency("ack", &totals.ack_latency);
    watched.add_to(&mut report);
    totals.check()?;
    if !swarm.skip_verify {
        let checked = Instant::now();
        verify(&mut rest, &finished, before, swarm.checks).await?;
        report.figure("verified tasks", tasks_begun(&finished) as f64);
        report.figure("seconds to verify", checked.elapsed().as_secs_f64());
        target.add_size(&mut rest, &mut report).await?;
    }
    report.finish(&target.output)
}

/// Waits for every agent of a swarm.
pub(crate) async fn all(mut running: JoinSet<Result<Finished>>) -> Result<Vec<Finished>> {
    let mut finished = Vec::new();
    while let Some(ended) = running.join_next().await {
        finished.push(ended??);
    }
    Ok(finished)
}

/// Connects every agent, each with ids of its own.
pub(crate) async fn connect(target: &Target, credentials: &[Credentials], progress: &Progress) -> Result<Vec<Agent>> {
    let clues = Clues::new(0);
    let mut agents = Vec::with_capacity(credentials.len());
    for (number, credentials) in credentials.iter().enumerate() {
        let clues = clues.for_agent(u16::try_from(number).context("too many agents")?);
        agents.push(Agent::connect(target, credentials, clues, Arc::clone(progress)).await?);
    }
    Ok(agents)
}

/// Tasks of which at least one event was acked.
pub(crate) fn tasks_begun(finished: &[Finished]) -> u64 {
    finished.iter().map(|agent| agent.events.tasks_begun()).sum()
}

impl Totals {
    pub(crate) fn of(finished: &[Finished]) -> Self {
        let mut totals = Self::default();
        finished.iter().for_each(|agent| totals.add(&agent.totals));
        totals
    }

    /// Whether everything sent was acked.
    pub(crate) fn check(&self) -> Result<()> {
        let missing = self.sent_events - self.acked_events;
        ensure!(missing == 0, "{missing} events were not acked");
        Ok(())
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.sent_events += more.sent_events;
        self.acked_events += more.acked_events;
        self.acked_frames += more.acked_frames;
        self.commands += more.commands;
        self.ack_latency.merge(&more.ack_latency);
    }
}

/// Everything was acked, so everything must be there.
pub(crate) async fn verify(rest: &mut Rest, finished: &[Finished], before: u64, checks: usize) -> Result<()> {
    let expected = tasks_begun(finished);
    let found = rest.task_count().await? - before;
    ensure!(found == expected, "{expected} tasks were acked, {found} are listed");
    for check in 0..checks {
        let agent = &finished[check % finished.len()];
        let begun = agent.events.tasks_begun();
        if begun == 0 {
            continue;
        }
        let number = u64::from_be_bytes(domain::id::random()) % begun;
        if agent.events.is_complete(number) {
            verify_task(rest, agent, number).await.with_context(|| format!("task {}", agent.clues.task_id(number)))?;
        }
    }
    Ok(())
}

async fn verify_task(rest: &mut Rest, agent: &Finished, number: u64) -> Result<()> {
    let (id, fate) = (agent.clues.task_id(number), agent.events.fate(number));
    // Who receives a task is told by its first event from the broker.
    let worker = (fate != Fate::Waits).then(|| agent.clues.worker());
    let task = rest.get(&format!("/tasks/celery/{id}")).await?;
    let retries = u64::from(fate == Fate::Retries);
    for (member, expected) in [
        ("state", fate.state().into()),
        ("name", TASK_NAME.into()),
        ("queue", queue_of(number).into()),
        ("worker_name", worker.into()),
        ("priority", "normal".into()),
        ("retry_count", serde_json::Value::from(retries)),
    ] {
        ensure!(task[member] == expected, "{member} is {} instead of {expected}", task[member]);
    }
    ensure!(task["args"].is_array() && task["kwargs"].is_object(), "arguments are missing");
    ensure!(task["exception"].is_string() == (fate == Fate::Fails), "exception is {}", task["exception"]);
    let events = rest.get(&format!("/events?engine=celery&task_id={id}&limit=100")).await?;
    match events["items"].as_array() {
        Some(items) if items.len() == fate.events() => Ok(()),
        Some(items) => bail!("{} events instead of {}", items.len(), fate.events()),
        None => bail!("no list of events"),
    }
}
