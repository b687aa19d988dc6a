//! Golden traces: what real agents were seen to send for one task, and the row that must follow (WIRE 7 and 12).

use std::sync::Arc;

use super::*;
use crate::engine::Engine;
use crate::id::address::Layout;
use crate::id::{AgentId, EventId, ProjectId};
use crate::time::Timestamp;

const RETENTION_SECS: i64 = 35 * 86_400;

/// The instant all traces count from.
pub(super) fn noon() -> Timestamp {
    Timestamp::parse("2026-11-23T12:00:00Z").unwrap()
}

pub(super) fn reporter(agent: u8, process: &str) -> Reporter {
    Reporter { agent: AgentId::from_bytes([agent; 16]), worker_id: Some(Arc::from(process)) }
}

/// One event, `seconds` after noon, with an id of its own.
pub(super) fn event(engine: Engine, id: u128, from: &Reporter, kind: &str, seconds: f64, data: &str) -> Report {
    let at = noon().plus_micros((seconds * 1e6) as i64);
    let id = EventId::from_uuid(uuid::Uuid::from_u128(id)).to_string();
    let (kind, at) = (format!("task.{kind}"), at.to_string());
    let fields = EventFields {
        id: Some(&id),
        kind: Some(&kind),
        engine: Some(engine.as_str()),
        task_id: Some("t-1"),
        occurred_at: Some(&at),
        data: Some(data),
    };
    Sighting::from_event(&fields, from, noon().plus_secs(3600)).unwrap().report
}

pub(super) fn task(engine: Engine, reports: Vec<Report>) -> Task {
    Task::first(engine, "t-1", reports, Layout::Day, RETENTION_SECS, noon()).unwrap()
}

struct Trace {
    engine: Engine,
    reports: Vec<Report>,
    from: Reporter,
}

impl Trace {
    fn new(engine: Engine) -> Self {
        Self { engine, reports: Vec::new(), from: reporter(1, "bare-1-1") }
    }

    fn from(mut self, agent: u8, process: &str) -> Self {
        self.from = reporter(agent, process);
        self
    }

    fn say(mut self, kind: &str, seconds: f64, data: &str) -> Self {
        let id = self.reports.len() as u128 + 1;
        self.reports.push(event(self.engine, id, &self.from, kind, seconds, data));
        self
    }

    fn row(&self) -> TaskRow {
        task(self.engine, self.reports.clone()).row(ProjectId::NIL)
    }

    /// Kinds of the history, oldest first.
    fn history(&self) -> Vec<String> {
        let events = task(self.engine, self.reports.clone()).events(ProjectId::NIL);
        events.iter().rev().map(|event| event.kind.as_str().trim_start_matches("task.").to_owned()).collect()
    }

    fn expect(&self, state: State, retries: u32, history: &str) {
        let row = self.row();
        assert_eq!((row.state, row.retry_count), (state, retries));
        assert_eq!(self.history().join(", "), history);
        assert_eq!(row.finished_at.is_some(), state.is_terminal());
    }
}

const RECEIVED: &str = r#"{"task_name":"email.send","queue":"celery","worker":null,"args":[1,2.50],"kwargs":{"a":1},"root_task_id":"t-1"}"#;
const BROKER: &str = r#"{"task_name":"<unknown:t-1>","queue":null,"worker":"w1@vm","args":null,"kwargs":null}"#;
const SIGNAL: &str = r#"{"task_name":"email.send","queue":"celery","worker":null}"#;

#[test]
fn celery_prefork_success_fills_every_member() {
    let trace = Trace::new(Engine::Celery)
        .say(
            "received",
            0.0,
            r#"{"task_name":"email.send","queue":"celery","worker":null,"args":[1,2.50],"kwargs":{"a":{"b":1}},
                "root_task_id":"r-0","parent_task_id":"p-0","tags":["x","y"],"priority":"high","eta":"2026-11-23T13:00:00+01:00"}"#,
        )
        .say("started", 0.036, BROKER)
        .say(
            "succeeded",
            0.131,
            r#"{"task_name":"<unknown:t-1>","queue":null,"worker":"w1@vm","result":"{'x': 3}","runtime_ms":18}"#,
        );
    trace.expect(State::Succeeded, 0, "received, started, succeeded");
    let answer = serde_json::to_string(&trace.row()).unwrap();
    let id = task(Engine::Celery, trace.reports.clone()).id();
    assert_eq!(
        answer,
        format!(
            concat!(
                r#"{{"id":"{}","project_id":"00000000-0000-0000-0000-000000000000","engine":"celery","#,
                r#""task_id":"t-1","name":"email.send","queue":"celery","state":"succeeded","priority":"high","#,
                r#""args":[1,2.50],"kwargs":{{"a":{{"b":1}}}},"result":"{{'x': 3}}","exception":null,"traceback":null,"#,
                r#""retry_count":0,"eta":"2026-11-23T12:00:00.000000+00:00","#,
                r#""received_at":"2026-11-23T12:00:00.000000+00:00","started_at":"2026-11-23T12:00:00.036000+00:00","#,
                r#""finished_at":"2026-11-23T12:00:00.131000+00:00","runtime_ms":18,"worker_name":"w1@vm","#,
                r#""parent_task_id":"p-0","root_task_id":"r-0","tags":["x","y"],"#,
                r#""created_at":"2026-11-23T12:00:00.000000+00:00","updated_at":"2026-11-23T12:00:00.000000+00:00"}}"#
            ),
            id
        )
    );
}

#[test]
fn celery_failure_joins_its_exception() {
    let trace = Trace::new(Engine::Celery).say("received", 0.0, RECEIVED).say("started", 0.1, BROKER).say(
        "failed",
        0.4,
        r#"{"task_name":"<unknown:t-1>","worker":"w1@vm","exception":"ValueError","exception_message":"ValueError('bad')","traceback":"T"}"#,
    );
    trace.expect(State::Failed, 0, "received, started, failed");
    let row = trace.row();
    assert_eq!((row.exception.as_deref(), row.traceback.as_deref()), (Some("ValueError: bad"), Some("T")));
    assert_eq!((row.runtime_ms, row.root_task_id.as_deref(), row.tags.len()), (Some(300), None, 0));
}

#[test]
fn celery_retry_whose_receipt_overtakes_it() {
    let trace = Trace::new(Engine::Celery)
        .say("received", 0.0, RECEIVED)
        .say("started", 0.1, BROKER)
        .say("received", 0.2, RECEIVED)
        .say("retried", 0.3, r#"{"task_name":"<unknown:t-1>","worker":"w1@vm","reason":"RuntimeError('flaky')"}"#);
    trace.expect(State::Retried, 1, "received, started, received, retried");
    assert_eq!(trace.row().exception.as_deref(), Some("RuntimeError: flaky"));
    let trace = trace.say("started", 3.0, BROKER);
    trace.expect(State::Started, 1, "received, started, received, retried, started");
    let trace = trace.say("succeeded", 3.1, BROKER);
    trace.expect(State::Succeeded, 1, "received, started, received, retried, started, succeeded");
    assert_eq!(trace.row().started_at, Some(noon().plus_secs(3)));
}

#[test]
fn two_retries_within_a_second_are_two_also_on_two_workers() {
    let other = BROKER.replace("w1@vm", "w2@vm");
    for second in [BROKER, &other] {
        let trace = Trace::new(Engine::Celery)
            .say("received", 0.0, RECEIVED)
            .say("started", 0.1, BROKER)
            .say("retried", 0.2, BROKER)
            .say("started", 0.3, second)
            .say("retried", 0.4, second)
            .say("started", 0.5, BROKER)
            .say("succeeded", 0.6, BROKER);
        trace.expect(State::Succeeded, 2, "received, started, retried, started, retried, started, succeeded");
    }
}

#[test]
fn a_solo_pool_that_reports_twice_counts_once() {
    // A signal, and about a second later the same from the broker; two retries.
    let mut trace = Trace::new(Engine::Celery).say("received", 0.0, RECEIVED);
    for (kind, seconds) in
        [("started", 0.1), ("retried", 0.2), ("started", 2.1), ("retried", 2.2), ("started", 4.1), ("succeeded", 4.3)]
    {
        trace = trace.say(kind, seconds, SIGNAL);
    }
    for (kind, seconds) in [("started", 1.1), ("retried", 1.2), ("started", 3.1), ("retried", 3.2), ("started", 5.1)] {
        trace = trace.say(kind, seconds, BROKER);
    }
    let trace = trace.say(
        "succeeded",
        5.2,
        r#"{"task_name":"<unknown:t-1>","worker":"w1@vm","result":"'done'","runtime_ms":190}"#,
    );
    trace.expect(State::Succeeded, 2, "received, started, retried, started, retried, started, succeeded");
    let row = trace.row();
    assert_eq!(row.name, "email.send");
    assert_eq!(row.worker_name.as_deref(), Some("w1@vm"));
    assert_eq!(row.result.as_ref().map(|json| json.get()), Some(r#""'done'""#));
    assert_eq!((row.runtime_ms, row.finished_at), (Some(190), Some(noon().plus_micros(4_300_000))));
}

#[test]
fn several_processes_on_one_broker_count_once() {
    let mut trace = Trace::new(Engine::Celery).say("received", 0.0, RECEIVED);
    for (process, lag) in [("bare-1-1", 0.0), ("bare-2-1", 0.005), ("bare-3-1", 1.9)] {
        trace = trace.from(1, process);
        for (kind, seconds) in [("started", 0.1), ("retried", 0.2), ("started", 2.0), ("failed", 2.5)] {
            trace = trace.say(kind, seconds + lag, BROKER);
        }
    }
    trace.expect(State::Failed, 1, "received, started, retried, started, failed");
    assert_eq!(trace.row().finished_at, Some(noon().plus_micros(2_500_000)));
}

#[test]
fn a_revocation_that_arrives_twice_is_one() {
    let revoked = r#"{"task_name":"slow","queue":null,"worker":null,"terminated":true,"signum":15,"expired":false}"#;
    let running = Trace::new(Engine::Celery)
        .say("received", 0.0, RECEIVED)
        .say("started", 0.1, BROKER)
        .say("revoked", 5.0, revoked)
        .say("revoked", 5.01, revoked);
    running.expect(State::Cancelled, 0, "received, started, revoked");
    assert_eq!(running.row().exception, None);
    let waiting = Trace::new(Engine::Celery)
        .say("received", 0.0, RECEIVED)
        .say("revoked", 5.0, revoked)
        .say("revoked", 5.01, revoked);
    waiting.expect(State::Cancelled, 0, "received, revoked");
}

#[test]
fn a_redelivery_after_the_visibility_timeout_is_not_a_retry() {
    let trace = Trace::new(Engine::Celery)
        .say("received", 0.0, RECEIVED)
        .say("started", 0.1, BROKER)
        .say("received", 3600.0 - 1800.0, RECEIVED)
        .say("started", 1800.1, BROKER);
    trace.expect(State::Started, 0, "received, started, received, started");
    let trace = trace.say("succeeded", 1900.0, BROKER);
    trace.expect(State::Succeeded, 0, "received, started, received, started, succeeded");
    assert_eq!(trace.row().runtime_ms, Some(99_900));
}

#[test]
fn rq_requeue_is_a_new_attempt_of_the_same_task() {
    let data = r#"{"task_name":"m.f","queue":"default","description":"m.f('x')","worker":"1596063c","priority":"low","tags":["a"]}"#;
    let failed = r#"{"task_name":"m.f","queue":"default","worker":"1596063c","exception":"Traceback (most recent call last):\n  File \"x\"\nValueError: bad x\n"}"#;
    let trace = Trace::new(Engine::Rq).say("started", 0.0, data).say("failed", 0.1, failed);
    trace.expect(State::Failed, 0, "started, failed");
    let row = trace.row();
    assert_eq!(row.exception.as_deref(), Some("ValueError: bad x"));
    assert!(row.traceback.is_some_and(|text| text.starts_with("Traceback")));
    assert_eq!((row.priority, row.tags), (Priority::Low, vec!["a".to_owned()]));
    let trace = trace.say("started", 60.0, data);
    trace.expect(State::Started, 1, "started, failed, started");
    let trace = trace.say("succeeded", 60.5, data);
    trace.expect(State::Succeeded, 1, "started, failed, started, succeeded");
    assert_eq!(trace.row().exception, None);
}

#[test]
fn dramatiq_on_four_processes() {
    let data = |queue: &str, worker: &str| format!(r#"{{"task_name":"d","queue":"{queue}","worker":"{worker}"}}"#);
    // The producer reports what it enqueues; the delay queue is the same queue to a user.
    let trace = Trace::new(Engine::Dramatiq)
        .from(1, "web")
        .say("received", 0.0, &data("default", "web@1"))
        .from(1, "p2")
        .say("started", 0.1, &data("default", "vm@2"))
        .say("received", 0.2, &data("default.DQ", "vm@2"))
        .say("retried", 0.3, r#"{"task_name":"d","queue":"default","worker":"vm@2","exception":"ValueError: bad"}"#)
        .from(1, "p3")
        .say("received", 5.2, &data("default", "vm@3"))
        .from(1, "p4")
        .say("started", 5.3, &data("default", "vm@4"))
        .say("succeeded", 5.4, &data("default", "vm@4"));
    trace.expect(State::Succeeded, 1, "received, started, received, retried, received, started, succeeded");
    let row = trace.row();
    assert_eq!((row.queue.as_deref(), row.worker_name.as_deref()), (Some("default"), Some("vm@4")));
    let waiting = Trace::new(Engine::Dramatiq).say("received", 0.0, &data("default.DQ", "web@1"));
    let row = waiting.row();
    assert_eq!((row.queue.as_deref(), row.worker_name), (Some("default"), None));
}

#[test]
fn dramatiq_cancelled_before_it_ran_stays_started() {
    Trace::new(Engine::Dramatiq).say("started", 0.0, "{}").expect(State::Started, 0, "started");
}

#[test]
fn huey_and_taskiq_hear_the_producer_late() {
    let failed = r#"{"task_name":"h","exception":"ValueError: bad bob@example.com"}"#;
    let trace = Trace::new(Engine::Huey)
        .say("started", 0.2, r#"{"task_name":"h"}"#)
        .say("failed", 0.3, failed)
        .from(1, "web")
        .say("received", 0.0, r#"{"task_name":"h","queue":"q","worker":"web@1","args":[1],"kwargs":{}}"#);
    trace.expect(State::Failed, 0, "received, started, failed");
    let row = trace.row();
    assert_eq!(row.exception.as_deref(), Some("ValueError: bad <email>"));
    assert_eq!((row.args.map(|json| json.get().to_owned()), row.queue.as_deref()), (Some("[1]".to_owned()), Some("q")));
    // The worker that an enqueueing process names is itself.
    assert_eq!(row.worker_name, None);

    let taskiq = Trace::new(Engine::Taskiq)
        .say("started", 0.0, r#"{"task_name":"q"}"#)
        .say("retried", 0.1, r#"{"task_name":"q"}"#)
        .say("started", 0.2, r#"{"task_name":"q"}"#)
        .say("retried", 0.3, r#"{"task_name":"q"}"#)
        .say("started", 0.4, r#"{"task_name":"q"}"#)
        .say("succeeded", 0.5, r#"{"task_name":"q"}"#);
    taskiq.expect(State::Succeeded, 2, "started, retried, started, retried, started, succeeded");
}

#[test]
fn arq_knows_only_names() {
    let trace =
        Trace::new(Engine::Arq).say("started", 0.0, r#"{"task_name":"a"}"#).say("failed", 1.5, r#"{"task_name":"a"}"#);
    trace.expect(State::Failed, 0, "started, failed");
    let row = trace.row();
    assert_eq!((row.args.is_none(), row.exception, row.queue, row.worker_name), (true, None, None, None));
    assert_eq!(row.runtime_ms, Some(1500));
}

#[test]
fn a_placeholder_name_stands_until_a_real_one_is_heard() {
    let trace = Trace::new(Engine::Celery).say("started", 0.1, BROKER);
    assert_eq!(trace.row().name, "<unknown:t-1>");
    assert_eq!(trace.say("received", 0.0, RECEIVED).row().name, "email.send");
    assert_eq!(Trace::new(Engine::Celery).say("started", 0.1, "{}").row().name, "<unknown:t-1>");
}

#[test]
fn lost_is_beaten_by_any_later_report() {
    let lost = |seconds| Report::lost(EventId::from_bytes([9; 16]), noon().plus_secs(seconds));
    let mut task = task(Engine::Celery, vec![event(Engine::Celery, 1, &reporter(1, "p"), "started", 0.0, BROKER)]);
    assert_eq!(task.record(lost(900), noon().plus_secs(900)), Recorded::Changed);
    assert_eq!((task.header().state, task.header().finished_at), (State::Lost, None));
    let restarted = event(Engine::Celery, 2, &reporter(1, "p"), "started", 1000.0, BROKER);
    task.record(restarted, noon().plus_secs(1000));
    assert_eq!(task.header().state, State::Started);
    let ended = event(Engine::Celery, 3, &reporter(1, "p"), "succeeded", 1001.0, BROKER);
    task.record(ended, noon().plus_secs(1001));
    assert_eq!(task.header().state, State::Succeeded);
    assert_eq!(task.events(ProjectId::NIL)[2].agent_id, None);
}

#[test]
fn a_deleted_task_returns_only_when_it_runs_again() {
    let from = reporter(1, "p");
    let say = |id, kind: &str, seconds| event(Engine::Celery, id, &from, kind, seconds, RECEIVED);
    let mut task = task(Engine::Celery, vec![say(1, "received", 0.0), say(2, "started", 1.0)]);
    let before = task.id();
    task.record(Report::deleted(EventId::from_bytes([7; 16]), noon().plus_secs(10)), noon().plus_secs(10));
    assert!(task.is_hidden());
    // Late reports of the deleted attempt.
    for late in [say(3, "received", 0.5), say(4, "succeeded", 9.0), say(5, "succeeded", 12.0)] {
        assert_eq!(task.record(late, noon().plus_secs(13)), Recorded::Nothing);
    }
    assert!(task.is_hidden());
    assert_eq!(task.reports().len(), 1, "nothing of before is kept");
    task.record(say(6, "received", 12.6), noon().plus_secs(13));
    assert!(!task.is_hidden());
    task.record(say(7, "started", 13.0), noon().plus_secs(13));
    let row = task.row(ProjectId::NIL);
    assert_eq!((row.id, row.state, row.retry_count), (before, State::Started, 0));
    assert_eq!(task.events(ProjectId::NIL).len(), 2);
}

#[test]
fn what_our_command_scheduled_is_pending_with_its_eta() {
    let scheduled = Report::scheduled(
        EventId::from_bytes([5; 16]),
        noon(),
        r#"{"task_name":"t","queue":"q","eta":"2026-11-24T00:00:00Z","priority":"low"}"#,
    );
    let mut task = task(Engine::Celery, vec![scheduled]);
    let row = task.row(ProjectId::NIL);
    assert_eq!((row.state, row.eta, row.name.as_str()), (State::Received, Some(noon().plus_secs(43_200)), "t"));
    assert!(task.events(ProjectId::NIL).is_empty());
    task.record(event(Engine::Celery, 1, &reporter(1, "p"), "started", -60.0, BROKER), noon());
    let row = task.row(ProjectId::NIL);
    assert_eq!((row.state, row.eta, row.priority), (State::Started, Some(noon().plus_secs(43_200)), Priority::Low));
}

#[test]
fn events_that_can_never_be_stored_are_named() {
    let good = EventFields {
        id: Some("x"),
        kind: Some("task.started"),
        engine: Some("rq"),
        task_id: Some("t"),
        occurred_at: Some("2026-11-23T12:00:00"),
        data: None,
    };
    let read = |fields: &EventFields<'_>| Sighting::from_event(fields, &reporter(1, "p"), noon());
    let sighting = read(&good).unwrap();
    assert_eq!(sighting.report.occurred_at(), noon(), "without an offset it is UTC");
    assert_eq!(sighting.report.id(), read(&good).unwrap().report.id(), "a re-send has the same id");
    let id = |fields: &EventFields<'_>| read(fields).unwrap().report.id().to_string();
    assert_eq!(
        id(&good),
        "00000000-0000-7654-8d0a-a666a30e8d6f",
        "one id of its own is one event, whatever else it says"
    );
    assert_eq!(id(&EventFields { occurred_at: None, ..good }), id(&good));
    let nameless = EventFields { id: None, ..good };
    assert_eq!(
        id(&nameless),
        "01a20846-fe00-7500-b89a-1555113a253c",
        "the event's own time and a hash of what it says"
    );
    assert!(id(&EventFields { occurred_at: Some("noon"), ..nameless }).starts_with("00000000-0000-7"));
    let own = "6e0e6d4a-8d3f-4c5e-9b1a-2f6f0c1d2e3f";
    assert_eq!(id(&EventFields { id: Some(own), ..good }), own, "as the agent numbered it");
    let long = "é".repeat(201);
    for (bad, why) in [
        (EventFields { engine: None, ..good }, Unstorable::NoEngine),
        (EventFields { engine: Some("cron"), ..good }, Unstorable::UnknownEngine),
        (EventFields { kind: None, ..good }, Unstorable::NoKind),
        (EventFields { kind: Some("worker.online"), ..good }, Unstorable::NotATask),
        (EventFields { kind: Some("task.deleted"), ..good }, Unstorable::NotATask),
        (EventFields { task_id: Some(""), ..good }, Unstorable::NoTaskId),
        (EventFields { task_id: Some(&long), ..good }, Unstorable::TaskIdTooLong),
    ] {
        assert_eq!(read(&bad).err(), Some(why));
    }
    assert!(read(&EventFields { task_id: Some(&long[2..]), ..good }).is_ok());
    for (text, at) in [
        ("1999-01-01T00:00:00Z", noon().plus_secs(-400 * 86_400)),
        ("2030-01-01T00:00:00Z", noon().plus_secs(60)),
        ("yesterday", noon()),
        ("2026-11-23T13:30:00.5+01:30", noon().plus_micros(500_000)),
        ("2026-10-31T23:59:59.123456+00:00", Timestamp::parse("2026-10-31T23:59:59.123456Z").unwrap()),
        ("2026-10-28T23:59:59.123456+00:00", Timestamp::parse("2026-10-28T23:59:59.123456Z").unwrap()),
        ("2025-12-28T00:00:00.000001+00:00", Timestamp::parse("2025-12-28T00:00:00.000001Z").unwrap()),
    ] {
        assert_eq!(read(&EventFields { occurred_at: Some(text), ..good }).unwrap().report.occurred_at(), at, "{text}");
    }
}
