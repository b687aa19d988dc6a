//! Workers, queues, processes and agents' health.

use axum::http::StatusCode;
use cql::accounts::{Agent, agent};
use cql::fleet::process::{self, ProcessHealth};
use cql::fleet::{ProcessRow, QueueRow, WorkerRow, queue, worker};
use domain::engine::Engine;
use domain::id::{AgentId, NodeId, SessionId};
use serde_json::json;

use super::tasks::World;

const PATH: &str = "/api/v1/projects/own";

/// An agent with one process that is gone, one worker, and a queue that it can measure.
async fn fleet(world: &World) -> AgentId {
    let (now, project) = (world.node.app.clock.now(), world.project.id);
    let id = AgentId::mint(now);
    let minted = Agent {
        id,
        project,
        name: "a".to_owned(),
        token_hash: [7; 32],
        created_at: now,
        created_by: None,
        revoked_at: None,
    };
    agent::create(world.node.app.store.as_ref(), &minted).await.unwrap();
    let process = ProcessRow {
        id: process::id(id, Some("p1")),
        agent: id,
        worker_id: Some("p1".to_owned()),
        role: Some("worker".to_owned()),
        framework: "bare".to_owned(),
        pid: Some(7),
        started_at: Some(now),
        host_name: Some("vm".to_owned()),
        agent_version: "1.13.0".to_owned(),
        protocol_version: "2".to_owned(),
        engines: vec!["celery".to_owned()],
        schedulers: Vec::new(),
        capabilities: Default::default(),
        runtime_features: Vec::new(),
        node: NodeId::NIL,
        session: SessionId::mint(now),
        online: false,
        last_seen_at: now,
        last_connect_at: now,
        created_at: now,
        updated_at: now,
        health: ProcessHealth {
            buffer_size: Some(3),
            dropped_events: Some(2),
            telemetry_loss: Some(r#"{"lost":1}"#.to_owned()),
            clock_offset_ms: Some(-40),
            ..ProcessHealth::default()
        },
    };
    let engine = Engine::Celery;
    let worker_row = WorkerRow {
        id: worker::id(project, engine, "w1@vm"),
        engine,
        name: "w1@vm".to_owned(),
        agent: id,
        hostname: Some("vm".to_owned()),
        pid: Some(8),
        concurrency: Some(4),
        queues: vec!["default".to_owned()],
        load_average: Some(vec![0.5, 0.25, 0.125]),
        active_tasks: Some(1),
        metadata: Some(r#"{"stats":{"pid":8}}"#.to_owned()),
        last_heartbeat: now,
        last_detailed: Some(now),
        process: None,
        created_at: now,
    };
    let queue_row = QueueRow {
        id: queue::id(project, engine, "mail/high"),
        engine,
        name: "mail/high".to_owned(),
        agent: id,
        broker_type: None,
        depth: Some(5),
        measured_at: Some(now),
        last_seen_at: now,
        created_at: now,
    };
    let unmeasured = QueueRow { name: "other".to_owned(), depth: None, measured_at: None, ..queue_row.clone() };
    let rows = vec![
        process::put(project, &process),
        worker::put(project, &worker_row),
        queue::put(project, &queue_row),
        queue::put(project, &unmeasured),
    ];
    world.node.app.store.write(rows).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn a_worker_stands_alone_and_beside_its_agent() {
    let world = World::make().await;
    let id = fleet(&world).await;
    let listed = world.get(&format!("{PATH}/workers")).await.json();
    insta::assert_json_snapshot!("workers", listed, {
        "[].id" => "[id]", "[].project_id" => "[id]", "[].agent_ids" => "[ids]",
    });
    let detail = world.get(&format!("{PATH}/workers/{}", listed[0]["id"].as_str().unwrap())).await.json();
    assert_eq!((&detail["metadata"], &detail["agent_id"]), (&json!({ "stats": { "pid": 8 } }), &json!(id)));
    let beside = world.get(&format!("{PATH}/agents/{id}/workers")).await.json();
    assert_eq!((&beside[0]["agent_id"], &beside[0]["worker_name"]), (&json!(id), &json!("w1@vm")));
    assert_eq!(beside[0]["id"], listed[0]["id"]);
    tokio::time::advance(std::time::Duration::from_secs(50)).await;
    assert_eq!(world.get(&format!("{PATH}/workers")).await.json()[0]["state"], "offline");
}

#[tokio::test(start_paused = true)]
async fn a_purge_token_is_that_of_the_measured_depth() {
    let world = World::make().await;
    let id = fleet(&world).await;
    let ask = async |rest: &str| world.node.get(&format!("{PATH}/queues/{rest}"), &world.admin).await;
    let answer = ask(&format!("mail%2Fhigh/purge-token?agent_id={id}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let token = world.node.app.master.project_secret(world.project.id).purge_token("mail/high", 5);
    assert_eq!(answer.json()["confirm_token"], json!(token));
    assert_eq!((&answer.json()["observed_depth"], &answer.json()["queue"]), (&json!(5), &json!("mail/high")));
    let unknown = AgentId::mint(world.node.app.clock.now());
    for (rest, status) in [
        ("mail%2Fhigh/purge-token".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
        (format!("mail%2Fhigh/purge-token?agent_id={unknown}"), StatusCode::NOT_FOUND),
        (format!("mail%2Fhigh/purge-token?agent_id={id}&engine=rq"), StatusCode::UNPROCESSABLE_ENTITY),
        (format!("other/purge-token?agent_id={id}"), StatusCode::CONFLICT),
        (format!("never/purge-token?agent_id={id}"), StatusCode::CONFLICT),
    ] {
        assert_eq!(ask(&rest).await.status, status, "{rest}");
    }
    let viewer = world.get(&format!("{PATH}/queues/other/purge-token?agent_id={id}")).await;
    assert_eq!(viewer.status, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn an_agents_health_is_what_its_processes_told() {
    let world = World::make().await;
    let id = fleet(&world).await;
    let health = world.get(&format!("{PATH}/agents/{id}/health")).await.json();
    insta::assert_json_snapshot!("agent_health", health);
    let processes = world.get(&format!("{PATH}/agent-workers")).await.json();
    assert_eq!((&processes[0]["worker_id"], &processes[0]["state"]), (&json!("p1"), &json!("offline")));
    assert_eq!(world.get(&format!("{PATH}/agent-workers?state=online")).await.json(), json!([]));
    let refused = world.get(&format!("{PATH}/agent-workers?state=away")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(start_paused = true)]
async fn another_projects_fleet_is_not_found() {
    let world = World::make().await;
    let id = fleet(&world).await;
    let other = world.node.project("other").await;
    let root = world.node.user("root@example.org", true).await;
    let root = world.node.session(&root).await;
    let worker = worker::id(world.project.id, Engine::Celery, "w1@vm");
    assert_ne!(other.id, world.project.id);
    for rest in [format!("agents/{id}/workers"), format!("agents/{id}/health"), format!("workers/{worker}")] {
        let answer = world.node.get(&format!("/api/v1/projects/other/{rest}"), &root).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{rest}");
    }
    for rest in ["workers", "queues", "agents", "agent-workers"] {
        let answer = world.node.get(&format!("/api/v1/projects/other/{rest}"), &root).await;
        assert_eq!(answer.json(), json!([]), "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_configuration_of_workers_is_judged() {
    let world = World::make().await;
    let agent = fleet(&world).await;
    let (now, project, engine) = (world.node.app.clock.now(), world.project.id, Engine::Celery);
    for (name, conf) in [
        ("w1@vm", json!({"accept_content": ["pickle"], "task_acks_late": true})),
        ("w2@vm", json!({"accept_content": ["json"], "task_acks_late": false})),
    ] {
        let row = WorkerRow {
            id: worker::id(project, engine, name),
            engine,
            name: name.to_owned(),
            agent,
            hostname: None,
            pid: None,
            concurrency: None,
            queues: vec!["default".to_owned()],
            load_average: None,
            active_tasks: None,
            metadata: Some(json!({ "conf": conf }).to_string()),
            last_heartbeat: now,
            last_detailed: Some(now),
            process: None,
            created_at: now,
        };
        world.node.app.store.write(vec![worker::put(project, &row)]).await.unwrap();
    }
    let answer = world.get(&format!("{PATH}/workers/lint")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let body = answer.json();
    assert_eq!((&body["workers"], &body["judged"]), (&json!(2), &json!(2)));
    let found: Vec<_> = body["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (finding["rule"].as_str().unwrap(), finding["severity"].as_str().unwrap(), finding["worker_name"].as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("pickle_accepted", "error", Some("w1@vm")),
            ("queue_without_worker", "error", None),
            ("workers_differ", "warning", None),
            ("lost_with_its_worker", "info", Some("w2@vm")),
        ]
    );
    assert_eq!(body["findings"][1]["queue"], "mail/high");
    assert_eq!(body["findings"][2]["setting"], "task_acks_late");
}
