//! Reads of a project that holds tasks: lists, details, trees.

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::histogram::Histogram;
use crate::process::Usage;
use crate::report::Report;
use crate::rest::Rest;
use crate::target::Target;

#[derive(Args)]
pub(crate) struct Reads {
    #[command(flatten)]
    target: Target,
    /// Requests of each kind.
    #[arg(long, default_value_t = 1000)]
    requests: u64,
    #[arg(long, default_value_t = 1)]
    concurrency: u16,
    /// Rows of a list.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

pub(crate) async fn run(reads: &Reads) -> Result<String> {
    let target = &reads.target;
    let mut rest = Rest::login(target).await?;
    let page = rest.get("/tasks?limit=1000").await?;
    let items = page["items"].as_array().context("a page without items")?;
    ensure!(!items.is_empty(), "the project has no tasks: run `load swarm` first");
    let tasks = items
        .iter()
        .map(|task| Some(format!("/tasks/{}/{}", task["engine"].as_str()?, task["task_id"].as_str()?)))
        .collect::<Option<Vec<String>>>()
        .context("a task without engine or task_id")?;
    let limit = reads.limit;
    let kinds = [
        ("list", vec![format!("/tasks?limit={limit}")]),
        ("list, failed only", vec![format!("/tasks?limit={limit}&state=failed")]),
        ("second page", second_page(&page, limit)),
        ("detail", tasks.clone()),
        ("tree", tasks.iter().map(|task| format!("{task}/tree")).collect()),
    ];

    let mut report = Report::new("rest");
    report.figure("concurrency", reads.concurrency.into());
    let usage = || target.server_pid.map(Usage::of).transpose();
    for (kind, paths) in kinds {
        if paths.is_empty() {
            continue;
        }
        let (server, started) = (usage()?, Instant::now());
        let mut clients = JoinSet::new();
        for client in 0..u64::from(reads.concurrency) {
            let share = reads.requests / u64::from(reads.concurrency);
            clients.spawn(read(rest.another(target).await?, paths.clone(), client * share, share));
        }
        let mut latencies = Histogram::default();
        while let Some(ended) = clients.join_next().await {
            latencies.merge(&ended??);
        }
        let elapsed = started.elapsed();
        report.figure(format!("{kind}, per second"), latencies.count() as f64 / elapsed.as_secs_f64());
        if let (Some(before), Some(after)) = (server, usage()?) {
            report.cpu(kind, before, after, elapsed, latencies.count());
        }
        report.latency(kind, &latencies);
    }
    report.finish(target)
}

/// The cursor of a page is good for other limits too.
fn second_page(page: &serde_json::Value, limit: u32) -> Vec<String> {
    page["next_cursor"].as_str().map(|cursor| format!("/tasks?limit={limit}&cursor={cursor}")).into_iter().collect()
}

async fn read(mut rest: Rest, paths: Vec<String>, first: u64, count: u64) -> Result<Histogram> {
    let mut latencies = Histogram::default();
    for number in first..first + count {
        let path = &paths[number as usize % paths.len()];
        let started = Instant::now();
        rest.get(path).await?;
        latencies.record(started.elapsed());
    }
    Ok(latencies)
}
