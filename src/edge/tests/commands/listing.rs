//! The list of commands: filters, aliases, cursors and bounds (contract M76 to M81, D2, D4).

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{World, body_of};

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// Three that have succeeded, then two of which one is dispatched.
async fn five() -> (World, Vec<String>) {
    let mut world = World::make().await;
    let mut all = Vec::new();
    for n in 0..5 {
        let command = world.issue("cancel-task", body_of("cancel-task")).await;
        all.insert(0, command["id"].as_str().unwrap().to_owned());
        if n < 3 {
            let order = world.process.order().await.unwrap();
            world.process.answer(&order, Ok(json!({}))).await;
        }
    }
    let _held = world.process.order().await.unwrap();
    (world, all)
}

#[tokio::test(start_paused = true)]
async fn a_walk_shows_each_command_once_and_the_newest_first() {
    let (world, all) = five().await;
    let whole = world.list("").await.json();
    assert_eq!((ids(&whole), &whole["next_cursor"]), (all.clone(), &Value::Null));
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = world.list(&query).await.json();
        assert!(!ids(&page).is_empty());
        seen.extend(ids(&page));
        // What comes in between is newer than the walk.
        world.issue("cancel-task", body_of("cancel-task")).await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, all);
}

#[tokio::test(start_paused = true)]
async fn a_status_filters_exactly_and_has_an_alias() {
    let (world, all) = five().await;
    for (words, expected) in [
        (&["succeeded", "completed"][..], &all[2..]),
        (&["dispatched"], &all[1..2]),
        (&["issued", "pending"], &all[..1]),
        (&["failed"], &[]),
        (&["timed_out", "timeout"], &[]),
    ] {
        for word in words {
            let page = world.list(&format!("?status={word}")).await.json();
            assert_eq!(ids(&page), expected, "{word}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_list_cannot_read_is_refused() {
    let (world, _) = five().await;
    for query in ["?status=done", "?status=", "?limit=0", "?limit=-1", "?limit=5001", "?limit=x"] {
        let answer = world.list(query).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {}", answer.text);
        assert_eq!(answer.json()["detail"][0]["loc"][0], "query", "{query}");
    }
    assert_eq!(world.list("?limit=5000").await.status, StatusCode::OK);
    let cursor = world.list("?limit=2").await.json()["next_cursor"].as_str().unwrap().to_owned();
    let flipped = if cursor.starts_with('A') { "B" } else { "A" }.to_owned() + &cursor[1..];
    for query in
        [format!("?cursor={flipped}"), format!("?status=succeeded&cursor={cursor}"), "?cursor=nonsense".to_owned()]
    {
        let answer = world.list(&query).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {}", answer.text);
        assert_eq!(answer.json()["error"], "invalid_cursor");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_is_seen_in_its_own_project_only() {
    let (world, all) = five().await;
    world.node.project("other-project").await;
    for (path, status) in [
        (format!("billing/commands/{}", all[0]), StatusCode::OK),
        (format!("other-project/commands/{}", all[0]), StatusCode::NOT_FOUND),
        ("billing/commands/01890000-0000-7000-8000-000000000000".to_owned(), StatusCode::NOT_FOUND),
        ("billing/commands/seven".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = world.node.get(&format!("/api/v1/projects/{path}"), &world.admin).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    let page = world.node.get("/api/v1/projects/other-project/commands", &world.admin).await.json();
    assert_eq!(page, json!({ "items": [], "next_cursor": null }));
}
