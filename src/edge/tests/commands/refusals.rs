//! Whatever is refused leaves no command, no entry, no key and no frame (contract M102, M128, D21, D25).

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{FAILED, KEY, Kept, SLUG, WORKER, World, body_of, verbs};
use crate::edge::tests::node::Answer;

/// A member of an accepted body, what to put in its place (`None`: nothing), and the mistake that is named.
type Row = (&'static str, Option<Value>, &'static str, &'static str);

fn text(chars: usize) -> Option<Value> {
    Some(json!("ü".repeat(chars)))
}

fn of_every_verb() -> Vec<Row> {
    vec![
        ("agent_id", None, "body.agent_id", "missing"),
        ("agent_id", Some(json!(null)), "body.agent_id", "missing"),
        ("agent_id", Some(json!("seven")), "body.agent_id", "uuid_parsing"),
        ("agent_id", Some(json!(7)), "body.agent_id", "string_type"),
        ("idempotency_key", Some(json!("")), "body.idempotency_key", "string_too_short"),
        ("idempotency_key", text(201), "body.idempotency_key", "string_too_long"),
        ("idempotency_key", Some(json!(5)), "body.idempotency_key", "string_type"),
        ("surprise", Some(json!(1)), "body.surprise", "extra_forbidden"),
        ("project_id", Some(json!("x")), "body.project_id", "extra_forbidden"),
    ]
}

fn of_a_name(member: &'static str, loc: &'static str, long: usize) -> Vec<Row> {
    vec![
        (member, None, loc, "missing"),
        (member, Some(json!(null)), loc, "missing"),
        (member, Some(json!("")), loc, "string_too_short"),
        (member, text(long + 1), loc, "string_too_long"),
        (member, Some(json!(9)), loc, "string_type"),
    ]
}

fn of_a_task() -> Vec<Row> {
    let mut rows = of_a_name("task_id", "body.task_id", 200);
    rows.extend([
        ("engine", None, "body.engine", "missing"),
        ("engine", Some(json!("")), "body.engine", "string_too_short"),
        ("engine", Some(json!("sidekiq")), "body.engine", "enum"),
        ("engine", Some(json!("CELERY")), "body.engine", "enum"),
    ]);
    rows
}

fn of_a_worker() -> Vec<Row> {
    let mut rows = of_a_name("worker_name", "body.worker_name", 200);
    rows.push(("worker_name", Some(json!("ghost@host")), "body.worker_name", "value_error"));
    rows.push(("worker_name", Some(json!("W1@host")), "body.worker_name", "value_error"));
    rows.push(("engine", Some(json!("rq")), "body.worker_name", "value_error"));
    rows
}

fn of(verb: &str) -> Vec<Row> {
    let filter = |filter: Value, loc, kind| ("filter", Some(filter), loc, kind);
    let mut rows = of_every_verb();
    rows.extend(match verb {
        "retry-task" => [
            of_a_task(),
            vec![
                ("override_kwargs", Some(json!([])), "body.override_kwargs", "dict_type"),
                ("override_kwargs", Some(json!("{}")), "body.override_kwargs", "dict_type"),
                ("override_kwargs", Some(json!({ "k": "x".repeat(65_529) })), "body.override_kwargs", "too_long"),
                ("override_kwargs", Some(json!({ "__z4j_x": 1 })), "body.override_kwargs", "value_error"),
                ("override_args", Some(json!({})), "body.override_args", "list_type"),
                ("override_args", Some(json!(["x".repeat(65_533)])), "body.override_args", "too_long"),
                ("eta_seconds", Some(json!(-1)), "body.eta_seconds", "greater_than_equal"),
                ("eta_seconds", Some(json!(86_401)), "body.eta_seconds", "less_than_equal"),
                ("eta", Some(json!("soon")), "body.eta", "datetime_parsing"),
                ("priority", Some(json!("urgent")), "body.priority", "enum"),
                // Without overrides: dramatiq cannot look them up.
                ("engine", Some(json!("dramatiq")), "body.override_kwargs", "missing"),
            ],
        ]
        .concat(),
        "cancel-task" => of_a_task(),
        "bulk-retry" => vec![
            ("filter", None, "body.filter", "missing"),
            filter(json!([]), "body.filter", "dict_type"),
            filter(json!({}), "body.filter", "value_error"),
            filter(json!({ "engine": "celery" }), "body.filter", "value_error"),
            filter(json!({ "stat": "failed" }), "body.filter.stat", "extra_forbidden"),
            filter(json!({ "state": "failed", "stat": 1 }), "body.filter.stat", "extra_forbidden"),
            filter(json!({ "state": "done" }), "body.filter.state", "enum"),
            filter(json!({ "state": "failed", "status": "lost" }), "body.filter.status", "value_error"),
            filter(json!({ "state": "failed", "engine": "rq" }), "body.filter.engine", "value_error"),
            filter(json!({ "priority": "high,urgent" }), "body.filter.priority", "enum"),
            filter(json!({ "since": "yesterday" }), "body.filter.since", "datetime_parsing"),
            filter(json!({ "until": "2026-04-16T12:00:00" }), "body.filter.until", "datetime_parsing"),
            filter(json!({ "queue": "" }), "body.filter.queue", "string_too_short"),
            filter(json!({ "name": "n".repeat(501) }), "body.filter.name", "string_too_long"),
            filter(json!({ "task_ids": [] }), "body.filter.task_ids", "too_short"),
            filter(json!({ "task_ids": [1] }), "body.filter.task_ids", "list_type"),
            ("max", Some(json!(0)), "body.max", "greater_than_equal"),
            ("max", Some(json!(10_001)), "body.max", "less_than_equal"),
            ("max", Some(json!("many")), "body.max", "int_type"),
            ("dry_run", Some(json!("yes")), "body.dry_run", "bool_type"),
        ],
        "purge-queue" => [
            of_a_name("queue", "body.queue", 200),
            vec![
                ("force", None, "body.confirm_token", "missing"),
                ("force", Some(json!(false)), "body.confirm_token", "missing"),
                ("force", Some(json!("yes")), "body.force", "bool_type"),
                ("observed_depth", Some(json!(-1)), "body.observed_depth", "greater_than_equal"),
                ("confirm_token", Some(json!("")), "body.confirm_token", "string_too_short"),
                ("confirm_token", text(129), "body.confirm_token", "string_too_long"),
            ],
        ]
        .concat(),
        "restart-worker" => of_a_worker(),
        "pool-resize" => [
            of_a_worker(),
            vec![
                ("delta", None, "body.delta", "missing"),
                ("delta", Some(json!(0)), "body.delta", "value_error"),
                ("delta", Some(json!(101)), "body.delta", "less_than_equal"),
                ("delta", Some(json!(-101)), "body.delta", "greater_than_equal"),
                ("delta", Some(json!(1.5)), "body.delta", "int_type"),
                ("delta", Some(json!("1")), "body.delta", "int_type"),
            ],
        ]
        .concat(),
        "add-consumer" | "cancel-consumer" => [of_a_worker(), of_a_name("queue", "body.queue", 200)].concat(),
        "rate-limit" => {
            let bad =
                ["100/d", "-1", "1.5/s", "01/m", "007/s", "0/s", "1/", "/s", "1 /s", "1/S", "1/m\n", "ten", "٣/s"];
            let pattern = |rate: &str| ("rate", Some(json!(rate)), "body.rate", "string_pattern_mismatch");
            let mut rows: Vec<Row> = bad.into_iter().map(pattern).collect();
            rows.extend(of_a_name("task_name", "body.task_name", 500));
            rows.extend([
                ("rate", None, "body.rate", "missing"),
                ("rate", Some(json!("")), "body.rate", "string_too_short"),
                ("rate", Some(json!("9".repeat(21))), "body.rate", "string_too_long"),
                ("rate", Some(json!(5)), "body.rate", "string_type"),
                ("worker_name", Some(json!("ghost@host")), "body.worker_name", "value_error"),
            ]);
            rows
        }
        _ => panic!("no such verb: {verb}"),
    });
    rows
}

fn names(answer: &Answer, loc: &str, kind: &str) -> bool {
    let body = answer.json();
    let Some(problems) = body["detail"].as_array() else { return false };
    problems.iter().any(|problem| {
        let parts: Vec<&str> = problem["loc"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        parts.join(".") == loc && problem["type"] == kind && !problem["msg"].as_str().unwrap().is_empty()
    })
}

#[tokio::test(start_paused = true)]
async fn every_mistake_is_named_and_leaves_nothing() {
    let mut world = World::make().await;
    let before = world.kept().await;
    for (verb, _, good) in verbs() {
        for (member, change, loc, kind) in of(verb) {
            let mut body = good.clone();
            let members = body.as_object_mut().unwrap();
            members.insert("agent_id".to_owned(), json!(world.agent));
            members.insert("idempotency_key".to_owned(), json!(KEY));
            match &change {
                Some(value) => drop(members.insert(member.to_owned(), value.clone())),
                None => drop(members.remove(member)),
            }
            let shown: String = format!("{verb} {member}={change:?}").chars().take(120).collect();
            let answer = world.post(&world.admin, verb, body).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{shown}: {}", answer.text);
            assert!(names(&answer, loc, kind), "{shown}: no {kind} at {loc} in {}", answer.text);
        }
        assert_eq!(world.kept().await, before, "{verb}");
        assert!(world.key_is_free(KEY).await, "{verb}");
    }
    assert!(world.process.order().await.is_none(), "a refused request has left as a frame");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_be_asked_is_refused_before_anything_is_minted() {
    let world = World::make().await;
    let other = world.node.project("other-project").await;
    let foreign = world.node.agent(&other, "foreign").await;
    let _connected = world.node.connect(&other, foreign, &["celery"]).await;
    let revoked = world.node.agent(&world.project, "revoked").await;
    let process = world.node.connect(&world.project, revoked, &["celery"]).await;
    let path = format!("/api/v1/projects/{SLUG}/agents/{revoked}");
    world.node.send(&axum::http::Method::DELETE, &path, &world.admin, None).await;
    process.leave().await;
    let idle = world.node.agent(&world.project, "never connected").await;
    let unknown = json!("01890000-0000-7000-8000-000000000000");
    let before = world.kept().await;
    for (verb, _, good) in verbs() {
        for (agent, status) in [
            (json!(foreign), StatusCode::NOT_FOUND),
            (json!(revoked), StatusCode::NOT_FOUND),
            (unknown.clone(), StatusCode::NOT_FOUND),
            (json!(idle), StatusCode::CONFLICT),
        ] {
            let mut body = good.clone();
            body["agent_id"] = agent.clone();
            body["idempotency_key"] = json!(KEY);
            let answer = world.post(&world.admin, verb, body).await;
            assert_eq!(answer.status, status, "{verb} {agent}: {}", answer.text);
        }
    }
    assert_eq!(world.kept().await, before);
    assert!(world.key_is_free(KEY).await);
}

#[tokio::test(start_paused = true)]
async fn a_worker_belongs_to_the_agents_that_name_it() {
    let world = World::make().await;
    let sibling = world.node.agent(&world.project, "sibling").await;
    let mut process = world.node.connect(&world.project, sibling, &["celery"]).await;
    process.report_failed(&["t-9"], "w9@host").await;
    let before = world.kept().await;
    for verb in ["restart-worker", "pool-resize", "add-consumer", "cancel-consumer", "rate-limit"] {
        let mut body = body_of(verb);
        body["worker_name"] = json!("w9@host");
        let refused = world.ask(verb, body.clone()).await;
        assert!(names(&refused, "body.worker_name", "value_error"), "{verb}: {}", refused.text);
        assert_eq!(world.kept().await, before, "{verb}");
    }
    let taken = world.issue("restart-worker", json!({ "agent_id": sibling, "worker_name": "w9@host" })).await;
    assert_eq!(taken["target_id"], "w9@host");
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_too_low_leaves_an_entry_and_nothing_else() {
    let mut world = World::make().await;
    for role in cql::accounts::Role::ALL {
        let caller = world.member(role).await;
        for (verb, need, good) in verbs() {
            if role >= need {
                continue;
            }
            let Kept { rows, entries } = world.kept().await;
            let mut body = good;
            body["agent_id"] = json!(world.agent);
            body["idempotency_key"] = json!(KEY);
            let answer = world.post(&caller, verb, body).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{verb} as {role}");
            assert_eq!(answer.json()["details"]["have"], role.as_str(), "{verb}");
            assert_eq!(answer.json()["details"]["need"], need.as_str(), "{verb}");
            assert_eq!(world.kept().await, Kept { rows, entries: entries + 1 }, "{verb} as {role}");
        }
    }
    assert!(world.key_is_free(KEY).await);
    assert!(world.process.order().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_bulk_actions_refuses_without_a_trace() {
    let world = World::make().await;
    for _ in 0..10 {
        world.issue("purge-queue", body_of("purge-queue")).await;
    }
    let before = world.kept().await;
    let mut body = body_of("purge-queue");
    body["idempotency_key"] = json!(KEY);
    let refused = world.ask("purge-queue", body.clone()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    // The second under way counts whole, and no time has passed since the first.
    assert!((1..=61).contains(&wait), "{wait}");
    assert!(refused.headers.keys().any(|name| name.as_str().starts_with("ratelimit")), "{:?}", refused.headers);
    assert_eq!(world.kept().await, before);
    assert!(world.key_is_free(KEY).await);
    // Another route, another principal and verbs without a limit go on.
    world.issue("retry-task", body_of("retry-task")).await;
    world.issue("bulk-retry", body_of("bulk-retry")).await;
    let second = world.member(cql::accounts::Role::Admin).await;
    body["agent_id"] = json!(world.agent);
    body.as_object_mut().unwrap().remove("idempotency_key");
    assert_eq!(world.post(&second, "purge-queue", body.clone()).await.status, StatusCode::ACCEPTED);
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    assert_eq!(world.ask("purge-queue", body).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_and_a_filter_that_matches_nothing_mint_nothing() {
    let mut world = World::make().await;
    let path = format!("/api/v1/projects/{SLUG}/tasks/celery/t-2");
    let ours = world.node.get(&path, &world.admin).await.json()["id"].clone();
    let before = world.kept().await;
    for (change, count) in [
        (json!({ "filter": { "state": "failed" }, "dry_run": true }), FAILED.len()),
        (json!({ "filter": { "worker": WORKER }, "dry_run": true, "max": 2 }), 2),
        (json!({ "filter": { "task_ids": ["t-2", "t-none"] }, "dry_run": true }), 1),
        (json!({ "filter": { "task_ids": [ours, "t-2", "t-3"] }, "dry_run": true }), 2),
        (json!({ "filter": { "state": "lost" } }), 0),
        (json!({ "filter": { "task_ids": ["t-none"] } }), 0),
        (json!({ "filter": { "state": "failed", "queue": "other" }, "dry_run": true }), 0),
    ] {
        let mut body = change.clone();
        body["idempotency_key"] = json!(KEY);
        let answer = world.ask("bulk-retry", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{change}: {}", answer.text);
        assert_eq!(answer.json()["count"], count, "{change}");
        assert_eq!(answer.json()["task_ids"].as_array().unwrap().len(), count, "{change}");
    }
    assert_eq!(world.kept().await, before);
    assert!(world.key_is_free(KEY).await);
    assert!(world.process.order().await.is_none());
}
