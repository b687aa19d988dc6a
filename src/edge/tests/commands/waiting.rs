//! Requests that wait for a command to end.

use std::time::Duration;

use axum::http::StatusCode;
use cql::accounts::{Role, membership};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SLUG, World};
use crate::edge::commands::WAITS_PER_USER;
use crate::edge::tests::node::{Answer, Caller, Node};

/// Between a word and the answer that it wakes.
const SOON: Duration = Duration::from_millis(20);

impl World {
    async fn wait(&self, caller: &Caller, command: &Value, query: &str) -> Answer {
        wait_on(&self.node, caller, command, query).await
    }

    async fn dispatched(&mut self) -> (Value, super::super::process::Order) {
        let command = self.issue("cancel-task", json!({ "engine": "celery", "task_id": "t-1" })).await;
        (command, self.process.order().await.expect("an order"))
    }
}

async fn wait_on(node: &Node, caller: &Caller, command: &Value, query: &str) -> Answer {
    let id = command["id"].as_str().unwrap();
    node.get(&format!("/api/v1/projects/{SLUG}/commands/{id}{query}"), caller).await
}

#[tokio::test(start_paused = true)]
async fn the_answer_comes_with_the_outcome_and_at_once_after_it() {
    let mut world = World::make().await;
    let (command, order) = world.dispatched().await;
    let (node, admin, began) = (&world.node, &world.admin, Instant::now());
    let ended = async {
        let answer = wait_on(node, admin, &command, "?wait=30").await;
        (answer, began.elapsed())
    };
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.process.answer(&order, Ok(json!({ "revoked": "t-1" }))).await;
    };
    let ((answer, after), ()) = tokio::join!(ended, later);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["status"], "succeeded");
    assert_eq!(answer.json(), world.detail(&world.admin, &command).await);
    assert!((Duration::from_secs(3)..Duration::from_secs(3) + SOON).contains(&after), "{after:?}");
    let began = Instant::now();
    assert_eq!(world.wait(&world.admin, &command, "?wait=30").await.json()["status"], "succeeded");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_answered_as_it_is_and_a_deadline_is_an_end() {
    let mut world = World::make().await;
    let (command, _order) = world.dispatched().await;
    let began = Instant::now();
    for (query, waits) in [("?wait=0", 0), ("?wait=1", 1), ("", 0), ("?wait=30", 30)] {
        let began = Instant::now();
        let answer = world.wait(&world.admin, &command, query).await;
        assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("dispatched")), "{query}");
        let waits = Duration::from_secs(waits);
        assert!((waits..waits + SOON).contains(&began.elapsed()), "{query}: {:?}", began.elapsed());
    }
    let answer = world.wait(&world.admin, &command, "?wait=30").await;
    assert_eq!(answer.json()["status"], "timed_out");
    let after = began.elapsed();
    assert!((Duration::from_secs(59)..Duration::from_secs(61)).contains(&after), "its minute and no more: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_waited_for_is_refused() {
    let mut world = World::make().await;
    let (command, _order) = world.dispatched().await;
    let began = Instant::now();
    for value in ["-1", "31", "1.5", "abc", "", "9999999999999999999", "1&wait=1", "%ff"] {
        let answer = world.wait(&world.admin, &command, &format!("?wait={value}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{value}: {}", answer.text);
        assert_eq!(answer.json()["detail"][0]["loc"], json!(["query", "wait"]), "{value}");
    }
    let unknown = json!({ "id": "01942c5e-0000-7000-8000-000000000000" });
    assert_eq!(world.wait(&world.admin, &unknown, "?wait=30").await.status, StatusCode::NOT_FOUND);
    let stranger = world.node.session(&world.node.user("stranger@example.org", false).await).await;
    assert_eq!(world.wait(&stranger, &command, "?wait=30").await.status, StatusCode::NOT_FOUND);
    assert!(began.elapsed() < SOON, "nobody waits to be refused: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn so_many_wait_at_a_time_and_who_goes_away_makes_room() {
    let mut world = World::make().await;
    let (command, order) = world.dispatched().await;
    let viewer = world.member(Role::Viewer).await;
    let waits: Vec<_> = (0..WAITS_PER_USER).map(|_| world.wait(&viewer, &command, "?wait=30")).collect();
    let mut all = Box::pin(join_all(waits));
    assert!((&mut all).now_or_never().is_none());
    let refused = world.wait(&viewer, &command, "?wait=30").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text);
    assert_eq!(
        (&refused.headers["retry-after"], &refused.json()["error"]),
        (&"1".parse().unwrap(), &json!("rate_limited"))
    );
    assert_eq!(world.wait(&viewer, &command, "").await.status, StatusCode::OK, "who does not wait needs no room");
    assert!(world.wait(&world.admin, &command, "?wait=30").now_or_never().is_none(), "others have room of their own");
    drop(all);
    let (node, again) = (&world.node, wait_on(&world.node, &viewer, &command, "?wait=30"));
    let (answer, ()) = tokio::join!(again, world.process.answer(&order, Err("no such task")));
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("failed")));
    assert!(node.app.waits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_away_meanwhile_is_not_shown() {
    let mut world = World::make().await;
    let user = world.node.user("op@example.org", false).await;
    world.node.join(&user, &world.project, Role::Operator).await;
    let operator = world.node.session(&user).await;
    let (command, order) = world.dispatched().await;
    let node = &world.node;
    let waiting = wait_on(node, &operator, &command, "?wait=30");
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.join(&user, &world.project, Role::Viewer).await;
        world.process.answer(&order, Ok(json!({ "revoked": "t-1" }))).await;
    };
    let (answer, ()) = tokio::join!(waiting, later);
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("succeeded")));
    assert_eq!(answer.json()["result"], Value::Null, "a viewer sees no result");

    let (command, _order) = world.dispatched().await;
    let waiting = wait_on(&world.node, &operator, &command, "?wait=2");
    let later = async {
        let store = world.node.app.store.as_ref();
        let row = membership::get(store, world.project.id, user.id).await.unwrap().unwrap();
        membership::remove(store, &row).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, later);
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_answers_those_who_wait() {
    let mut world = World::make().await;
    let (command, _order) = world.dispatched().await;
    let began = Instant::now();
    let waiting = async {
        let answer = world.wait(&world.admin, &command, "?wait=30").await;
        (answer, began.elapsed())
    };
    let ((answer, after), ()) = tokio::join!(waiting, world.node.app.mesh.shutdown());
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("dispatched")));
    assert!(after < SOON, "{after:?}");
}

/// The command's home is another node of the same store: nothing is heard of it here, so it is looked at.
#[tokio::test(start_paused = true)]
async fn what_another_node_ends_is_seen_soon() {
    let mut world = World::make_shared().await;
    let other = Node::beside(&world.node).await;
    let (command, order) = world.dispatched().await;
    let began = Instant::now();
    let (admin, later) = (world.admin.clone(), async {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        world.process.answer(&order, Ok(json!({}))).await;
    });
    let waiting = async {
        let answer = wait_on(&other, &admin, &command, "?wait=30").await;
        (answer, began.elapsed())
    };
    let ((answer, after), ()) = tokio::join!(waiting, later);
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("succeeded")));
    assert!(after < Duration::from_millis(1_100 + 250) + SOON, "{after:?}");
}
