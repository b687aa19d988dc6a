//! Requests that issue a command and wait for it to end.

use std::time::Duration;

use axum::http::StatusCode;
use cql::accounts::Role;
use domain::id::AgentId;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{KEY, SLUG, World, verbs};
use crate::edge::commands::WAITS_PER_USER;
use crate::edge::tests::node::{Answer, Caller, Node};

/// Between a word and the answer that it wakes.
const SOON: Duration = Duration::from_millis(20);

/// Cancels a task, and how long the answer took.
async fn cancel(node: &Node, caller: &Caller, agent: AgentId, query: &str, key: Option<&str>) -> (Answer, Duration) {
    let began = Instant::now();
    let path = format!("/api/v1/projects/{SLUG}/commands/cancel-task{query}");
    let body = json!({ "agent_id": agent, "engine": "celery", "task_id": "t-1", "idempotency_key": key });
    (node.post(&path, caller, body).await, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_answer_has_the_outcome() {
    let World { node, admin, agent, mut process, .. } = World::make().await;
    let later = async {
        let order = process.order().await.expect("an order");
        tokio::time::sleep(Duration::from_secs(3)).await;
        process.answer(&order, Ok(json!({ "revoked": "t-1" }))).await;
    };
    let ((answer, after), ()) = tokio::join!(cancel(&node, &admin, agent, "?wait=30", None), later);
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let command = answer.json();
    assert_eq!((&command["status"], &command["result"]), (&json!("succeeded"), &json!({ "revoked": "t-1" })));
    assert!((Duration::from_secs(3)..Duration::from_secs(3) + SOON).contains(&after), "{after:?}");
    let path = format!("/api/v1/projects/{SLUG}/commands/{}", command["id"].as_str().unwrap());
    assert_eq!(command, node.get(&path, &admin).await.json());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_answered_as_it_is() {
    let World { node, admin, agent, mut process, .. } = World::make().await;
    for (query, waits) in [("", 0), ("?wait=0", 0), ("?wait=2", 2)] {
        let (answer, after) = cancel(&node, &admin, agent, query, None).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{query}: {}", answer.text);
        let command = answer.json();
        assert!(["issued", "dispatched"].contains(&command["status"].as_str().unwrap()), "{query}: {command}");
        let waits = Duration::from_secs(waits);
        assert!((waits..waits + SOON).contains(&after), "{query}: {after:?}");
    }
    assert!(process.order().await.is_some());
}

/// Also the one that matches nothing, which is no command, and the one that is no command yet.
#[tokio::test(start_paused = true)]
async fn every_verb_waits_and_what_is_no_command_does_not() {
    let mut world = World::make().await;
    for (verb, _, mut body) in verbs() {
        body["agent_id"] = json!(world.agent);
        let path = format!("/api/v1/projects/{SLUG}/commands/{verb}?wait=30");
        let later = async {
            let order = world.process.order().await.expect("an order");
            world.process.answer(&order, Ok(json!({}))).await;
        };
        let (answer, ()) = tokio::join!(world.node.post(&path, &world.admin, body), later);
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{verb}: {}", answer.text);
        assert_eq!(answer.json()["status"], "succeeded", "{verb}");
    }
    let began = Instant::now();
    let nothing = json!({ "filter": { "state": "failed", "queue": "nobody" }, "max": 10 });
    let dry = json!({ "filter": { "state": "failed" }, "max": 10, "dry_run": true });
    for body in [nothing, dry] {
        assert_eq!(world.ask("bulk-retry?wait=30", body).await.status, StatusCode::OK);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_with_the_same_key_hears_the_outcome_too() {
    let World { node, admin, agent, mut process, .. } = World::make().await;
    let (first, _) = cancel(&node, &admin, agent, "", Some(KEY)).await;
    let order = process.order().await.expect("an order");
    let again = cancel(&node, &admin, agent, "?wait=30", Some(KEY));
    let ((again, _), ()) = tokio::join!(again, process.answer(&order, Err("no such task")));
    assert_eq!((again.status, &again.json()["status"]), (StatusCode::ACCEPTED, &json!("failed")));
    assert_eq!(again.json()["id"], first.json()["id"]);
    let (over, after) = cancel(&node, &admin, agent, "?wait=30", Some(KEY)).await;
    assert_eq!((over.json(), after < SOON), (again.json(), true));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_wait_has_issued_nothing() {
    let world = World::make().await;
    let before = world.kept().await;
    for value in ["-1", "31", "1.5", "abc", "", "1&wait=1"] {
        let query = format!("?wait={value}");
        let (answer, _) = cancel(&world.node, &world.admin, world.agent, &query, Some(KEY)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{value}: {}", answer.text);
        assert_eq!(answer.json()["detail"][0]["loc"], json!(["query", "wait"]), "{value}");
    }
    assert_eq!((world.kept().await, world.key_is_free(KEY).await), (before, true));
    let waits: Vec<_> =
        (0..WAITS_PER_USER).map(|_| cancel(&world.node, &world.admin, world.agent, "?wait=30", None)).collect();
    let mut all = Box::pin(join_all(waits));
    while world.list("?limit=500").await.json()["items"].as_array().unwrap().len() < WAITS_PER_USER {
        assert!((&mut all).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let before = world.kept().await;
    let (refused, _) = cancel(&world.node, &world.admin, world.agent, "?wait=30", Some(KEY)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text);
    assert_eq!((world.kept().await, world.key_is_free(KEY).await), (before, true));
    let (at_once, _) = cancel(&world.node, &world.admin, world.agent, "", Some(KEY)).await;
    assert_eq!(at_once.status, StatusCode::ACCEPTED, "who does not wait needs no room");
    drop(all);
    assert!(world.node.app.waits.is_empty());
}

/// The command is issued, so the answer is the one that a request that does not wait had got.
#[tokio::test(start_paused = true)]
async fn what_was_taken_away_meanwhile_hides_the_outcome_and_leaves_no_refusal() {
    let mut world = World::make().await;
    let user = world.node.user("op@example.org", false).await;
    world.node.join(&user, &world.project, Role::Operator).await;
    let operator = world.node.session(&user).await;
    let later = async {
        let order = world.process.order().await.expect("an order");
        world.node.join(&user, &world.project, Role::Viewer).await;
        world.process.answer(&order, Ok(json!({ "revoked": "t-1" }))).await;
    };
    let ((answer, _), ()) = tokio::join!(cancel(&world.node, &operator, world.agent, "?wait=30", None), later);
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let command = answer.json();
    assert_eq!((&command["status"], &command["result"]), (&json!("dispatched"), &Value::Null));
    assert_eq!(world.detail(&world.admin, &command).await["status"], "succeeded");
    let audit = world.node.get(&format!("/api/v1/projects/{SLUG}/audit"), &world.admin).await;
    assert!(!audit.text.contains("refused"), "{}", audit.text);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_answers_who_waits() {
    let World { node, admin, agent, mut process, .. } = World::make().await;
    let down = async {
        process.order().await.expect("an order");
        node.app.mesh.shutdown().await;
    };
    let ((answer, after), ()) = tokio::join!(cancel(&node, &admin, agent, "?wait=30", None), down);
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::ACCEPTED, &json!("dispatched")));
    assert!(after < SOON, "{after:?}");
}
