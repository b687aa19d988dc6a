//! Reads of a project that holds tasks: lists, details, trees.

use anyhow::{Context, Result, ensure};
use clap::Args;
use domain::wire::client::Payload;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::beside::WithSwarm;
use crate::clock;
use crate::events::{Clues, QUEUE, RARE_QUEUE, TASK_NAME};
use crate::histogram::Histogram;
use crate::report::Report;
use crate::rest::Rest;
use crate::session::{Buffers, Session};
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
    /// Tasks of the tree that is read; an agent reports it first.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=500))]
    tree: u32,
    /// Rows of a list.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    with: WithSwarm,
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
    let tree = seed_tree(target, &mut rest, reads.tree).await?;
    let limit = reads.limit;
    let kinds = [
        ("list", vec![format!("/tasks?limit={limit}")]),
        ("list, failed only", vec![format!("/tasks?limit={limit}&state=failure")]),
        ("list, started only", vec![format!("/tasks?limit={limit}&state=started")]),
        ("list, one queue", vec![format!("/tasks?limit={limit}&queue={QUEUE}")]),
        ("list, a rare queue", vec![format!("/tasks?limit={limit}&queue={RARE_QUEUE}")]),
        ("second page", second_page(&page, limit)),
        ("detail", tasks.clone()),
        ("tree of one", tasks.iter().map(|task| format!("{task}/tree")).collect()),
        ("tree", vec![tree]),
    ];

    let mut report = Report::new("rest");
    report.figure("concurrency", reads.concurrency.into());
    report.figure("tasks of the tree", reads.tree.into());
    target.add_size(&mut rest, &mut report).await?;
    let beside = reads.with.start(target, &mut rest).await?;
    for (kind, paths) in kinds {
        if paths.is_empty() {
            continue;
        }
        let (server, started) = (target.usage()?, Instant::now());
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
        if let (Some(before), Some(after)) = (server, target.usage()?) {
            report.cpu(kind, before, after, elapsed, latencies.count());
        }
        report.latency(kind, &latencies);
    }
    if let Some(beside) = beside {
        beside.finish(&mut rest, &mut report).await?;
    }
    report.finish(&target.output)
}

/// Has an agent report a tree of `count` tasks; gives the path that reads it.
async fn seed_tree(target: &Target, rest: &mut Rest, count: u32) -> Result<String> {
    let credentials = target.mint(rest, 1).await?;
    let clues = Clues::new(0);
    let mut session = Session::open(target, &credentials[0], clues, 0, Buffers::Large).await?;
    let (root, stamp) = (clues.task_id(0), clock::now());
    for number in 0..u64::from(count) {
        let parent = if number == 0 { Value::Null } else { clues.task_id((number - 1) / 4).into() };
        let event = json!({"id": clues.event_id(number), "kind": "task.received", "engine": "celery",
            "task_id": clues.task_id(number), "occurred_at": stamp.to_string(),
            "data": {"task_name": TASK_NAME, "queue": QUEUE, "worker": null, "priority": "normal", "args": [number],
                "kwargs": {}, "root_task_id": root, "parent_task_id": parent}});
        let payload = Payload::new(json!({"events": [event]}).to_string())?;
        session.report(&payload, &format!("ev_{number:032x}")).await?;
    }
    let path = format!("/tasks/celery/{root}/tree");
    let nodes = rest.get(&path).await?["node_count"].as_u64();
    ensure!(nodes == Some(count.into()), "the tree has {nodes:?} nodes instead of {count}");
    Ok(path)
}

/// The cursor of a page is good for other limits too.
fn second_page(page: &Value, limit: u32) -> Vec<String> {
    page["next_cursor"].as_str().map(|cursor| format!("/tasks?limit={limit}&cursor={cursor}")).into_iter().collect()
}

async fn read(mut rest: Rest, paths: Vec<String>, first: u64, count: u64) -> Result<Histogram> {
    let mut latencies = Histogram::default();
    for number in first..first + count {
        let path = &paths[number as usize % paths.len()];
        let started = Instant::now();
        rest.touch(path).await?;
        latencies.record(started.elapsed());
    }
    Ok(latencies)
}
