//! A store without space for a while: what asks is refused, what happened is kept until it can be written.

use std::time::Duration;

use cql::StoreError;
use domain::command::Status;

use super::harness::*;
use crate::project::{Heard, IssueError};

#[tokio::test(start_paused = true)]
async fn an_answer_on_a_full_disk_ends_its_command_once_there_is_space() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    node.store.set_full(true);
    worker.say(&frame, &claim, Heard::Ack).await;
    worker.say(&frame, &claim, success(r#"{"ok":true}"#)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(node.command(issued.id).await.status, Status::Dispatched);
    let refused = node.project.issue(retry("t2")).await;
    assert!(matches!(refused, Err(IssueError::Store(StoreError::Full))), "{refused:?}");
    node.store.set_full(false);
    let done = node.until(issued.id, Status::Succeeded).await;
    assert_eq!(done.result.as_deref(), Some(r#"{"ok":true}"#));
    assert_eq!(node.kinds().await, ["issued", "dispatched", "outcome"]);
    let next = node.project.issue(retry("t3")).await.unwrap();
    worker.serve().await;
    node.until(next.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_command_that_found_no_space_for_its_dispatch_goes_out_once_there_is() {
    let node = Node::new().await;
    let issued = node.project.issue(retry("t1")).await.unwrap();
    assert_eq!(issued.status, Status::Issued);
    node.store.set_full(true);
    let mut worker = node.connect(AGENT, "w1");
    assert!(worker.next().await.is_none(), "a frame without its entry");
    node.store.set_full(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.serve().await;
    node.until(issued.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_on_a_full_disk_is_kept_once_there_is_space_and_costs_nothing_meanwhile() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().written();
    node.store.set_full(true);
    let before = node.store.calls();
    tokio::time::sleep(Duration::from_secs(u64::from(TIMEOUT_SECS) + 100)).await;
    let asked = node.store.calls() - before;
    assert!(asked < 1_000, "{asked} calls in 100 s of a full disk");
    assert_eq!(node.command(issued.id).await.status, Status::Dispatched);
    node.store.set_full(false);
    node.until(issued.id, Status::TimedOut).await;
    assert_eq!(node.kinds().await, ["issued", "dispatched", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn a_home_that_starts_on_a_full_disk_keeps_deadlines_and_answers_once_there_is_space() {
    let mut node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    let silent = node.project.issue(retry("t2")).await.unwrap();
    node.store.set_full(true);
    node.restart().await;
    node.project.heard(AGENT, worker.session, &frame.id, Some(&claim), success(r#"{"ok":true}"#)).await;
    tokio::time::sleep(Duration::from_secs(u64::from(TIMEOUT_SECS) + 10)).await;
    node.store.set_full(false);
    node.until(issued.id, Status::Succeeded).await;
    node.until(silent.id, Status::TimedOut).await;
}
