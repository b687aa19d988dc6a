//! What is accepted: the frame that leaves, the answer that comes back, keys and agents that are away.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{FAILED, KEY, SLUG, WORKER, World, body_of, verbs};

#[tokio::test(start_paused = true)]
async fn a_command_is_signed_delivered_and_ends_with_the_agents_answer() {
    let mut world = World::make().await;
    let command = world.issue("retry-task", body_of("retry-task")).await;
    assert_eq!(command["agent_state"], "online");
    let order = world.process.order().await.unwrap();
    assert_eq!((order.frame.as_str(), order.action.as_str()), (command["id"].as_str().unwrap(), "retry_task"));
    assert_eq!(order.target["type"], "task");
    assert_eq!(order.target["id"], "celery:t-1");
    assert_eq!(order.parameters["task_id"], "t-1");
    assert_eq!(order.parameters["task_name"], "email.send", "the name is looked up in the task's row");
    assert_eq!(world.detail(&world.admin, &command).await["status"], "dispatched");
    world.process.answer(&order, Ok(json!({ "new_task_id": "t-1b" }))).await;
    let ended = world.detail(&world.admin, &command).await;
    assert_eq!((&ended["status"], &ended["delivered"]), (&json!("succeeded"), &json!("yes")));
    assert_eq!(ended["result"]["new_task_id"], "t-1b");
    assert!(ended["audit"]["outcome_seq"].as_u64() > ended["audit"]["issued_seq"].as_u64(), "{ended}");
    let late = world.detail(&world.member(cql::accounts::Role::Viewer).await, &command).await;
    assert_eq!((&late["status"], &late["payload"]), (&json!("succeeded"), &json!({})));
    assert_eq!((&late["issued_by"], &late["result"]), (&Value::Null, &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn an_agents_error_is_the_outcome() {
    let mut world = World::make().await;
    let command = world.issue("cancel-task", body_of("cancel-task")).await;
    let order = world.process.order().await.unwrap();
    world.process.answer(&order, Err("broker is down")).await;
    let ended = world.detail(&world.admin, &command).await;
    assert_eq!((&ended["status"], &ended["error"]), (&json!("failed"), &json!("broker is down")));
}

/// The parameters that reach the agent, verb by verb.
#[tokio::test(start_paused = true)]
async fn every_verb_reaches_the_agent_as_it_reads_it() {
    let mut world = World::make().await;
    for (verb, body, action, target, expected) in [
        ("cancel-task", body_of("cancel-task"), "cancel_task", json!("celery:t-1"), json!({ "task_id": "t-1" })),
        (
            "purge-queue",
            json!({ "queue": "mail", "confirm_token": "abc" }),
            "purge_queue",
            json!("mail"),
            json!({ "queue": "mail", "confirm_token": "abc", "force": false }),
        ),
        (
            "restart-worker",
            body_of("restart-worker"),
            "restart_worker",
            json!(WORKER),
            json!({ "worker_name": WORKER, "engine": "celery" }),
        ),
        (
            "pool-resize",
            json!({ "worker_name": WORKER, "delta": 100 }),
            "pool_grow",
            json!(WORKER),
            json!({ "delta": 100 }),
        ),
        (
            "pool-resize",
            json!({ "worker_name": WORKER, "delta": -100 }),
            "pool_shrink",
            json!(WORKER),
            json!({ "delta": 100 }),
        ),
        ("add-consumer", body_of("add-consumer"), "add_consumer", json!(WORKER), json!({ "queue": "mail" })),
        ("cancel-consumer", body_of("cancel-consumer"), "cancel_consumer", json!(WORKER), json!({ "queue": "mail" })),
    ] {
        let command = world.issue(verb, body).await;
        let order = world.process.order().await.unwrap_or_else(|| panic!("{verb}: no frame"));
        assert_eq!((order.action.as_str(), &order.target["id"]), (action, &target), "{verb}");
        assert_eq!(command["action"], action);
        for (member, value) in expected.as_object().unwrap() {
            assert_eq!(&order.parameters[member], value, "{verb} {member}");
        }
        world.process.answer(&order, Ok(json!({}))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_observed_depth_becomes_the_token_that_the_agent_expects() {
    let mut world = World::make().await;
    let shown = world.issue("purge-queue", json!({ "queue": "mail", "observed_depth": 7 })).await;
    let order = world.process.order().await.unwrap();
    let token = world.node.app.master.project_secret(world.project.id).purge_token("mail", 7);
    assert_eq!(order.parameters["confirm_token"], token.as_str());
    assert_eq!(shown["payload"]["confirm_token"], "<redacted>");
    assert!(!shown.to_string().contains(&token), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn overrides_reach_the_agent_whole_and_are_shown_scrubbed() {
    let mut world = World::make().await;
    let mut body = body_of("retry-task");
    (body["override_args"], body["override_kwargs"]) =
        (json!([1]), json!({ "password": "hunter2-and-more", "user": 7 }));
    let command = world.issue("retry-task", body).await;
    let order = world.process.order().await.unwrap();
    assert_eq!(order.parameters["override_args"], json!([1]));
    assert_eq!(order.parameters["override_kwargs"], json!({ "password": "hunter2-and-more", "user": 7 }));
    for shown in [command.clone(), world.detail(&world.admin, &command).await] {
        assert_eq!(shown["payload"]["override_kwargs"], json!({ "password": "<redacted>", "user": 7 }), "{shown}");
    }
    let audit = world.node.get(&format!("/api/v1/projects/{SLUG}/audit"), &world.admin).await;
    assert!(!audit.text.contains("hunter2"), "{}", audit.text);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_without_a_worker_is_a_flagged_broadcast() {
    let mut world = World::make().await;
    for (form, rate) in
        [(json!({}), "0"), (json!({ "worker_name": null }), "100"), (json!({ "worker_name": "" }), "1/h")]
    {
        let mut body = form;
        (body["task_name"], body["rate"]) = (json!("email.send"), json!(rate));
        let command = world.issue("rate-limit", body).await;
        assert_eq!(command["global_throttle"], true);
        let order = world.process.order().await.unwrap();
        assert_eq!((&order.target["id"], &order.parameters["rate"]), (&Value::Null, &json!(rate)));
        world.process.answer(&order, Ok(json!({}))).await;
    }
    let audit = world.node.get(&format!("/api/v1/projects/{SLUG}/audit?global_throttle=true"), &world.admin).await;
    let items = audit.json()["items"].as_array().unwrap().len();
    assert!(items >= 3, "{}", audit.text);
}

#[tokio::test(start_paused = true)]
async fn the_widest_body_of_each_verb_is_accepted() {
    let world = World::make().await;
    let long = "ü".repeat(200);
    for (verb, body) in [
        ("retry-task", json!({ "engine": "celery", "task_id": long, "eta_seconds": 86_400, "idempotency_key": long })),
        ("retry-task", json!({ "engine": "celery", "task_id": "t", "eta_seconds": 0, "priority": "critical" })),
        ("retry-task", json!({ "engine": "celery", "task_id": "t", "override_kwargs": { "k": "x".repeat(65_528) } })),
        ("retry-task", json!({ "engine": "celery", "task_id": "t", "override_args": ["x".repeat(65_532)] })),
        ("cancel-task", json!({ "engine": "celery", "task_id": long })),
        ("bulk-retry", json!({ "filter": { "name": "email.send" }, "max": 10_000 })),
        ("bulk-retry", json!({ "filter": { "status": "failure" }, "max": 1 })),
        ("purge-queue", json!({ "queue": long, "confirm_token": "c".repeat(128) })),
        ("purge-queue", json!({ "queue": "mail", "observed_depth": 0 })),
        ("rate-limit", json!({ "task_name": "n".repeat(500), "rate": "9".repeat(20) })),
    ] {
        world.issue(verb, body).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_retry_freezes_what_its_filter_means() {
    let mut world = World::make().await;
    let command = world.issue("bulk-retry", body_of("bulk-retry")).await;
    assert_eq!(command["progress"]["total"], FAILED.len());
    let order = world.process.order().await.unwrap();
    let mut ids: Vec<&str> =
        order.parameters["filter"]["task_ids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    ids.sort_unstable();
    assert_eq!(ids, FAILED);
    assert_eq!(order.parameters["filter"]["task_names"]["t-1"], "email.send");
}

#[tokio::test(start_paused = true)]
async fn an_equal_request_with_the_same_key_is_the_same_command() {
    let mut world = World::make().await;
    for (n, (verb, _, good)) in verbs().into_iter().enumerate() {
        let mut body = good;
        body["idempotency_key"] = json!(format!("{KEY}-{n}"));
        let first = world.issue(verb, body.clone()).await;
        let order = world.process.order().await.unwrap_or_else(|| panic!("{verb}: no frame"));
        let kept = world.kept().await;
        assert_eq!(world.issue(verb, body.clone()).await["id"], first["id"], "{verb}");
        world.process.answer(&order, Ok(json!({}))).await;
        let ended = world.issue(verb, body.clone()).await;
        assert_eq!((&ended["id"], &ended["completed_at"].is_string()), (&first["id"], &true), "{verb}: {ended}");
        assert!(world.process.order().await.is_none(), "{verb}: a second frame");
        // The same key for something else.
        let other = if verb == "cancel-task" { "retry-task" } else { "cancel-task" };
        let mut conflict = body_of(other);
        conflict["idempotency_key"] = body["idempotency_key"].clone();
        let refused = world.ask(other, conflict).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{verb}: {}", refused.text);
        assert_eq!(world.kept().await.rows[0], kept.rows[0], "{verb}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_for_an_agent_that_is_away_waits_for_it() {
    let world = World::make().await;
    let World { node, project, admin, agent, process } = world;
    process.leave().await;
    let path = format!("/api/v1/projects/{SLUG}/commands/cancel-task");
    let body = json!({ "agent_id": agent, "engine": "celery", "task_id": "t-1" });
    let answer = node.post(&path, &admin, body.clone()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let waiting = answer.json();
    assert_eq!((&waiting["status"], &waiting["agent_state"]), (&json!("issued"), &json!("offline")));
    let mut process = node.connect(&project, agent, &["celery"]).await;
    let order = process.order().await.unwrap();
    assert_eq!(order.frame, waiting["id"]);
    process.answer(&order, Ok(json!({}))).await;
    process.leave().await;
    let hopeless = node.post(&path, &admin, body).await.json();
    tokio::time::sleep(std::time::Duration::from_secs(70)).await;
    let path = format!("/api/v1/projects/{SLUG}/commands/{}", hopeless["id"].as_str().unwrap());
    let ended = node.get(&path, &admin).await.json();
    assert_eq!((&ended["status"], &ended["delivered"]), (&json!("timed_out"), &json!("no")));
}

#[tokio::test(start_paused = true)]
async fn what_an_engine_cannot_do_ends_unsupported_without_a_frame() {
    let mut world = World::make().await;
    let command = world.issue("cancel-task", json!({ "engine": "taskiq", "task_id": "t-1" })).await;
    let ended = world.detail(&world.admin, &command).await;
    assert_eq!((&ended["status"], &ended["delivered"]), (&json!("failed"), &json!("no")));
    assert_eq!(ended["result"], json!({ "ok": false, "reason": "unsupported" }));
    assert!(world.process.order().await.is_none());
}
