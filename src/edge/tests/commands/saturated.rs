//! More requests than a project takes at once: those beyond are refused with a 429 and leave nothing, the others are
//! accepted (DESIGN section 6: queue limits).

use std::time::Duration;

use axum::http::StatusCode;
use cql::Table;
use cql::engine::memory::Faults;
use futures_util::future::join_all;
use serde_json::json;

use super::World;

/// Requests that a project takes at once.
const TAKEN: usize = 1024;

/// A thousand requests are dealt with from a slow store within the time that one waits for its answer.
const SLOW: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn a_full_queue_answers_429_and_keeps_what_it_took() {
    let world = World::make().await;
    let before = world.kept().await;
    world.node.memory.set_faults(Faults { latency: SLOW..=SLOW, ..Faults::default() });
    let ask = |n: usize| {
        let key = format!("key-{n}");
        world.ask("cancel-task", json!({ "engine": "celery", "task_id": "t-1", "idempotency_key": key }))
    };
    let answers = join_all((0..TAKEN + 176).map(ask)).await;
    let accepted = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert_eq!(accepted + refused.len(), answers.len(), "another status");
    assert!(!refused.is_empty() && accepted >= TAKEN, "{accepted} accepted, {} refused", refused.len());
    for answer in &refused {
        assert_eq!(answer.headers["retry-after"], "1", "{}", answer.text);
        let body = answer.json();
        assert_eq!(body["error"], "rate_limited", "{body}");
        assert_eq!(body["details"], json!({ "limit": TAKEN, "window_seconds": 1, "retry_after": 1 }), "{body}");
    }
    world.node.memory.set_faults(Faults::default());
    let keys = world.node.memory.count(Table::Idem);
    assert_eq!(keys, accepted, "a refused request took its key");
    let (kept, days) = (world.kept().await, 1);
    assert_eq!(kept.rows[0] - before.rows[0], accepted + days, "a refused request left a command");
    let again = world.ask("cancel-task", json!({ "engine": "celery", "task_id": "t-1", "idempotency_key": "key-0" }));
    assert_eq!(again.await.status, StatusCode::ACCEPTED, "the queue is free again");
}
