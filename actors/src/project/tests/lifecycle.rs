use std::time::Duration;

use domain::command::record::Delivered;
use domain::command::{Status, Verb};
use domain::id::address::Layout;
use domain::ledger::entry::DeleteBegun;
use domain::ledger::{Json, Kind, Proposal, Refusal};
use domain::task::{Priority, State, Task, TaskRow};
use futures_util::FutureExt as _;

use super::harness::*;
use crate::project::{Heard, IssueError, NoteError};
use crate::recorder::Work;

#[tokio::test(start_paused = true)]
async fn a_command_runs_to_its_outcome_in_two_appends() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    assert_eq!(issued.status, Status::Dispatched);
    assert_eq!((issued.issued_seq, issued.attempt.0), (1, 1));
    let got = worker.next().await.expect("a frame");
    assert_eq!(got.claim, format!("{}.0.1", issued.id));
    assert_eq!(got.frame.id, issued.id.to_string());
    assert_eq!(got.payload()["parameters"]["task_id"], "t1");
    let (frame, claim) = got.written();
    worker.say(&frame, &claim, Heard::Ack).await;
    worker.say(&frame, &claim, success(r#"{"new_task_id":"n","priority":1180591620717411303424}"#)).await;
    let done = node.until(issued.id, Status::Succeeded).await;
    assert_eq!(done.result.as_deref(), Some(r#"{"new_task_id":"n","priority":1180591620717411303424}"#));
    assert_eq!((done.delivered, done.outcome_seq), (Delivered::Yes, Some(3)));
    assert_eq!(node.kinds().await, ["issued", "dispatched", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn fifty_equal_issues_make_one_command() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let keyed = || {
        let mut draft = retry("t1");
        draft.idempotency_key = Some("k".into());
        draft
    };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (project, draft) = (node.project.clone(), keyed());
        tasks.spawn(async move { project.issue(draft).await.unwrap().id });
    }
    let mut ids = tasks.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    worker.serve().await;
    node.until(ids[0], Status::Succeeded).await;
    assert!(worker.next().await.is_none(), "no second frame");
    assert_eq!(node.project.issue(keyed()).await.unwrap().status, Status::Succeeded, "the present state");
    let mut other = retry("t2");
    other.idempotency_key = Some("k".into());
    let refused = node.project.issue(other).await;
    assert!(matches!(refused, Err(IssueError::Refused(Refusal::KeyConflict))), "{refused:?}");
    assert_eq!(node.kinds().await, ["issued", "dispatched", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_outlives_its_home() {
    let mut node = Node::new().await;
    let mut draft = retry("t1");
    draft.idempotency_key = Some("k".into());
    let first = node.project.issue(draft.clone()).await.unwrap();
    node.restart().await;
    assert_eq!(node.project.issue(draft).await.unwrap().id, first.id);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_command_times_out_within_a_second() {
    let node = Node::new().await;
    let offline = node.project.issue(retry("t0")).await.unwrap();
    assert_eq!(offline.status, Status::Issued);
    let ended = node.until(offline.id, Status::TimedOut).await;
    assert_eq!(ended.delivered, Delivered::No);
    assert!(ended.error.unwrap().contains("never delivered"));
    let late = ended.completed_at.unwrap().since(offline.issued_at().plus_secs(i64::from(TIMEOUT_SECS)));
    assert!((0..=1_000_000).contains(&late), "{late} us late");

    let mut worker = node.connect(AGENT, "w1");
    let silent = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().written();
    let ended = node.until(silent.id, Status::TimedOut).await;
    assert_eq!(ended.delivered, Delivered::Unknown);
    assert!(ended.error.unwrap().contains("may have run"));

    let acked = node.project.issue(retry("t2")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    worker.say(&frame, &claim, Heard::Ack).await;
    assert_eq!(node.until(acked.id, Status::TimedOut).await.delivered, Delivered::Yes);
}

/// There always is an append under way.
#[tokio::test(start_paused = true)]
async fn a_deadline_does_not_wait_for_a_quiet_moment() {
    let slow = Duration::from_millis(100);
    let node = Node::slow(slow).await;
    let mut worker = node.connect(AGENT, "w1");
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let project = node.project.clone();
        others.spawn(async move {
            loop {
                let other = draft(Verb::CancelTask, r#"{"engine":"rq","task_id":"t"}"#);
                assert_eq!(project.issue(other).await.unwrap().status, Status::Failed, "no worker has this engine");
                tokio::time::sleep(slow / 3).await;
            }
        });
    }
    let silent = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().written();
    let ended = node.until(silent.id, Status::TimedOut).await;
    let late = ended.completed_at.unwrap().since(silent.issued_at().plus_secs(i64::from(TIMEOUT_SECS)));
    assert!((0..=2_000_000).contains(&late), "{late} us late");
    assert!(others.try_join_next().is_none(), "they go on");
}

#[tokio::test(start_paused = true)]
async fn a_result_after_the_end_is_kept_and_changes_nothing() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    node.until(issued.id, Status::TimedOut).await;
    worker.say(&frame, &claim, success(r#"{"n":1}"#)).await;
    worker.say(&frame, &claim, failure("again")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = node.command(issued.id).await;
    assert_eq!(ended.status, Status::TimedOut);
    assert_eq!(ended.late_status, Some(Status::Succeeded));
    assert_eq!(ended.late_result.as_deref(), Some(r#"{"n":1}"#));
    assert_eq!(node.kinds().await[..4], ["issued", "dispatched", "outcome", "late"]);
}

/// What recorders are told of a retry that came to a status, as its task's row.
async fn told_of(body: &str, answer: Heard, status: Status) -> Option<(String, TaskRow)> {
    let mut node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(draft(Verb::RetryTask, body)).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    worker.say(&frame, &claim, answer).await;
    node.until(issued.id, status).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let Work::Scheduled(sighting) = node.recorded.next_round(1).now_or_never()?.pop()?.work else {
        panic!("other work")
    };
    let (engine, now) = (sighting.engine, node.clock.now());
    let task = Task::first(engine, &sighting.task_id, vec![sighting.report], Layout::Day, 86_400, now).unwrap();
    Some((sighting.task_id, task.row(PROJECT)))
}

#[tokio::test(start_paused = true)]
async fn a_retry_for_later_tells_when_its_task_is_due() {
    let later = r#"{"engine":"celery","task_id":"t","eta":"2027-03-01T12:00:00.5+01:00","priority":"high"}"#;
    let (task_id, row) = told_of(later, success(r#"{"new_task_id":"n"}"#), Status::Succeeded).await.unwrap();
    assert_eq!((task_id.as_str(), row.state, row.priority), ("n", State::Received, Priority::High));
    assert_eq!(row.eta, Some("2027-03-01T11:00:00.500000+00:00".parse().unwrap()));
    let (task_id, row) = told_of(
        r#"{"engine":"celery","task_id":"t","eta_seconds":90}"#,
        success(r#"{"task_id":"t"}"#),
        Status::Succeeded,
    )
    .await
    .unwrap();
    let wait = row.eta.unwrap().since(row.received_at);
    assert!(task_id == "t" && (89_000_000..=90_000_000).contains(&wait), "{task_id} in {wait} us");
}

#[tokio::test(start_paused = true)]
async fn a_retry_at_once_and_one_that_failed_tell_nothing() {
    let now = r#"{"engine":"celery","task_id":"t"}"#;
    assert_eq!(told_of(now, success(r#"{"new_task_id":"n"}"#), Status::Succeeded).await, None);
    let later = r#"{"engine":"celery","task_id":"t","eta_seconds":90}"#;
    assert_eq!(told_of(later, failure("no"), Status::Failed).await, None);
    assert_eq!(told_of(later, success(r#"{"new_task_id":""}"#), Status::Succeeded).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_project_times_its_commands_out_on_time() {
    let mut node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let silent = node.project.issue(retry("t1")).await.unwrap();
    worker.next().await.unwrap().written();
    tokio::time::sleep(Duration::from_secs(30)).await;
    node.restart().await;
    let ended = node.until(silent.id, Status::TimedOut).await;
    let late = ended.completed_at.unwrap().since(silent.deadline);
    assert!((0..=1_000_000).contains(&late), "{late} us late");
    // One that was down across the deadline catches up when it starts.
    let other = node.project.issue(retry("t2")).await.unwrap();
    node.project.cell().kill();
    tokio::time::sleep(Duration::from_secs(120)).await;
    node.revive().await;
    node.until(other.id, Status::TimedOut).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_finds_its_command_after_a_restart() {
    let mut node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    node.restart().await;
    node.project.heard(AGENT, worker.session, &frame.id, Some(&claim), success("{}")).await;
    node.until(issued.id, Status::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn another_agents_result_is_not_heard() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(retry("t1")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    let stranger = domain::id::AgentId::from_bytes([1; 16]);
    node.project.heard(stranger, worker.session, &frame.id, Some(&claim), success("{}")).await;
    node.until(issued.id, Status::TimedOut).await;
    node.project.heard(stranger, worker.session, &frame.id, Some(&claim), success("{}")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.command(issued.id).await.late_status, None);
}

#[tokio::test(start_paused = true)]
async fn what_an_engine_cannot_do_ends_without_dispatch() {
    let node = Node::new().await;
    let mut worker = node.connect_engine(AGENT, "w1", "rq");
    let mut draft = draft(Verb::RestartWorker, r#"{"worker_name":"w1","engine":"rq"}"#);
    draft.resolved.advertised.engines = vec!["rq".into()];
    let ended = node.project.issue(draft).await.unwrap();
    assert_eq!(ended.status, Status::Failed);
    assert_eq!(ended.result.as_deref(), Some(r#"{"ok":false,"reason":"unsupported"}"#));
    assert_eq!(ended.delivered, Delivered::No);
    assert!(worker.next().await.is_none());
    assert_eq!(node.kinds().await, ["issued", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn an_agents_word_that_it_cannot_becomes_unsupported() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let issued = node.project.issue(cancel("t")).await.unwrap();
    let (frame, claim) = worker.next().await.unwrap().written();
    let words = "adapter 'celery' does not support action 'cancel_task'";
    worker.say(&frame, &claim, failure(words)).await;
    let ended = node.until(issued.id, Status::Failed).await;
    assert_eq!(ended.result.as_deref(), Some(r#"{"ok":false,"reason":"unsupported"}"#));
    assert_eq!(ended.error.as_deref(), Some(words));
}

#[tokio::test(start_paused = true)]
async fn a_limiter_is_never_over_whatever_restarts() {
    let mut node = Node::new().await;
    let purge = || draft(Verb::PurgeQueue, r#"{"queue":"q","force":true}"#);
    for n in 0..10 {
        if n == 5 {
            node.restart().await;
        }
        node.project.issue(purge()).await.unwrap();
    }
    let refused = node.project.issue(purge()).await;
    let Err(IssueError::Refused(Refusal::Limited(limited))) = refused else { panic!("{refused:?}") };
    assert_eq!(limited.limit, 10);
    assert!(limited.retry_after_secs >= 59);
    node.project.issue(retry("t")).await.expect("plain commands are not limited");
    let deletion = || Proposal {
        actor: domain::command::Actor::User(USER),
        source: domain::command::Source::default(),
        kind: Kind::DeleteBegun(DeleteBegun { deletion: uuid::Uuid::nil(), filter: Json::new("{}").unwrap() }),
    };
    for _ in 0..10 {
        node.project.note(deletion()).await.unwrap();
    }
    assert!(matches!(node.project.note(deletion()).await, Err(NoteError::Limited(_))));
    tokio::time::sleep(Duration::from_secs(61)).await;
    node.project.issue(purge()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn overrides_reach_the_agent_and_nothing_else() {
    let node = Node::new().await;
    let mut worker = node.connect(AGENT, "w1");
    let body = r#"{"engine":"celery","task_id":"t","override_args":[1180591620717411303424],
        "override_kwargs":{"password":"hunter2hunter2"}}"#;
    let asked = draft(Verb::RetryTask, r#"{"engine":"celery","task_id":"t"}"#);
    let full = body.replacen('{', &format!("{{\"agent_id\":\"{AGENT}\","), 1);
    let parsed = domain::command::Asked::parse(Verb::RetryTask, full.as_bytes()).unwrap();
    let issued = node.project.issue(domain::command::Draft { request: parsed.request, ..asked }).await.unwrap();
    let got = worker.next().await.unwrap();
    let text = String::from_utf8(got.frame.body.as_bytes().to_vec()).unwrap();
    assert!(
        text.contains(r#""override_args":[1180591620717411303424],"override_kwargs":{"password":"hunter2hunter2"}"#),
        "{text}"
    );
    for entry in node.entries().await {
        assert!(!String::from_utf8_lossy(&entry.encode()).contains("hunter2"));
    }
    let row = node.command(issued.id).await;
    assert!(!row.payload.contains("hunter2"));
    let shown = row.shown_secrets(&keys().data).expect("it has secrets");
    assert!(!shown.contains("hunter2") && shown.contains("1180591620717411303424"), "{shown}");
}
