//! Commands against agents that answer at once: how many a second, and how long from the request to the outcome.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::{Progress, Totals};
use crate::beside::WithSwarm;
use crate::events::Clues;
use crate::histogram::Histogram;
use crate::pace::Pace;
use crate::process::Usage;
use crate::report::Report;
use crate::rest::Rest;
use crate::swarm;
use crate::target::Target;

const GIVE_UP: Duration = Duration::from_secs(90);

#[derive(Args)]
pub(crate) struct Commands {
    #[command(flatten)]
    target: Target,
    /// Agents that answer; requests go to them in turn.
    #[arg(long, default_value_t = 4)]
    agents: u16,
    /// Requests under way at a time; 1 measures latency.
    #[arg(long, default_value_t = 1)]
    concurrency: u16,
    /// Commands in all.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Milliseconds between two looks at a command; 0 looks again at once.
    #[arg(long, default_value_t = 0)]
    poll_ms: u64,
    /// Lets the server answer when the command has ended, instead of looking again and again.
    #[arg(long, conflicts_with = "poll_ms")]
    wait: bool,
    /// Lets the server answer the POST itself when the command has ended.
    #[arg(long, conflicts_with_all = ["poll_ms", "wait"])]
    wait_in_post: bool,
    #[command(flatten)]
    with: WithSwarm,
}

/// How an outcome is learned.
#[derive(Clone, Copy)]
enum Look {
    /// By looking, with a pause in between.
    Every(Duration),
    /// By one request that is answered when the command has ended.
    Wait,
    /// From the answer to the POST, which comes when the command has ended.
    InPost,
}

#[derive(Default)]
struct Measured {
    post: Histogram,
    outcome: Histogram,
    succeeded: u64,
}

pub(crate) async fn run(commands: &Commands) -> Result<String> {
    let target = &commands.target;
    let mut rest = Rest::login(target).await?;
    let credentials = target.mint(&mut rest, commands.agents).await?;
    let ids: Vec<String> = credentials.iter().map(|agent| agent.agent_id.clone()).collect();
    let mut answering = JoinSet::new();
    let stop = Arc::default();
    for agent in swarm::connect(target, &credentials, &Progress::default()).await? {
        answering.spawn(agent.run(Pace::new(Instant::now(), None, None, Some(0.0), 1).until(&stop)));
    }
    let beside = commands.with.start(target, &mut rest).await?;

    let (server, own) = (target.usage()?, Usage::of(std::process::id())?);
    let started = Instant::now();
    let mut clients = JoinSet::new();
    let look = match (commands.wait, commands.wait_in_post) {
        (_, true) => Look::InPost,
        (true, false) => Look::Wait,
        (false, false) => Look::Every(Duration::from_millis(commands.poll_ms)),
    };
    for client in 0..commands.concurrency {
        let share = commands.count / u64::from(commands.concurrency)
            + u64::from(u64::from(client) < commands.count % u64::from(commands.concurrency));
        let agent = ids[usize::from(client) % ids.len()].clone();
        let rest = rest.another(target).await?;
        clients.spawn(issue(rest, agent, share, look));
    }
    let mut measured = Measured::default();
    while let Some(ended) = clients.join_next().await {
        let more = ended??;
        measured.post.merge(&more.post);
        measured.outcome.merge(&more.outcome);
        measured.succeeded += more.succeeded;
    }
    let elapsed = started.elapsed();
    if let Some(ended) = answering.try_join_next() {
        ended??;
    }
    let (server_after, own_after) = (target.usage()?, Usage::of(std::process::id())?);

    let mut report = Report::new("commands");
    report.figure("agents", ids.len() as f64);
    report.figure("concurrency", commands.concurrency.into());
    report.figure("commands per second", commands.count as f64 / elapsed.as_secs_f64());
    report.figure("succeeded", measured.succeeded as f64);
    if let (Some(before), Some(after)) = (server, server_after) {
        report.cpu("server", before, after, elapsed, commands.count);
    }
    report.cpu("generator", own, own_after, elapsed, commands.count);
    if !commands.wait_in_post {
        report.latency("POST answered", &measured.post);
    }
    report.latency("POST to outcome seen", &measured.outcome);
    if let Some(beside) = beside {
        beside.finish(&mut rest, &mut report).await?;
    }
    stop.store(true, Ordering::Relaxed);
    let answered = Totals::of(&swarm::all(answering).await?).commands;
    ensure!(measured.succeeded == commands.count, "{} commands did not succeed", commands.count - measured.succeeded);
    ensure!(answered == commands.count, "agents were sent {answered} commands instead of {}", commands.count);
    report.finish(&target.output)
}

async fn issue(mut rest: Rest, agent: String, count: u64, look: Look) -> Result<Measured> {
    let mut measured = Measured::default();
    let clues = Clues::new(0);
    let (post, query) = match look {
        Look::Every(_) => ("/commands/retry-task", ""),
        Look::Wait => ("/commands/retry-task", "?wait=30"),
        Look::InPost => ("/commands/retry-task?wait=30", "?wait=30"),
    };
    for number in 0..count {
        let task_id = clues.task_id(number);
        let request = json!({"agent_id": agent, "engine": "celery", "task_id": task_id, "idempotency_key": task_id});
        let started = Instant::now();
        let mut command = rest.post(post, &request, 202).await?;
        measured.post.record(started.elapsed());
        let path = format!("/commands/{}{query}", command["id"].as_str().context("a command without id")?);
        while !is_over(&command) {
            ensure!(started.elapsed() < GIVE_UP, "{path} has no outcome after {GIVE_UP:?}");
            if let Look::Every(pause) = look
                && !pause.is_zero()
            {
                tokio::time::sleep(pause).await;
            }
            command = rest.get(&path).await?;
        }
        measured.outcome.record(started.elapsed());
        measured.succeeded += u64::from(command["status"] == "succeeded" || command["status"] == "completed");
    }
    Ok(measured)
}

/// Also in the words of the reference brain.
fn is_over(command: &Value) -> bool {
    let status = command["status"].as_str();
    matches!(status, Some("succeeded" | "failed" | "timed_out" | "completed" | "timeout" | "cancelled"))
}
