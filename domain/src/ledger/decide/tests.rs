use super::*;
use crate::command::{Advertised, Asked, Resolved, Verb};
use crate::id::{ProjectId, UserId};
use crate::ledger::{LedgerKey, Log};

const AGENT: AgentId = AgentId::from_bytes([1; 16]);
const SESSION: SessionId = SessionId::from_bytes([2; 16]);
const TERMS: Terms = Terms { command_timeout_secs: 60, bulk_limit_per_minute: 2 };

fn draft(key: &str, task: &str) -> Draft {
    let body = format!(r#"{{"agent_id":"{AGENT}","engine":"celery","task_id":"{task}","idempotency_key":"{key}"}}"#);
    let asked = Asked::parse(Verb::RetryTask, body.as_bytes()).unwrap();
    let advertised = Advertised { engines: vec!["celery".into()], said_hello: true, ..Advertised::default() };
    Draft::new(asked, Actor::User(UserId::NIL), Source::default(), Resolved { advertised, ..Resolved::default() })
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn prepared(draft: &Draft, holder: Option<KeyHolder>) -> Prepared {
    Prepared { command: CommandId::mint(now()), form: Form::of(draft, now()), sealed: None, frozen: None, holder }
}

#[test]
fn the_projection_answers_for_keys_older_than_memory() {
    let (fold, draft) = (Fold::new(ProjectId::NIL), draft("k", "t"));
    let earlier = CommandId::from_bytes([9; 16]);
    let holder = KeyHolder { command: earlier, request_hash: draft.hash() };
    let prepared = prepared(&draft, Some(holder));
    let replayed = issue(&fold, &draft, &prepared, None, now(), TERMS);
    assert_eq!(replayed, Ok(Issuance::Replayed(earlier)));
    let other = super::tests::draft("k", "another task");
    assert_eq!(issue(&fold, &other, &prepared, None, now(), TERMS), Err(Refusal::KeyConflict));
}

#[test]
fn a_lane_saves_the_second_append() {
    let (fold, draft) = (Fold::new(ProjectId::NIL), draft("k", "t"));
    let prepared = prepared(&draft, None);
    let kinds = |lane| match issue(&fold, &draft, &prepared, lane, now(), TERMS) {
        Ok(Issuance::New(proposals)) => proposals.iter().map(|proposal| proposal.kind.as_str()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kinds(Some(SESSION)), ["issued", "dispatched"]);
    assert_eq!(kinds(None), ["issued"]);
}

#[test]
fn a_command_past_its_deadline_is_not_handed_out() {
    let mut log = Log::new(ProjectId::NIL, LedgerKey::new(&[1; 32]));
    let draft = draft("k", "t");
    let prepared = prepared(&draft, None);
    let Ok(Issuance::New(proposals)) = issue(&log.fold, &draft, &prepared, None, now(), TERMS) else { panic!() };
    for proposal in proposals {
        log.record(proposal, now());
    }
    let command = prepared.command;
    assert!(dispatch(&log.fold, command, None, SESSION, now().plus_secs(59)).is_ok());
    assert_eq!(dispatch(&log.fold, command, None, SESSION, now().plus_secs(60)), Err(Refused::Finished));
    assert!(deadline(&log.fold, command, Delivered::No, now().plus_secs(59)).is_none());
    assert!(deadline(&log.fold, command, Delivered::No, now().plus_secs(60)).is_some());
}

#[test]
fn a_huge_result_is_kept_by_its_size_and_a_long_error_cut() {
    let big = Json::new(format!("\"{}\"", "x".repeat(RESULT_MAX))).unwrap();
    assert_eq!(small(big).as_str(), format!(r#"{{"bytes":{},"truncated":true}}"#, RESULT_MAX + 2));
    assert_eq!(cut("äöü", 2), "äö");
    assert_eq!(cut("ab", 2), "ab");
}
