use super::super::capability::Advertised;
use super::super::claim::Attempt;
use super::super::draft::{Actor, Resolved, Source};
use super::super::record::{Delivered, Sight};
use super::super::request::Asked;
use super::super::status::Status;
use super::super::{FrozenTask, Verb};
use super::*;
use crate::id::{AgentId, CommandId, ProjectId, UserId};
use crate::task::Priority;

const AGENT: &str = "ab839deb-e31a-4037-a319-116bd4acb184";

fn now() -> Timestamp {
    Timestamp::from_secs(1_776_340_800)
}

fn draft(verb: Verb, members: &str, resolved: Resolved) -> Draft {
    let asked = Asked::parse(verb, format!(r#"{{"agent_id":"{AGENT}",{members}}}"#).as_bytes()).unwrap();
    Draft::new(asked, Actor::User(UserId::NIL), Source::default(), resolved)
}

fn celery() -> Resolved {
    Resolved {
        engine: Some(Engine::Celery),
        advertised: Advertised { engines: vec!["celery".into()], said_hello: true, ..Advertised::default() },
        ..Resolved::default()
    }
}

/// The row of a form, as the ledger makes it.
fn row(form: &Form, global_throttle: bool) -> Command {
    let at = now();
    Command {
        id: CommandId::from_bytes([1; 16]),
        project: ProjectId::NIL,
        agent: AgentId::NIL,
        issued_by: Some(UserId::NIL),
        action: form.action,
        target_type: form.target_type,
        target_id: form.target_id.clone(),
        engine: form.engine,
        payload: form.payload.clone(),
        sealed: None,
        global_throttle,
        chunks: None,
        status: Status::Dispatched,
        result: Some(r#"{"x":1}"#.into()),
        error: None,
        dispatched_at: None,
        completed_at: None,
        deadline: at.plus_secs(60),
        delivered: Delivered::Unknown,
        late_status: None,
        late_result: None,
        chunk: 0,
        attempt: Attempt(1),
        session: None,
        issued_seq: 1,
        outcome_seq: None,
        progress: None,
    }
}

/// The payload that leaves for the agent.
fn sent(draft: &Draft) -> Value {
    let form = Form::of(draft, now());
    let command = row(&form, draft.request.is_global_throttle());
    let claim = Claim { command: command.id, chunk: 0, attempt: Attempt(1) };
    let body = frame_body(&command, form.secrets.as_deref(), None, claim, now()).unwrap();
    serde_json::from_slice(body.as_bytes()).unwrap()
}

#[test]
fn a_retry_has_every_member_that_agents_read() {
    let resolved =
        Resolved { task_name: Some("émail.send".into()), priority: Some(Priority::Low), had_args: true, ..celery() };
    let members = r#""engine":"celery","task_id":"9d2c","override_kwargs":{"a":1},"eta_seconds":90"#;
    let payload = sent(&draft(Verb::RetryTask, members, resolved));
    assert_eq!(
        payload,
        json!({
            "action": "retry_task",
            "target": {"type": "task", "id": "celery:9d2c", "engine": "celery"},
            "parameters": {
                "engine": "celery", "task_id": "9d2c", "task_name": "émail.send", "args": null, "kwargs": null,
                "override_args": null, "override_kwargs": {"a": 1}, "original_had_args": true,
                "eta": 1_776_340_890.0, "eta_seconds": 90, "priority": "low",
            },
            "timeout_seconds": 60,
            "issued_by": "00000000-0000-0000-0000-000000000000",
            "delivery_claim_token": "01010101-0101-0101-0101-010101010101.0.1",
        })
    );
}

#[test]
fn a_rows_priority_goes_to_celery_only() {
    for engine in ["rq", "dramatiq", "huey", "arq", "taskiq"] {
        let members = format!(r#""engine":"{engine}","task_id":"t","override_args":[],"override_kwargs":{{}}"#);
        let resolved = Resolved { priority: Some(Priority::High), ..Resolved::default() };
        assert_eq!(sent(&draft(Verb::RetryTask, &members, resolved))["parameters"]["priority"], Value::Null);
    }
}

#[test]
fn each_verb_has_its_action_target_and_parameters() {
    let cases = [
        (
            Verb::CancelTask,
            r#""engine":"celery","task_id":"t""#,
            "cancel_task",
            json!("celery:t"),
            json!({"engine": "celery", "task_id": "t"}),
        ),
        (
            Verb::RestartWorker,
            r#""worker_name":"w@h""#,
            "restart_worker",
            json!("w@h"),
            json!({"worker_name": "w@h", "engine": "celery"}),
        ),
        (
            Verb::PoolResize,
            r#""worker_name":"w@h","delta":2"#,
            "pool_grow",
            json!("w@h"),
            json!({"worker_name": "w@h", "engine": "celery", "delta": 2}),
        ),
        (
            Verb::PoolResize,
            r#""worker_name":"w@h","delta":-2"#,
            "pool_shrink",
            json!("w@h"),
            json!({"worker_name": "w@h", "engine": "celery", "delta": 2}),
        ),
        (
            Verb::AddConsumer,
            r#""worker_name":"w@h","queue":"q""#,
            "add_consumer",
            json!("w@h"),
            json!({"worker_name": "w@h", "engine": "celery", "queue": "q"}),
        ),
        (
            Verb::CancelConsumer,
            r#""worker_name":"w@h","queue":"q""#,
            "cancel_consumer",
            json!("w@h"),
            json!({"worker_name": "w@h", "engine": "celery", "queue": "q"}),
        ),
        (
            Verb::RateLimit,
            r#""task_name":"a.b","rate":"5/s","worker_name":"w@h""#,
            "rate_limit",
            json!("a.b"),
            json!({"task_name": "a.b", "rate": "5/s", "worker_name": "w@h", "engine": "celery"}),
        ),
        // A broadcast names no target, or agents would address a worker called like the task.
        (
            Verb::RateLimit,
            r#""task_name":"a.b","rate":"0""#,
            "rate_limit",
            Value::Null,
            json!({"task_name": "a.b", "rate": "0", "worker_name": null, "engine": "celery"}),
        ),
    ];
    for (verb, members, action, target, parameters) in cases {
        let payload = sent(&draft(verb, members, celery()));
        assert_eq!(payload["action"], action);
        assert_eq!((&payload["target"]["id"], &payload["target"]["engine"]), (&target, &json!("celery")), "{action}");
        assert_eq!(payload["parameters"], parameters, "{action}");
    }
}

#[test]
fn a_confirm_token_is_sent_and_never_shown() {
    let resolved = Resolved { confirm_token: Some("sesame".into()), ..celery() };
    let draft = draft(Verb::PurgeQueue, r#""queue":"q","observed_depth":3"#, resolved);
    let parameters = &sent(&draft)["parameters"];
    assert_eq!(*parameters, json!({"queue": "q", "confirm_token": "sesame", "force": false, "engine": "celery"}));
    let form = Form::of(&draft, now());
    assert!(!form.payload.contains("sesame"));
    let view = row(&form, false).view(Sight::Full, form.secrets.as_deref(), "online");
    let shown: Value = serde_json::from_str(view.payload.get()).unwrap();
    assert_eq!(shown["confirm_token"], "<redacted>");
}

#[test]
fn a_viewer_sees_neither_payload_nor_issuer_nor_result() {
    let form = Form::of(&draft(Verb::CancelTask, r#""engine":"celery","task_id":"t""#, celery()), now());
    let command = row(&form, false);
    let outline = serde_json::to_value(command.view(Sight::Outline, None, "online")).unwrap();
    assert_eq!(
        (&outline["payload"], &outline["issued_by"], &outline["result"]),
        (&json!({}), &Value::Null, &Value::Null)
    );
    let full = serde_json::to_value(command.view(Sight::Full, None, "offline")).unwrap();
    assert_eq!(full["result"], json!({"x": 1}));
    assert_eq!(full["agent_state"], "offline");
    let members: Vec<_> = full.as_object().unwrap().keys().map(String::as_str).collect();
    for member in [
        "id",
        "project_id",
        "agent_id",
        "issued_by",
        "action",
        "target_type",
        "target_id",
        "payload",
        "status",
        "result",
        "error",
        "issued_at",
        "dispatched_at",
        "completed_at",
        "timeout_at",
        "delivered",
        "late_status",
        "late_result",
        "agent_state",
        "attempt",
        "audit",
    ] {
        assert!(members.contains(&member), "{member}");
    }
}

#[test]
fn a_chunk_names_its_ids_with_names_and_priorities() {
    let chunk = Chunk {
        tasks: vec![FrozenTask::new("a", Some("x.y".into()), Some(Priority::High)), FrozenTask::new("b", None, None)],
    };
    let parameters: Value = serde_json::from_str(&chunk_parameters(Some(Engine::Celery), &chunk)).unwrap();
    assert_eq!(
        parameters,
        json!({
            "filter": {
                "engine": "celery", "task_ids": ["a", "b"], "task_names": {"a": "x.y"},
                "task_priorities": {"a": "high"},
            },
            "max": 2,
        })
    );
}

#[test]
fn an_overlay_keeps_numbers_as_written() {
    let merged = overlay(r#"{"a":1,"b":null}"#, r#"{"b":[1180591620717411303424,1e-05]}"#);
    assert_eq!(merged, r#"{"a":1,"b":[1180591620717411303424,1e-05]}"#);
}
