use super::*;
use crate::id::{ApiKeyId, SessionId};

fn command() -> CommandId {
    "019d9629-927b-71c8-bfff-ffffffffffff".parse().unwrap()
}

fn json(text: &str) -> Json {
    Json::new(text).unwrap()
}

/// One entry of every kind, with its bytes as they are stored for ever.
fn golden() -> Vec<(Kind, &'static str)> {
    let at = Timestamp::from_micros(1_776_340_860_123_456);
    let (agent, session) = (AgentId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
    let (user, id) = (UserId::from_bytes([3; 16]), Uuid::from_bytes([4; 16]));
    let token = Token { token: TokenKind::Agent, id, name: "wörker".into() };
    let key = Token { token: TokenKind::ApiKey, id, name: "ci".into() };
    vec![
        (
            Kind::Issued(Box::new(Issued {
                command: command(),
                agent,
                action: Action::BulkRetry,
                target_type: TargetType::Bulk,
                target_id: None,
                engine: Some(Engine::Celery),
                payload: json(r#"{"max":2,"big":1180591620717411303424}"#),
                sealed: None,
                request_hash: "ab".repeat(32),
                idempotency_key: Some("k".into()),
                deadline: at,
                bulk: Some(Frozen { chunks: 1, total: 2, digest: "cd".repeat(32) }),
                force: false,
                global_throttle: false,
            })),
            r#"{"action":"bulk_retry","agent":"01010101-0101-0101-0101-010101010101","bulk":{"chunks":1,"digest":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","total":2},"command":"019d9629-927b-71c8-bfff-ffffffffffff","deadline":"2026-04-16T12:01:00.123456+00:00","engine":"celery","idempotency_key":"k","payload":{"big":1180591620717411303424,"max":2},"request_hash":"abababababababababababababababababababababababababababababababab","target_type":"bulk"}"#,
        ),
        (
            Kind::Dispatched(Dispatch { command: command(), chunk: 1, attempt: Attempt(2), session, deadline: at }),
            r#"{"attempt":2,"chunk":1,"command":"019d9629-927b-71c8-bfff-ffffffffffff","deadline":"2026-04-16T12:01:00.123456+00:00","session":"02020202-0202-0202-0202-020202020202"}"#,
        ),
        (
            Kind::ChunkOutcome(ChunkOutcome {
                command: command(),
                chunk: 0,
                attempt: Attempt(1),
                success: true,
                succeeded: [("a".to_owned(), "b".to_owned())].into(),
                failed: BTreeMap::new(),
                skipped: vec!["c".into()],
                error: None,
                deadline: at,
            }),
            r#"{"attempt":1,"chunk":0,"command":"019d9629-927b-71c8-bfff-ffffffffffff","deadline":"2026-04-16T12:01:00.123456+00:00","failed":{},"skipped":["c"],"succeeded":{"a":"b"},"success":true}"#,
        ),
        (
            Kind::Outcome(Outcome {
                command: command(),
                status: Status::TimedOut,
                result: None,
                error: Some("timed out".into()),
                delivered: Delivered::Unknown,
            }),
            r#"{"command":"019d9629-927b-71c8-bfff-ffffffffffff","delivered":"unknown","error":"timed out","status":"timed_out"}"#,
        ),
        (
            Kind::Late(Late {
                command: command(),
                chunk: 0,
                status: Status::Succeeded,
                result: Some(json(r#"{"x":1e16}"#)),
                error: None,
            }),
            r#"{"chunk":0,"command":"019d9629-927b-71c8-bfff-ffffffffffff","result":{"x":1e+16},"status":"succeeded"}"#,
        ),
        (
            Kind::DeleteBegun(DeleteBegun { deletion: id, filter: json("{}") }),
            r#"{"deletion":"04040404-0404-0404-0404-040404040404","filter":{}}"#,
        ),
        (
            Kind::Deleted(Deleted { deletion: id, filter: json("{}"), count: 3 }),
            r#"{"count":3,"deletion":"04040404-0404-0404-0404-040404040404","filter":{}}"#,
        ),
        (
            Kind::Login(Login { user: Some(user), success: true, reason: None }),
            r#"{"success":true,"user":"03030303-0303-0303-0303-030303030303"}"#,
        ),
        (Kind::TokenMinted(token), r#"{"id":"04040404-0404-0404-0404-040404040404","name":"wörker","token":"agent"}"#),
        (Kind::TokenRevoked(key), r#"{"id":"04040404-0404-0404-0404-040404040404","name":"ci","token":"api_key"}"#),
        (
            Kind::RoleChanged(RoleChanged { user, before: None, after: Some("admin".into()) }),
            r#"{"after":"admin","user":"03030303-0303-0303-0303-030303030303"}"#,
        ),
        (
            Kind::ProjectChanged(ProjectChanged {
                change: ProjectChange::Created,
                slug: "default".into(),
                members: json(r#"{"name":"Default"}"#),
            }),
            r#"{"change":"created","members":{"name":"Default"},"slug":"default"}"#,
        ),
        (
            Kind::Refused(RefusedAction {
                action: "command.issue.purge_queue".into(),
                have: "operator".into(),
                need: "admin".into(),
            }),
            r#"{"action":"command.issue.purge_queue","have":"operator","need":"admin"}"#,
        ),
    ]
}

#[test]
fn every_kind_has_golden_bytes_and_reads_back() {
    for (kind, data) in golden() {
        let entry = Entry {
            seq: 12,
            at: Timestamp::from_micros(1_776_340_800_123_456),
            actor: Actor::ApiKey { key: ApiKeyId::from_bytes([6; 16]), user: UserId::from_bytes([3; 16]) },
            source: Source { ip: Some("192.0.2.1".into()), user_agent: None },
            kind,
        };
        let expected = format!(
            "\u{1}{{\"actor\":\"api_key:06060606-0606-0606-0606-060606060606:03030303-0303-0303-0303-030303030303\",\
             \"at\":\"2026-04-16T12:00:00.123456+00:00\",\"data\":{data},\"ip\":\"192.0.2.1\",\"kind\":\"{}\",\
             \"seq\":12,\"user_agent\":null}}",
            entry.kind.as_str()
        );
        let bytes = entry.encode();
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
        let read = Entry::decode(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!((read.seq, read.kind.as_str()), (12, entry.kind.as_str()));
    }
    assert!(Entry::decode(b"").is_err() && Entry::decode(b"\x02{}").is_err() && Entry::decode(b"\x01{}").is_err());
}
