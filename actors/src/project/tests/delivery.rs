use std::time::Duration;

use domain::command::Status;
use domain::command::record::Delivered;

use super::harness::*;
use crate::project::Heard;

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_its_agent_to_connect() {
    let node = Node::new().await;
    let issued = node.project.issue(retry("t1")).await.unwrap();
    assert_eq!(issued.status, Status::Issued);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut worker = node.connect(AGENT, "w1");
    worker.serve().await;
    node.until(issued.id, Status::Succeeded).await;
    assert_eq!(node.kinds().await, ["issued", "dispatched", "outcome"]);
}

/// Nobody is there to be asked when the command comes, and the append takes its time.
#[tokio::test(start_paused = true)]
async fn an_agent_that_connects_while_its_command_is_appended_gets_it() {
    let node = Node::slow(Duration::from_millis(500)).await;
    let project = node.project.clone();
    let issuing = tokio::spawn(async move { project.issue(retry("t1")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = issuing.await.unwrap().unwrap();
    assert_eq!(issued.status, Status::Issued);
    assert!(tokio::time::timeout(Duration::from_secs(3), worker.serve()).await.is_ok());
    node.until(issued.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_asks_has_no_actor() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let children = || node.project.cell().get_children().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(children(), 0);
    node.project.issue(retry("t1")).await.unwrap();
    worker.serve().await;
    assert_eq!(children(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_named_agent_gets_the_frame() {
    let node = Node::new().await;
    let other = domain::id::AgentId::from_bytes([1; 16]);
    let (mut mine, mut others) = (node.connect(AGENT, "w1"), node.connect(other, "w1"));
    node.project.issue(retry("t1")).await.unwrap();
    assert!(mine.next().await.is_some());
    assert!(others.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_has_one_command_in_flight() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let first = node.project.issue(retry("t1")).await.unwrap();
    let second = node.project.issue(retry("t2")).await.unwrap();
    assert_eq!((first.status, second.status), (Status::Dispatched, Status::Issued));
    let (frame, claim) = worker.next().await.unwrap().written();
    assert!(worker.next().await.is_none(), "the second waits");
    worker.say(&frame, &claim, success("{}")).await;
    worker.serve().await;
    node.until(second.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_run_two_commands_at_once() {
    let node = Node::new().await;
    let (mut one, mut two) = (node.connect(AGENT, "w1"), node.connect(AGENT, "w2"));
    let first = node.project.issue(retry("t1")).await.unwrap();
    let second = node.project.issue(retry("t2")).await.unwrap();
    assert_eq!((first.status, second.status), (Status::Dispatched, Status::Dispatched));
    assert_ne!(first.session, second.session);
    assert!(one.next().await.is_some() && two.next().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_goes_out_again_as_the_next_attempt() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().not_sent();
    worker.drop_session();
    let mut worker = node.connect(AGENT, "w1");
    let frame = worker.serve().await;
    assert_eq!(frame.id, issued.id.to_string(), "the frame's id does not change");
    let done = node.until(issued.id, Status::Succeeded).await;
    assert_eq!(done.attempt.0, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_left_means_never_delivered() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().not_sent();
    worker.drop_session();
    assert_eq!(node.until(issued.id, Status::TimedOut).await.delivered, Delivered::No);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_redelivers_what_may_be_done_twice_to_another_worker() {
    let node = Node::new().await;
    let mut first = node.connect(AGENT, "w1");
    let issued = node.project.issue(cancel("t1")).await.unwrap();
    first.next().await.unwrap().written();
    first.drop_session();
    let mut same = node.connect(AGENT, "w1");
    assert!(same.next().await.is_none(), "the same worker would answer without a result");
    let mut other = node.connect(AGENT, "w2");
    other.serve().await;
    let done = node.until(issued.id, Status::Succeeded).await;
    assert_eq!(done.attempt.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_never_redelivers_what_may_not_be_done_twice() {
    let node = Node::new().await;
    let mut first = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = first.next().await.unwrap().written();
    first.drop_session();
    let mut other = node.connect(AGENT, "w2");
    assert!(other.next().await.is_none());
    // The agent still holds the answer and sends it on its next session.
    let again = node.connect(AGENT, "w1");
    again.say(&frame, &claim, success("{}")).await;
    node.until(issued.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_actors_crash_keeps_its_commands() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let first = node.project.issue(retry("t1")).await.unwrap();
    let second = node.project.issue(retry("t2")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    for child in node.project.cell().get_children() {
        child.kill();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(worker.next().await.is_none(), "the first still has the lane");
    worker.say(&frame, &claim, Heard::Ack).await;
    worker.say(&frame, &claim, success("{}")).await;
    worker.serve().await;
    for command in [first.id, second.id] {
        node.until(command, Status::Succeeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_actor_that_keeps_crashing_leaves_its_commands_to_their_deadlines() {
    let node = Node::new().await;
    let _worker = node.connect(AGENT, "w1");
    node.project.issue(retry("t0")).await.unwrap();
    for _ in 0..8 {
        for child in node.project.cell().get_children() {
            child.kill();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(node.project.cell().get_children().is_empty());
    let issued = node.project.issue(retry("t1")).await.unwrap();
    assert_eq!(issued.status, Status::Issued);
    node.until(issued.id, Status::TimedOut).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_frees_its_lane_at_its_deadline() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let hung = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().written();
    node.until(hung.id, Status::TimedOut).await;
    let next = node.project.issue(retry("t2")).await.unwrap();
    worker.serve().await;
    node.until(next.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_another_home_ended_frees_its_lane_here() {
    let here = Node::new().await;
    let mut worker = here.connect(AGENT, "w1");
    let first = here.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    let there = Node::on(here.store.handle(), here.clock.clone()).await;
    there.project.heard(AGENT, worker.session, &frame.id, Some(&claim), success("{}")).await;
    there.until(first.id, Status::Succeeded).await;
    let second = here.project.issue(retry("t2")).await.unwrap();
    worker.serve().await;
    here.until(second.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_overtakes_a_redelivery_leaves_no_lane_taken() {
    let slow = Duration::from_millis(100);
    let node = Node::slow(slow).await;
    let mut first = node.connect(AGENT, "w1");
    let issued = node.project.issue(cancel("t1")).await.unwrap();
    let (frame, claim) = first.next().await.unwrap().written();
    let (session, mut other) = (first.session, node.connect(AGENT, "w2"));
    first.drop_session();
    // The second attempt is on its way to the store.
    tokio::time::sleep(slow / 2).await;
    node.project.heard(AGENT, session, &frame.id, Some(&claim), success("{}")).await;
    other.next().await.expect("it was dispatched").written();
    node.until(issued.id, Status::Succeeded).await;
    let second = node.project.issue(retry("t2")).await.unwrap();
    other.serve().await;
    node.until(second.id, Status::Succeeded).await;
}
