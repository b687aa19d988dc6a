//! The protocol's test vectors, and every frame captured from real agents and a live brain.

use domain::id::{AgentId, ProjectId, SessionId};
use domain::secret::ProjectSecret;
use domain::time::Timestamp;
use domain::wire::canonical::{Canonicaliser, Refusal};
use domain::wire::client::{AgentSide, BrainFrame};
use domain::wire::{Frame, FrameError, Hello, HelloAck, Receiver, SessionKey};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("fixtures/vectors.json")).expect("valid JSON")
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} is a text"))
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().unwrap_or_else(|| panic!("{member} is a list"))
}

#[test]
fn numbers_are_canonical() {
    let mut canonicaliser = Canonicaliser::new();
    for vector in list(&vectors(), "number_canonicalisation") {
        let token = text(vector, "json_token");
        let rendered = canonicaliser.canonical(token.as_bytes());
        match text(vector, "canonical") {
            expected if expected.bytes().next().is_some_and(|byte| byte == b'-' || byte.is_ascii_digit()) => {
                assert_eq!(rendered, Ok(expected.as_bytes()), "{token}");
            }
            _ => assert_eq!(rendered, Err(Refusal::NotFinite { at: 0 }), "{token}"),
        }
    }
}

#[test]
fn strings_are_canonical() {
    let mut canonicaliser = Canonicaliser::new();
    for vector in list(&vectors(), "string_canonicalisation") {
        let mut json = String::from("\"");
        for point in list(vector, "code_points") {
            let point = u32::from_str_radix(&point.as_str().expect("text")[2..], 16).expect("hexadecimal");
            let mut units = [0; 2];
            match char::from_u32(point) {
                Some(character) => character.encode_utf16(&mut units).iter().for_each(|unit| escape(&mut json, *unit)),
                None => escape(&mut json, point as u16),
            }
        }
        json.push('"');
        let rendered = canonicaliser.canonical(json.as_bytes());
        match hex::decode(text(vector, "canonical_hex")) {
            Ok(expected) => assert_eq!(rendered, Ok(expected.as_slice()), "{json}"),
            Err(_) => assert_eq!(rendered, Err(Refusal::Surrogate { at: 1 }), "{json}"),
        }
    }
}

fn escape(json: &mut String, unit: u16) {
    json.push_str(&format!("\\u{unit:04X}"));
}

/// The identity that signed a frame, and the time to verify it at.
struct Signed<'a> {
    secret: Vec<u8>,
    agent: AgentId,
    project: ProjectId,
    session: &'a str,
    raw: &'a str,
    now: Timestamp,
}

impl<'a> Signed<'a> {
    fn new(secret: Vec<u8>, identity: &'a Value, raw: &'a str) -> Self {
        let frame: Value = serde_json::from_str(raw).expect("valid JSON");
        Self {
            secret,
            agent: text(identity, "agent_id").parse().expect("an id"),
            project: text(identity, "project_id").parse().expect("an id"),
            session: text(identity, "session_id"),
            raw,
            now: Timestamp::parse(text(&frame, "ts")).expect("aware"),
        }
    }

    fn key(&self) -> SessionKey {
        SessionKey::new(&self.secret, self.agent, self.project, self.session)
    }

    fn received(&self) -> Frame<'a> {
        Receiver::new(self.key()).accept(self.raw.as_bytes(), self.now).expect(self.raw)
    }

    fn refuses_every_flipped_digit(&self) {
        let at = self.raw.find("\"hmac\":\"").expect("signed") + 8;
        for digit in at..at + 64 {
            let mut wire = self.raw.as_bytes().to_vec();
            wire[digit] = if wire[digit] == b'0' { b'1' } else { b'0' };
            let refused = Receiver::new(self.key()).accept(&wire, self.now).err();
            assert_eq!(refused, Some(FrameError::Signature));
        }
    }
}

#[test]
fn every_vector_verifies() {
    let vectors = vectors();
    for vector in list(&vectors, "frames") {
        let secret = hex::decode(text(vector, "secret_hex")).expect("hexadecimal");
        let signed = Signed::new(secret, vector, text(vector, "wire_frame_text"));
        signed.received();
        AgentSide::new(signed.key()).accept(signed.raw.as_bytes(), signed.now).expect(signed.raw);
        signed.refuses_every_flipped_digit();
        let canonical = text(vector, "canonical_utf8").as_bytes();
        assert_eq!(Canonicaliser::new().canonical(canonical), Ok(canonical), "canonical text is a fixed point");
    }
}

const CAPTURES: [(&str, &str); 8] = [
    ("agent_status", include_str!("fixtures/frames/agent_status.jsonl")),
    ("command", include_str!("fixtures/frames/command.jsonl")),
    ("command_ack", include_str!("fixtures/frames/command_ack.jsonl")),
    ("command_result", include_str!("fixtures/frames/command_result.jsonl")),
    ("error", include_str!("fixtures/frames/error.jsonl")),
    ("event_batch", include_str!("fixtures/frames/event_batch.jsonl")),
    ("event_batch_ack", include_str!("fixtures/frames/event_batch_ack.jsonl")),
    ("heartbeat", include_str!("fixtures/frames/heartbeat.jsonl")),
];

#[test]
fn every_captured_frame_verifies() {
    let mut verified = 0;
    for (kind, lines) in CAPTURES {
        for line in lines.lines() {
            let capture: Value = serde_json::from_str(line).expect("valid JSON");
            let session = &capture["session"];
            let secret = ProjectSecret::decode_text(text(session, "secret_b64url")).expect("a secret");
            let signed = Signed::new(secret.to_vec(), session, text(&capture, "raw"));
            signed.refuses_every_flipped_digit();
            verified += 1;
            match (kind, signed.received()) {
                ("event_batch", Frame::EventBatch(batch)) => {
                    assert_eq!((batch.events.len(), batch.malformed), (1, 0));
                    let event = &batch.events[0];
                    assert_eq!(event.kind.as_deref(), capture["kind"].as_str());
                    assert_eq!(event.engine.as_deref(), capture["engine"].as_str());
                    assert!(event.id.is_some() && event.task_id.is_some() && event.occurred_at.is_some());
                    assert!(event.data.is_some_and(|data| data.get().starts_with('{')));
                }
                ("heartbeat", Frame::Heartbeat(heartbeat)) => {
                    assert!(heartbeat.adapter_health.iter().any(|(key, _)| key.ends_with(".broker_type")));
                    assert_eq!(heartbeat.dropped_events, Some(0));
                }
                ("agent_status", Frame::AgentStatus(status)) => assert!(status.payload.get().contains("buffer_depth")),
                ("command_ack", Frame::CommandAck(ack)) => assert_eq!(ack.claim, None),
                ("command_result", Frame::CommandResult(result)) => {
                    let success = result.status == domain::wire::ResultStatus::Success;
                    assert_eq!(success, text(&capture, "status") == "success");
                    assert_eq!(result.error.is_none(), success);
                }
                ("error", Frame::Error(error)) => assert!(!error.fatal && error.code.as_deref() == Some("whatever")),
                ("command" | "event_batch_ack", Frame::Ignored) => {
                    let mut agent = AgentSide::new(signed.key());
                    match (kind, agent.accept(signed.raw.as_bytes(), signed.now).expect(signed.raw)) {
                        ("command", BrainFrame::Command(command)) => {
                            assert_eq!(command.action, text(&capture, "action"));
                        }
                        ("event_batch_ack", BrainFrame::EventBatchAck { acked_id, .. }) => {
                            assert_eq!(acked_id, "ev_ca20744a9409d5ac036f5c792dc11911");
                        }
                        (kind, other) => panic!("{kind} read as {other:?}"),
                    }
                }
                (kind, other) => panic!("{kind} read as {other:?}"),
            }
        }
    }
    assert_eq!(verified, 136);
}

#[test]
fn captured_handshakes_are_read() {
    for line in include_str!("fixtures/frames/hello.jsonl").lines() {
        let capture: Value = serde_json::from_str(line).expect("valid JSON");
        let hello = Hello::parse(text(&capture, "raw").as_bytes()).expect("a hello");
        assert_eq!(hello.agent_version, "1.13.0");
        assert_eq!(hello.engines.len(), 1);
        assert!(hello.lists(&hello.engines[0], "submit_task"));
        assert!(hello.worker_id.is_some() && hello.started_at().is_some());
    }
    for line in include_str!("fixtures/frames/hello_ack.jsonl").lines() {
        let capture: Value = serde_json::from_str(line).expect("valid JSON");
        let raw: Value = serde_json::from_str(text(&capture, "raw")).expect("valid JSON");
        let ack = HelloAck::parse(text(&capture, "raw").as_bytes()).expect("a hello_ack");
        assert_eq!((ack.heartbeat_interval_seconds, ack.max_frame_size_bytes), (10, 1_048_576));
        assert_eq!(ack.session, text(&raw["payload"], "session_id").parse::<SessionId>().expect("an id"));
        let now = Timestamp::parse(text(&raw, "ts")).expect("aware");
        let mut rewritten: Value = serde_json::from_str(&ack.to_text(now)).expect("valid JSON");
        rewritten["ts"] = raw["ts"].clone();
        assert_eq!(rewritten, raw);
    }
}
