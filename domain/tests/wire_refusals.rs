//! What a receiver refuses, in which order it looks, and what it forgives.

use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use domain::wire::canonical::canonical;
use domain::wire::client::{AgentSide, BrainFrame, Payload, hello_text};
use domain::wire::{
    CloseCode, CommandBody, Frame, FrameError, Hello, HelloAck, Outbound, Receiver, ResultStatus, Sender, SessionKey,
};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const SECRET: &[u8] = &[7; 32];
const AGENT: AgentId = AgentId::from_bytes([1; 16]);
const PROJECT: ProjectId = ProjectId::from_bytes([2; 16]);
const SESSION: &str = "sess\"ion";
const NOW: Timestamp = Timestamp::from_secs(1_776_340_800);

fn key() -> SessionKey {
    SessionKey::new(SECRET, AGENT, PROJECT, SESSION)
}

/// A sound heartbeat, to be spoilt.
fn frame(kind: &str, payload: Value) -> Value {
    json!({"v": 2, "type": kind, "id": "x_1", "ts": "2026-04-16T12:00:00Z", "nonce": "n1", "seq": 1, "payload": payload})
}

/// Signs whatever it is given, independently of the code under test but for the canonical form.
fn signed(mut frame: Value) -> String {
    let mut overlaid = frame.clone();
    overlaid["agent_id"] = json!(AGENT.to_string());
    overlaid["project_id"] = json!(PROJECT.to_string());
    overlaid["session_id"] = json!(SESSION);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).expect("any length");
    mac.update(&canonical(overlaid.to_string().as_bytes()).expect("signable"));
    frame["hmac"] = json!(hex::encode(mac.finalize().into_bytes()));
    frame.to_string()
}

fn refusal(wire: &str) -> Option<FrameError> {
    Receiver::new(key()).accept(wire.as_bytes(), NOW).err()
}

fn with(member: &str, value: Value) -> Value {
    let mut frame = frame("heartbeat", json!({}));
    frame[member] = value;
    frame
}

fn without(member: &str) -> Value {
    let mut frame = frame("heartbeat", json!({}));
    frame.as_object_mut().expect("an object").remove(member);
    frame
}

#[test]
fn a_sound_frame_is_accepted_with_members_nobody_knows() {
    assert_eq!(refusal(&signed(with("extra", json!({"b": 1.0, "a": [1e-7]})))), None);
    assert_eq!(refusal(&signed(with("agent_id", json!("what the wire says is overlaid")))), None);
}

#[test]
fn each_fault_has_its_refusal_and_close_code() {
    use CloseCode::{Forbidden, Internal, Malformed};
    let loss = |loss: Value| signed(frame("heartbeat", json!({"telemetry_loss": loss})));
    let flipped = signed(frame("heartbeat", json!({"a": 1}))).replace("\"a\":1", "\"a\":2");
    let upper = {
        let wire = signed(frame("heartbeat", json!({})));
        let at = wire.find("\"hmac\":\"").expect("signed") + 8;
        format!("{}{}{}", &wire[..at], wire[at..at + 64].to_uppercase(), &wire[at + 64..])
    };
    for (wire, expected, code) in [
        (signed(with("v", json!(1))), FrameError::Version, Internal),
        (signed(with("v", json!("2"))), FrameError::Member("v"), Malformed),
        (signed(with("v", json!(2.0))), FrameError::Member("v"), Malformed),
        (signed(without("v")), FrameError::Member("v"), Malformed),
        (signed(frame("gossip", json!({}))), FrameError::UnknownType, Internal),
        (signed(with("type", json!(7))), FrameError::Member("type"), Malformed),
        (signed(without("type")), FrameError::Member("type"), Malformed),
        (signed(with("payload", json!([]))), FrameError::Payload, Internal),
        (signed(with("payload", Value::Null)), FrameError::Payload, Internal),
        (signed(without("payload")), FrameError::Payload, Internal),
        (with("x", json!(1)).to_string(), FrameError::Signature, Forbidden),
        (with("hmac", json!(7)).to_string(), FrameError::Signature, Forbidden),
        (with("hmac", json!("ab")).to_string(), FrameError::Signature, Forbidden),
        (flipped, FrameError::Signature, Forbidden),
        (upper, FrameError::Signature, Forbidden),
        (signed(frame("command_result", json!({"status": "done"}))), FrameError::ResultStatus, Internal),
        (signed(frame("command_result", json!({}))), FrameError::ResultStatus, Internal),
        (loss(json!([])), FrameError::TelemetryLoss, Malformed),
        (loss(json!({"buffer_id": "", "runtime_id": "r"})), FrameError::TelemetryLoss, Malformed),
        (loss(json!({"buffer_id": "b"})), FrameError::TelemetryLoss, Malformed),
        (loss(json!({"buffer_id": "b", "runtime_id": "r", "other_frames": -1})), FrameError::TelemetryLoss, Malformed),
        (
            loss(json!({"buffer_id": "b", "runtime_id": "r", "adapter_events": {"celery": 1_u64 << 53}})),
            FrameError::TelemetryLoss,
            Malformed,
        ),
        (signed(frame("agent_status", json!({"telemetry_loss": 1}))), FrameError::TelemetryLoss, Malformed),
        (signed(with("seq", json!(0))), FrameError::Sequence, Forbidden),
        (signed(with("seq", json!("1"))), FrameError::Sequence, Forbidden),
        (signed(with("seq", json!(1.0))), FrameError::Sequence, Forbidden),
        (signed(without("seq")), FrameError::Sequence, Forbidden),
        (signed(with("nonce", json!(""))), FrameError::Nonce, Forbidden),
        (signed(with("nonce", json!("n".repeat(33)))), FrameError::Nonce, Forbidden),
        (signed(without("nonce")), FrameError::Nonce, Forbidden),
        (signed(with("ts", Value::Null)), FrameError::Skew, Forbidden),
        (signed(with("ts", json!("2026-04-16T12:00:00"))), FrameError::Skew, Forbidden),
        (signed(with("ts", json!("2026-04-16T12:01:01Z"))), FrameError::Skew, Forbidden),
        (
            signed(frame("event_batch", json!({}))).replace("\"id\":\"x_1\"", "\"id\":\"x_2\""),
            FrameError::Signature,
            Forbidden,
        ),
    ] {
        assert_eq!(refusal(&wire), Some(expected), "{wire}");
        assert_eq!(expected.close_code(), code, "{wire}");
    }
}

#[test]
fn what_is_no_json_object_is_malformed() {
    let deep = format!("{{\"payload\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let large = format!("{{\"v\":2,\"pad\":\"{}\"}}", "x".repeat(1 << 20));
    for wire in
        ["", "[]", "7", "{", "{\"v\":NaN}", "{\"v\":2,\"x\":\"\\ud800\"}", "{\"v\":2,\"x\":1e999}", &deep, &large]
    {
        let refused = refusal(wire).expect(wire);
        assert_eq!(refused.close_code(), CloseCode::Malformed, "{refused}");
    }
    let refused = Receiver::new(key()).accept(b"{\"v\":\"\xff\"}", NOW).err();
    assert_eq!(refused.map(FrameError::close_code), Some(CloseCode::Malformed));
}

#[test]
fn earlier_checks_answer_first() {
    let mut worst = frame("gossip", json!([]));
    worst["v"] = json!(1);
    assert_eq!(refusal(&worst.to_string()), Some(FrameError::Version));
    worst["v"] = json!(2);
    assert_eq!(refusal(&worst.to_string()), Some(FrameError::UnknownType));
    worst["type"] = json!("command_result");
    assert_eq!(refusal(&worst.to_string()), Some(FrameError::Payload));
    worst["payload"] = json!({"status": "done"});
    worst["seq"] = json!(0);
    assert_eq!(refusal(&worst.to_string()), Some(FrameError::Signature));
    assert_eq!(refusal(&signed(worst.clone())), Some(FrameError::ResultStatus));
    worst["payload"] = json!({"status": "failed"});
    assert_eq!(refusal(&signed(worst)), Some(FrameError::Sequence));
}

#[test]
fn a_frame_is_accepted_once() {
    let mut receiver = Receiver::new(key());
    let wire = signed(frame("heartbeat", json!({})));
    assert!(receiver.accept(wire.as_bytes(), NOW).is_ok());
    assert_eq!(receiver.accept(wire.as_bytes(), NOW).err(), Some(FrameError::Sequence));
    let same_nonce = signed(with("seq", json!(2)));
    assert_eq!(receiver.accept(same_nonce.as_bytes(), NOW).err(), Some(FrameError::Nonce));
    let other_session = SessionKey::new(SECRET, AGENT, PROJECT, "another");
    assert_eq!(Receiver::new(other_session).accept(wire.as_bytes(), NOW).err(), Some(FrameError::Signature));
}

#[test]
fn length_limits_are_not_checked_again_after_a_good_signature() {
    assert_eq!(refusal(&signed(with("id", json!("h".repeat(71))))), None);
}

#[test]
fn hello_in_mid_session_and_types_of_the_brain_are_ignored() {
    let hello = r#"{"v":2,"id":"h","ts":null,"type":"hello","payload":{}}"#;
    assert!(matches!(Receiver::new(key()).accept(hello.as_bytes(), NOW), Ok(Frame::Hello)));
    for kind in ["command", "event_batch_ack"] {
        let wire = signed(frame(kind, json!({})));
        assert!(matches!(Receiver::new(key()).accept(wire.as_bytes(), NOW), Ok(Frame::Ignored)), "{kind}");
    }
    let delta = signed(frame("registry_delta", json!({"engine": "celery", "added": ["a"]})));
    match Receiver::new(key()).accept(delta.as_bytes(), NOW) {
        Ok(Frame::RegistryDelta(delta)) => assert_eq!(delta.engine.as_deref(), Some("celery")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_item_never_ends_the_session() {
    let good = json!({"id": "e", "kind": "task.received", "engine": "celery", "task_id": "t", "occurred_at": "now", "data": {"b": 1, "a": [2]}});
    let odd = json!({"id": 7, "kind": null, "engine": ["celery"], "task_id": {"a": {}}, "occurred_at": false, "data": "text"});
    let items = json!([good, 5, "text", [1, [2]], null, true, 1.5, {}, odd]);
    for (payload, events, malformed) in [
        (json!({"events": items, "more": {"x": [1]}}), 3, 6),
        (json!({"events": []}), 0, 0),
        (json!({"events": {}}), 0, 1),
        (json!({"events": "x"}), 0, 1),
        (json!({}), 0, 1),
    ] {
        let wire = signed(frame("event_batch", payload));
        let mut receiver = Receiver::new(key());
        let Ok(Frame::EventBatch(batch)) = receiver.accept(wire.as_bytes(), NOW) else { panic!("{wire}") };
        assert_eq!((batch.events.len(), batch.malformed, batch.received()), (events, malformed, events + malformed));
        if events == 3 {
            assert_eq!(batch.events[0].kind.as_deref(), Some("task.received"));
            assert_eq!(batch.events[0].data.map(RawValue::get), Some(good["data"].to_string().as_str()));
            let odd = &batch.events[2];
            assert!(odd.id.is_none() && odd.kind.is_none() && odd.engine.is_none() && odd.task_id.is_none());
            assert!(odd.occurred_at.is_none() && odd.data.is_some());
        }
    }
}

#[test]
fn members_of_the_wrong_type_are_absent() {
    let payload = json!({"buffer_size": "many", "dropped_events": 3, "last_flush_at": 7, "telemetry_loss": null,
        "adapter_health": {"celery.broker_type": "redis", "celery.odd": 7, "esc\n": "a\"b"}});
    let wire = signed(frame("heartbeat", payload));
    let Ok(Frame::Heartbeat(heartbeat)) = Receiver::new(key()).accept(wire.as_bytes(), NOW) else { panic!("{wire}") };
    assert_eq!((heartbeat.buffer_size, heartbeat.dropped_events, heartbeat.telemetry_loss), (None, Some(3), None));
    let health: Vec<(&str, &str)> = heartbeat.adapter_health.iter().map(|(key, text)| (&**key, &**text)).collect();
    assert_eq!(health, [("celery.broker_type", "redis"), ("esc\n", "a\"b")]);

    let wire = signed(frame(
        "command_result",
        json!({"status": "failed", "result": null, "error": 7, "delivery_claim_token": "c"}),
    ));
    let Ok(Frame::CommandResult(result)) = Receiver::new(key()).accept(wire.as_bytes(), NOW) else { panic!("{wire}") };
    assert_eq!(
        (result.status, result.error.as_deref(), result.claim.as_deref()),
        (ResultStatus::Failed, None, Some("c"))
    );
    assert!(result.result.is_none());
}

fn hello() -> Hello {
    let text = include_str!("fixtures/frames/hello.jsonl").lines().next().expect("a line");
    let capture: Value = serde_json::from_str(text).expect("valid JSON");
    Hello::parse(capture["raw"].as_str().expect("text").as_bytes()).expect("a hello")
}

#[test]
fn a_hello_is_checked_against_its_limits() {
    assert_eq!(Hello::parse(hello_text("h", &hello()).as_bytes()), Ok(hello()));
    let spoilt = |member: &str, value: Value| {
        let mut frame: Value = serde_json::from_str(&hello_text("h", &hello())).expect("valid JSON");
        frame["payload"][member] = value;
        Hello::parse(frame.to_string().as_bytes()).map(|_| ()).map_err(FrameError::close_code)
    };
    let names = |count| json!(vec!["x"; count]);
    for (member, value, expected) in [
        ("protocol_version", json!("1"), Err(CloseCode::ProtocolUnsupported)),
        ("protocol_version", json!(2), Err(CloseCode::Malformed)),
        ("protocol_version", json!("2".repeat(41)), Err(CloseCode::Malformed)),
        ("agent_version", json!("v".repeat(40)), Ok(())),
        ("agent_version", json!("v".repeat(41)), Err(CloseCode::Malformed)),
        ("framework", json!("f".repeat(41)), Err(CloseCode::Malformed)),
        ("engines", names(64), Ok(())),
        ("engines", names(65), Err(CloseCode::Malformed)),
        ("engines", json!("celery"), Err(CloseCode::Malformed)),
        ("schedulers", names(65), Err(CloseCode::Malformed)),
        ("runtime_features", names(65), Err(CloseCode::Malformed)),
        ("capabilities", json!({"celery": "all"}), Err(CloseCode::Malformed)),
        ("host", json!([]), Err(CloseCode::Malformed)),
        ("worker_id", json!("é".repeat(128)), Ok(())),
        ("worker_id", json!("w".repeat(129)), Err(CloseCode::Malformed)),
        ("worker_id", Value::Null, Ok(())),
        ("worker_role", json!("r".repeat(33)), Err(CloseCode::Malformed)),
        ("worker_pid", json!("1"), Err(CloseCode::Malformed)),
        ("unheard_of", json!(1), Ok(())),
    ] {
        assert_eq!(spoilt(member, value.clone()), expected, "{member} {value}");
    }
    for wire in ["", "[]", "{}", r#"{"v":2,"type":"heartbeat","payload":{}}"#, r#"{"v":1,"type":"hello","payload":{}}"#]
    {
        assert_eq!(
            Hello::parse(wire.as_bytes()).err().map(FrameError::close_code),
            Some(CloseCode::Malformed),
            "{wire}"
        );
    }
}

#[test]
fn what_the_brain_seals_the_agent_accepts() {
    let (mut sender, mut agent) = (Sender::new(key()), AgentSide::new(key()));
    let raw = |json: &'static str| serde_json::from_str::<&RawValue>(json).expect("valid JSON");
    let parameters = raw(r#"{"override_args":[1.0,0.00001,1e16,100000000000000000000],"z":"\u00e9","eta":null}"#);
    let body = CommandBody::new(
        "retry_task",
        raw(r#"{"type":"task","id":"celery:é"}"#),
        parameters,
        60,
        Some("user"),
        Some("c.0.1"),
    )
    .expect("signable");
    let long = "l".repeat(70);
    let said = [
        Outbound::EventBatchAck { acked_id: "ev_\"1", received: 3, accepted: 1 },
        Outbound::EventBatchAck { acked_id: &long, received: 1, accepted: 1 },
        Outbound::Command { id: "c1", body: &body },
        Outbound::Error { id: "e1", code: "agent_incompatible", message: "line\nbreak", fatal: true },
    ];
    for (place, body) in said.iter().enumerate() {
        let wire = sender.seal(body, NOW.plus_micros(place as i64));
        let text: Value = serde_json::from_slice(&wire).expect("valid JSON");
        assert_eq!(canonical(&wire).as_deref(), Ok(&wire[..]), "brain frames are canonical");
        assert_eq!((text["seq"].as_u64(), text["nonce"].as_str().map(str::len)), (Some(place as u64 + 1), Some(22)));
        assert!(text["id"].as_str().is_some_and(|id| (1..=64).contains(&id.len())));
        match (place, agent.accept(&wire, NOW).expect("accepted")) {
            (0, BrainFrame::EventBatchAck { acked_id, received: 3, accepted: 1, rejected: 2 }) => {
                assert_eq!(acked_id, "ev_\"1");
            }
            (1, BrainFrame::EventBatchAck { acked_id, .. }) => assert_eq!(acked_id, long),
            (2, BrainFrame::Command(command)) => {
                assert_eq!((&*command.id, command.action.as_str(), command.timeout_seconds), ("c1", "retry_task", 60));
                assert_eq!((command.issued_by.as_deref(), command.claim.as_deref()), (Some("user"), Some("c.0.1")));
                assert!(command.parameters.get().contains("[1.0,1e-05,1e+16,100000000000000000000]"));
            }
            (3, BrainFrame::Error { code, message, fatal: true }) => {
                assert_eq!((code.as_str(), message.as_str()), ("agent_incompatible", "line\nbreak"));
            }
            (place, other) => panic!("{place} read as {other:?}"),
        }
    }
    assert!(CommandBody::new("a", raw("{}"), raw("{\"a\":1e999}"), 60, None, None).is_err());
}

#[test]
fn what_the_agent_seals_the_brain_accepts() {
    let (mut agent, mut receiver) = (AgentSide::new(key()), Receiver::new(key()));
    let empty = Payload::new("{}").expect("signable");
    let mut next = |seal: &mut dyn FnMut(&mut AgentSide, &mut Vec<u8>)| {
        let mut wire = Vec::new();
        seal(&mut agent, &mut wire);
        format!("{:?}", receiver.accept(&wire, NOW).expect("accepted"))
    };
    assert!(next(&mut |agent, out| agent.heartbeat(out, "hb", &empty, NOW)).starts_with("Heartbeat"));
    assert!(next(&mut |agent, out| agent.agent_status(out, "as", &empty, NOW)).starts_with("AgentStatus"));
    let ack = next(&mut |agent, out| agent.command_ack(out, "c1", Some("c.0.1"), NOW));
    assert_eq!(ack, r#"CommandAck(CommandAck { id: "c1", claim: Some("c.0.1") })"#);
    let result = next(&mut |agent, out| agent.command_result(out, "c1", Some(&json!({"ok": 1.5})), None, None, NOW));
    assert!(result.contains("Success") && result.contains("1.5"), "{result}");
    let failed = next(&mut |agent, out| agent.command_result(out, "c1", None, Some("why"), None, NOW));
    assert!(failed.contains("Failed") && failed.contains("why"), "{failed}");
}

#[test]
fn a_handshake_ends_in_one_key() {
    let ack = HelloAck {
        agent: AGENT,
        project: PROJECT,
        session: domain::id::SessionId::from_bytes([3; 16]),
        brain_version: "0.1.0".to_owned(),
        heartbeat_interval_seconds: 10,
        max_frame_size_bytes: 1 << 20,
    };
    let read = HelloAck::parse(ack.to_text(NOW).as_bytes()).expect("a hello_ack");
    assert_eq!(read, ack);
    let mut agent = AgentSide::opened(SECRET, &read);
    let mut wire = Vec::new();
    agent.heartbeat(&mut wire, "hb", &Payload::new("{}").expect("signable"), NOW);
    let brain = SessionKey::new(SECRET, ack.agent, ack.project, &ack.session.to_string());
    assert!(Receiver::new(brain).accept(&wire, NOW).is_ok());
}

proptest! {
    #[test]
    fn any_event_survives_the_way(id in "[a-z_0-9]{1,40}", member in "\\PC{0,20}", number in any::<i32>(), text in any::<String>()) {
        let data = json!({member: [number, f64::from(number) / 8.0, text]});
        let payload = json!({"events": [{"id": id, "kind": "task.received", "engine": "rq", "task_id": "t", "data": data}]});
        let mut wire = Vec::new();
        AgentSide::new(key()).event_batch(&mut wire, &id, &Payload::new(payload.to_string()).expect("signable"), NOW);
        let mut receiver = Receiver::new(key());
        let Ok(Frame::EventBatch(batch)) = receiver.accept(&wire, NOW) else { panic!("refused") };
        prop_assert_eq!(&*batch.id, &id);
        prop_assert_eq!(batch.events[0].data.map(|data| data.get().to_owned()), Some(data.to_string()));
    }

    #[test]
    fn a_changed_byte_is_never_accepted_as_something_else(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let payload = json!({"events": [{"id": "e", "kind": "task.failed", "data": {"n": 0.5, "s": "text \u{e9}"}}]});
        let mut wire = Vec::new();
        AgentSide::new(key()).event_batch(&mut wire, "ev_1", &Payload::new(payload.to_string()).expect("signable"), NOW);
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        prop_assert!(Receiver::new(key()).accept(&wire, NOW).is_err());
    }
}
