//! Bulk deletion: exact counts, gone from every read, noted in the ledger, limited.

use std::time::Duration;

use axum::http::StatusCode;
use cql::engine::memory::Faults;
use domain::ledger::Kind;
use serde_json::{Value, json};

use super::node::Answer;
use super::tasks::World;

const PATH: &str = "/api/v1/projects/own/tasks";

async fn world(tasks: usize) -> World {
    let world = World::make().await;
    for n in 0..tasks {
        let data = json!({ "task_name": if n % 2 == 0 { "even" } else { "odd" }, "queue": "q" });
        world.task(&format!("t{n}"), &[("task.received", 1000, data)]).await;
    }
    world
}

async fn delete(world: &World, body: Value) -> Answer {
    world.node.post(&format!("{PATH}/bulk-delete"), &world.admin, body).await
}

async fn left(world: &World) -> u64 {
    world.get(&format!("{PATH}?include_total=true")).await.json()["total_count"].as_u64().unwrap()
}

async fn entries(world: &World) -> Vec<Value> {
    let entries = cql::ledger::entries::tail(world.node.app.store.as_ref(), world.project.id, 1, 100).await.unwrap();
    let kinds = entries.iter().map(|sealed| domain::ledger::Entry::decode(&sealed.bytes).unwrap().kind);
    kinds.map(|kind| json!([kind.as_str(), format!("{kind:?}")])).collect()
}

#[tokio::test(start_paused = true)]
async fn ids_of_both_kinds_are_deleted_once_and_gone_from_every_read() {
    let world = world(4).await;
    let ours = world.get(&format!("{PATH}/celery/t0")).await.json()["id"].clone();
    let body = json!({ "task_ids": [ours, "t1", "t1", "unknown"] });
    let answer = delete(&world, body.clone()).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "deleted_count": 2 })), "{}", answer.text);
    for path in ["celery/t0", "celery/t1", "celery/t1/tree"] {
        assert_eq!(world.get(&format!("{PATH}/{path}")).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(left(&world).await, 2);
    assert_eq!(world.get(&format!("{PATH}?format=csv&fields=name")).await.text.lines().count(), 3);
    assert_eq!(delete(&world, body).await.json(), json!({ "deleted_count": 0 }));
    let noted = entries(&world).await;
    let kinds: Vec<&str> = noted.iter().map(|entry| entry[0].as_str().unwrap()).collect();
    assert_eq!(kinds, ["delete_begun", "deleted", "delete_begun", "deleted"]);
    assert!(noted[1][1].as_str().unwrap().contains("count: 2"), "{noted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_filter_deletes_what_it_lists_beyond_one_page() {
    let world = world(1203).await;
    let answer = delete(&world, json!({ "filter_name": "even" })).await;
    assert_eq!(answer.json(), json!({ "deleted_count": 602 }));
    assert_eq!(left(&world).await, 601);
}

#[tokio::test(start_paused = true)]
async fn two_deletions_at_once_count_each_task_once() {
    let world = world(300).await;
    let both = tokio::join!(
        delete(&world, json!({ "filter_queue": "q" })),
        delete(&world, json!({ "filter_state": "received" })),
    );
    let count = |answer: &Answer| answer.json()["deleted_count"].as_u64().unwrap();
    assert_eq!(count(&both.0) + count(&both.1), 300);
    assert_eq!(left(&world).await, 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_of_another_project_are_out_of_reach() {
    let world = world(1).await;
    let other = world.node.project("other").await;
    world.task_in(&other, "far", &[("task.received", 5, json!({}))]).await;
    assert_eq!(delete(&world, json!({ "task_ids": ["far"] })).await.json(), json!({ "deleted_count": 0 }));
    let found = world.node.app.mesh.tasks().get(other.id, domain::engine::Engine::Celery, "far").await.unwrap();
    assert!(found.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_body_is_refused_and_leaves_no_trace() {
    let world = world(2).await;
    for body in [
        json!({}),
        json!({ "task_ids": null }),
        json!({ "task_ids": [] }),
        json!({ "task_ids": vec!["x"; 1001] }),
        json!({ "task_ids": [" "] }),
        json!({ "task_ids": "t0" }),
        json!({ "task_ids": ["t0"], "filter_state": "received" }),
        json!({ "task_ids": ["t0"], "project_id": "p" }),
        json!({ "filter_state": "done" }),
        json!({ "filter_state": null }),
        json!({ "filter_name": " " }),
        json!({ "filter_priority": [] }),
        json!({ "filter_priority": ["urgent"] }),
        json!({ "filter_since": "yesterday" }),
        json!({ "filter_name": "even", "filter_stat": "x" }),
    ] {
        let answer = delete(&world, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {}", answer.text);
    }
    assert_eq!(left(&world).await, 2);
    assert_eq!(entries(&world).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_eleventh_deletion_in_a_minute_waits() {
    let world = world(1).await;
    let body = json!({ "task_ids": ["unknown"] });
    for _ in 0..10 {
        assert_eq!(delete(&world, body.clone()).await.status, StatusCode::OK);
    }
    let refused = delete(&world, json!({ "filter_queue": "q" })).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["ratelimit-policy"], "10;w=60");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!((left(&world).await, entries(&world).await.len()), (1, 20));
    tokio::time::advance(std::time::Duration::from_secs(wait)).await;
    assert_eq!(delete(&world, json!({ "filter_queue": "q" })).await.json(), json!({ "deleted_count": 1 }));
}

/// The counts of the deletions that the ledger knows the end of.
async fn ends(world: &World) -> Vec<u64> {
    let entries = cql::ledger::entries::tail(world.node.app.store.as_ref(), world.project.id, 1, 1000).await.unwrap();
    let kinds = entries.iter().map(|sealed| domain::ledger::Entry::decode(&sealed.bytes).unwrap().kind);
    kinds.filter_map(|kind| if let Kind::Deleted(end) = kind { Some(end.count) } else { None }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_neither_ends_a_deletion_nor_counts_twice() {
    const NAMES: usize = 60;
    let world = World::make().await;
    for n in 0..NAMES * 4 {
        let data = json!({ "task_name": format!("n{}", n % NAMES), "queue": "q" });
        world.task(&format!("t{n}"), &[("task.received", 1000, data)]).await;
    }
    for n in 0..NAMES {
        let faults = Faults { read_failed: 0.02, commit_failed: 0.2, commit_unknown: 0.4, ..Faults::default() };
        world.node.memory.set_faults(faults);
        let answer = loop {
            let answer = delete(&world, json!({ "filter_name": format!("n{n}") })).await;
            // Below the limit; what is refused was not noted as begun.
            tokio::time::sleep(Duration::from_secs(20)).await;
            if ![StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status) {
                break answer;
            }
        };
        world.node.memory.set_faults(Faults::default());
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "deleted_count": 4 })), "{}", answer.text);
        assert_eq!((left(&world).await, ends(&world).await), ((NAMES - n - 1) as u64 * 4, vec![4; n + 1]));
    }
    let injected = world.node.memory.injected();
    assert!(injected.commit_failed > 0 && injected.unknown_applied > 0 && injected.unknown_later > 0, "{injected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_gone_ends_a_deletion_and_what_it_did_is_counted() {
    let world = world(3000).await;
    let latency = Duration::from_millis(10)..=Duration::from_millis(10);
    let slow = Faults { latency, ..Faults::default() };
    world.node.memory.set_faults(slow.clone());
    let (answer, ()) = tokio::join!(delete(&world, json!({ "filter_queue": "q" })), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.node.memory.set_faults(Faults { read_failed: 1.0, commit_failed: 1.0, ..slow });
        tokio::time::sleep(Duration::from_secs(50)).await;
        world.node.memory.set_faults(Faults::default());
    });
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    let first = ends(&world).await;
    let (done, left) = (first.iter().sum::<u64>(), left(&world).await);
    assert!(first.len() == 1 && done > 0 && left > 0 && done + left == 3000, "{first:?}, {left} left");
    let rest = delete(&world, json!({ "filter_queue": "q" })).await;
    assert_eq!(rest.json(), json!({ "deleted_count": left }));
}
