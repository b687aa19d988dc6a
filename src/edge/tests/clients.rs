//! What clients of the reference write without thinking: words for true, members that are null, nothing at all.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::node::Caller;
use super::tasks::World;

const PROJECT: &str = "/api/v1/projects/own";

async fn world() -> World {
    let world = World::make().await;
    for (task_id, priority) in [("t1", "high"), ("t2", "low"), ("t3", "low")] {
        world.task(task_id, &[("task.received", 1000, json!({ "task_name": "n", "priority": priority }))]).await;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn a_flag_in_a_query_is_read_in_every_spelling() {
    let world = world().await;
    for (word, total) in [("True", json!(3)), ("yes", json!(3)), ("ON", json!(3)), ("False", Value::Null)] {
        let answer = world.get(&format!("{PROJECT}/tasks?include_total={word}")).await;
        assert_eq!((answer.status, &answer.json()["total_count"]), (StatusCode::OK, &total), "{word}");
    }
    for word in ["", "2", "ja"] {
        let answer = world.get(&format!("{PROJECT}/tasks?include_total={word}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_needs_an_offset_of_less_than_a_day_and_may_be_far_away() {
    let world = world().await;
    for (until, status) in [
        ("9999-12-31T23:59:59Z", StatusCode::OK),
        ("2026-04-16T12:00:00%2B23:59", StatusCode::OK),
        ("2026-04-16T12:00:00%2B25:00", StatusCode::UNPROCESSABLE_ENTITY),
        ("2026-04-16T12:00:00%2B0530", StatusCode::UNPROCESSABLE_ENTITY),
        ("2026-02-29T12:00:00Z", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(world.get(&format!("{PROJECT}/tasks?until={until}")).await.status, status, "{until}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_lacks_everything_whatever_its_type() {
    let world = world().await;
    for (path, kind) in [("tasks/bulk-delete", None), ("commands/cancel-task", None), ("agents", Some("text/plain"))] {
        let mut request = Request::post(format!("{PROJECT}/{path}"));
        for (name, value) in &world.admin.0 {
            request = request.header(*name, value);
        }
        request = kind.into_iter().fold(request, |request, kind: &str| request.header("content-type", kind));
        let answer = world.node.answer(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert_eq!(answer.json()["detail"], json!([{ "loc": ["body"], "msg": "Field required", "type": "missing" }]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_was_never_given_out_is_a_400_on_every_list() {
    let world = world().await;
    for path in ["tasks?", "commands?", "audit?", "events?engine=celery&task_id=t1&"] {
        for cursor in ["", "x", &"x".repeat(5000)] {
            let answer = world.node.get(&format!("{PROJECT}/{path}cursor={cursor}"), &world.admin).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}{cursor}: {}", answer.text);
            assert_eq!(answer.json()["error"], "invalid_cursor");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_are_null_say_nothing_in_a_deletion() {
    let world = world().await;
    let delete =
        |body: Value| async { world.node.post(&format!("{PROJECT}/tasks/bulk-delete"), &world.admin, body).await };
    let none = delete(json!({ "task_ids": null, "filter_name": null })).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    let named = delete(json!({ "task_ids": ["t1"], "filter_state": null, "filter_name": null })).await;
    assert_eq!((named.status, named.json()), (StatusCode::OK, json!({ "deleted_count": 1 })));
    let filtered = delete(json!({ "task_ids": null, "filter_priority": "low", "filter_name": "n" })).await;
    assert_eq!((filtered.status, filtered.json()), (StatusCode::OK, json!({ "deleted_count": 2 })));
}

#[tokio::test(start_paused = true)]
async fn an_agents_row_carries_the_words_that_commands_use() {
    let world = world().await;
    let id = world.node.agent(&world.project, "a").await;
    let _process = world.node.connect(&world.project, id, &["celery"]).await;
    let row = world.get(&format!("{PROJECT}/agents")).await.json()[0].clone();
    assert_eq!((&row["agent_id"], &row["engines"]), (&row["id"], &row["engine_adapters"]));
    assert_eq!((&row["id"], &row["engines"]), (&json!(id), &json!(["celery"])));
}

#[tokio::test(start_paused = true)]
async fn the_systems_chain_calls_an_account_an_account() {
    let world = world().await;
    let root = world.node.user("root@example.org", true).await;
    let root: Caller = world.node.session(&root).await;
    let body = json!({ "email": "new@example.org", "password": "Quiet-Harbour-5-Lamp" });
    let user = world.node.post("/api/v1/users", &root, body).await.json();
    let entry = world.node.get("/api/v1/audit?action_prefix=user.", &root).await.json()["items"][0].clone();
    assert_eq!((&entry["action"], &entry["target_id"]), (&json!("user.granted"), &user["id"]));
    let member = json!({ "user_id": user["id"], "role": "viewer" });
    world.node.post(&format!("{PROJECT}/memberships"), &root, member).await;
    let entry = world.node.get(&format!("{PROJECT}/audit?limit=1"), &root).await.json()["items"][0].clone();
    assert_eq!(entry["action"], "membership.granted");
}
