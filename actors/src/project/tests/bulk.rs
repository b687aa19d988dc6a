use std::time::Duration;

use cql::Table;
use cql::engine::memory::{Fault, Faults, Memory};
use cql::ledger::commands;
use domain::command::{Draft, FrozenTask, Status, Verb};
use domain::ledger::Refusal;
use domain::time::Timestamp;

use super::harness::*;
use crate::clock::Clock;
use crate::project::IssueError;

fn bulk(count: usize) -> Draft {
    let mut draft = draft(Verb::BulkRetry, r#"{"filter":{"state":"failed"},"max":10000}"#);
    draft.resolved.engine = Some(domain::engine::Engine::Celery);
    draft.resolved.tasks = (0..count).map(|n| FrozenTask::new(format!("t{n}"), Some("a.b".into()), None)).collect();
    draft
}

/// Retries every id of the next chunk.
async fn serve_chunk(worker: &mut Worker) -> usize {
    let got = worker.next().await.expect("a chunk comes");
    let ids: Vec<String> = got.payload()["parameters"]["filter"]["task_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    let (frame, claim) = got.written();
    let new: Vec<String> = ids.iter().map(|id| format!(r#""{id}":"new-{id}""#)).collect();
    let result = format!(r#"{{"succeeded":{},"new_task_ids":{{{}}}}}"#, ids.len(), new.join(","));
    worker.say(&frame, &claim, success(&result)).await;
    ids.len()
}

#[tokio::test(start_paused = true)]
async fn a_bulk_command_goes_chunk_by_chunk_and_adds_up() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(bulk(501)).await.unwrap();
    assert_eq!(issued.progress.unwrap().total, 501);
    for expected in [250, 250, 1] {
        assert_eq!(serve_chunk(&mut worker).await, expected);
    }
    let done = node.until(issued.id, Status::Succeeded).await;
    let progress = done.progress.unwrap();
    assert_eq!((progress.succeeded, progress.pending), (501, 0));
    let result: serde_json::Value = serde_json::from_str(&done.result.unwrap()).unwrap();
    assert_eq!((&result["requested"], &result["succeeded"]), (&501.into(), &501.into()));
    let ids = commands::chunk_ids(&node.store, PROJECT, issued.id).await.unwrap();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[2].1.succeeded["t500"], "new-t500");
}

#[tokio::test(start_paused = true)]
async fn a_failed_chunk_does_not_stop_the_next() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(bulk(300)).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    worker.say(&frame, &claim, failure("no broker")).await;
    assert_eq!(serve_chunk(&mut worker).await, 50);
    let done = node.until(issued.id, Status::Failed).await;
    assert_eq!(done.error.as_deref(), Some("no broker"));
    let progress = done.progress.unwrap();
    assert_eq!((progress.failed, progress.succeeded), (250, 50));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_times_out_ends_the_command_and_skips_the_rest() {
    let mut node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(bulk(600)).await.unwrap();
    serve_chunk(&mut worker).await;
    worker.next().await.unwrap().written();
    node.restart().await;
    let ended = node.until(issued.id, Status::TimedOut).await;
    let progress = ended.progress.unwrap();
    assert_eq!((progress.succeeded, progress.skipped, progress.pending), (250, 350, 0));
    let detail = commands::detail(&node.store, PROJECT, issued.id).await.unwrap().unwrap();
    let result: serde_json::Value = serde_json::from_str(&detail.result.unwrap()).unwrap();
    assert_eq!(result["new_task_ids"].as_object().unwrap().len(), 250);
    assert_eq!(result["skipped_ids"].as_array().unwrap().len(), 350);
    assert_eq!(result["skipped"], 350);
    assert!(worker.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_bulk_command_goes_on_after_a_restart_between_chunks() {
    let mut node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(bulk(300)).await.unwrap();
    let got = worker.next().await.unwrap();
    let (frame, claim) = got.written();
    node.restart().await;
    worker.project = node.project.clone();
    worker.say(&frame, &claim, success(r#"{"succeeded":250}"#)).await;
    assert_eq!(serve_chunk(&mut worker).await, 50);
    node.until(issued.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_bulk_command_leaves_no_frozen_ids() {
    let node = Node::new().await;
    for _ in 0..10 {
        node.project.issue(bulk(1)).await.unwrap();
    }
    assert_eq!(node.store.count(Table::CommandChunk), 10);
    let refused = node.project.issue(bulk(600)).await;
    assert!(matches!(refused, Err(IssueError::Refused(Refusal::Limited(_)))), "{refused:?}");
    assert_eq!(node.store.count(Table::CommandChunk), 10);
}

/// All of them are decided before any of them counts: freezing takes time here.
#[tokio::test(start_paused = true)]
async fn bulk_commands_that_race_leave_the_ids_of_those_that_win() {
    let faults = Faults { latency: Duration::from_millis(1)..=Duration::from_millis(9), ..Faults::default() };
    for keyed in [false, true] {
        let store = Memory::with_faults(7, faults.clone());
        let node = Node::on(store, Clock::starting_at(Timestamp::from_secs(1_800_000_000))).await;
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let (project, mut draft) = (node.project.clone(), bulk(300));
            draft.idempotency_key = keyed.then(|| "k".to_owned());
            racing.spawn(async move { project.issue(draft).await.map(|command| command.id).ok() });
        }
        let mut won: Vec<_> = racing.join_all().await.into_iter().flatten().collect();
        won.sort_unstable();
        won.dedup();
        assert_eq!(won.len(), if keyed { 1 } else { 10 });
        assert_eq!(node.store.count(Table::CommandChunk), 2 * won.len(), "two chunks of each");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunks_answer_that_comes_again_leaves_the_next_chunk_its_lane() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    node.project.issue(bulk(300)).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    worker.say(&frame, &claim, success(r#"{"succeeded":250}"#)).await;
    let second = worker.next().await.unwrap().written();
    worker.say(&frame, &claim, success(r#"{"succeeded":250}"#)).await;
    let other = node.project.issue(retry("t1")).await.unwrap();
    assert!(worker.next().await.is_none(), "the agent is at the second chunk");
    worker.say(&second.0, &second.1, success(r#"{"succeeded":50}"#)).await;
    worker.serve().await;
    node.until(other.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_outlives_reads_that_fail() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(bulk(300)).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    node.store.inject(Fault::ReadFailed);
    node.store.inject(Fault::ReadFailed);
    worker.say(&frame, &claim, success(r#"{"succeeded":250}"#)).await;
    assert_eq!(serve_chunk(&mut worker).await, 50);
    node.until(issued.id, Status::Succeeded).await;
    // A late answer reads the row of its command.
    let silent = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    node.until(silent.id, Status::TimedOut).await;
    node.store.inject(Fault::ReadFailed);
    worker.say(&frame, &claim, success("{}")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.command(silent.id).await.late_status, Some(Status::Succeeded));
}
