//! The laws of DESIGN section 2: order, repetition and the number of writers cannot show.

use bytes::Bytes;
use proptest::prelude::*;

use super::traces::{event, noon, reporter, task};
use super::*;
use crate::engine::Engine;
use crate::id::{EventId, ProjectId};

const KINDS: [&str; 6] = ["received", "started", "succeeded", "failed", "retried", "revoked"];
const BODIES: [&str; 6] = [
    r#"{"task_name":"real","queue":"q1","worker":null,"args":[1],"kwargs":{"k":1},"priority":"high","tags":["a"]}"#,
    r#"{"task_name":"<unknown:t-1>","queue":null,"worker":"w1@vm"}"#,
    r#"{"task_name":"<unknown:t-1>","worker":"w2@vm","runtime_ms":7,"result":"1"}"#,
    r#"{"task_name":"other","worker":"w1@vm","exception":"E","exception_message":"E('x')","root_task_id":"r"}"#,
    r#"{"exception":"E: y","reason":"R('z')","eta":"2026-11-23T13:00:00Z","parent_task_id":"p"}"#,
    "[]",
];

fn any_report(engine: Engine) -> impl Strategy<Value = Report> {
    let kind = prop_oneof![20 => 0..KINDS.len(), 1 => Just(100_usize), 1 => Just(101_usize)];
    (kind, 0..40_u128, 0..3_u8, 0..600_u32, 0..BODIES.len()).prop_map(move |(kind, id, agent, tenths, body)| {
        let at = f64::from(tenths) / 10.0;
        let ours = EventId::from_bytes([id as u8 + 100; 16]);
        let time = noon().plus_micros((at * 1e6) as i64);
        match kind {
            100 => Report::lost(ours, time),
            101 => Report::deleted(ours, time),
            kind => event(engine, id, &reporter(agent, "p"), KINDS[kind], at, BODIES[body]),
        }
    })
}

fn any_engine() -> impl Strategy<Value = Engine> {
    prop_oneof![3 => Just(Engine::Celery), 1 => Just(Engine::Rq), 1 => Just(Engine::Dramatiq)]
}

fn any_trace() -> impl Strategy<Value = (Engine, Vec<Report>)> {
    let trace = any_engine().prop_flat_map(|engine| (Just(engine), prop::collection::vec(any_report(engine), 1..24)));
    trace.prop_map(|(engine, reports)| {
        let is_deleted = reports.iter().any(|report| report.kind() == Kind::Deleted);
        (engine, if is_deleted { honest(reports) } else { reports })
    })
}

/// Without two stories under one event id. Which of two is the true one can only be told while both are there,
/// and what a deletion drops is gone; a real agent numbers an event once, though another may send it.
fn honest(reports: Vec<Report>) -> Vec<Report> {
    let mut told: Vec<Report> = Vec::new();
    for report in reports {
        let differs = |known: &Report| {
            known.id() == report.id()
                && (known.kind(), known.occurred_at(), known.body())
                    != (report.kind(), report.occurred_at(), report.body())
        };
        if !told.iter().any(differs) {
            told.push(report);
        }
    }
    told
}

/// The row and the history, without what the moment of writing fixes.
fn shown(task: &Task) -> (serde_json::Value, serde_json::Value, bool) {
    let row = task.row(ProjectId::NIL);
    let mut row = serde_json::to_value(&row).unwrap();
    for fixed in ["id", "received_at", "created_at", "updated_at"] {
        row.as_object_mut().unwrap().remove(fixed);
    }
    (row, serde_json::to_value(task.events(ProjectId::NIL)).unwrap(), task.is_hidden())
}

fn recorded(engine: Engine, reports: &[Report]) -> Task {
    let mut task = task(engine, vec![reports[0].clone()]);
    for (step, report) in reports[1..].iter().enumerate() {
        task.record(report.clone(), noon().plus_secs(step as i64));
    }
    task
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn order_repetition_and_writers_do_not_show(
        (engine, reports) in any_trace(),
        seed in any::<prop::sample::Index>(),
        order in any::<u64>(),
        writers in prop::collection::vec(0..3_usize, 48),
    ) {
        let plain = task(engine, reports.clone());
        let wanted = shown(&plain);
        prop_assert_eq!(&shown(&recorded(engine, &reports)), &wanted);

        let mut shuffled = [reports.clone(), reports.clone()].concat();
        let mut state = order;
        for place in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(place, (state >> 33) as usize % (place + 1));
        }
        prop_assert_eq!(&shown(&recorded(engine, &shuffled)), &wanted);

        // Three writers, each with its own share, some with the same report; united in any order.
        let shares = [0, 1, 2].map(|writer| {
            let share = shuffled.iter().zip(writers.iter().cycle());
            share.filter(|(_, of)| **of == writer).map(|(report, _)| report.clone()).collect::<Vec<_>>()
        });
        let mut parts: Vec<Task> = shares.iter().filter(|share| !share.is_empty())
            .map(|share| recorded(engine, share).moved_to(plain.id())).collect();
        let turn = seed.index(parts.len());
        parts.rotate_left(turn);
        let mut united = Task::decode(plain.id(), &parts.remove(0).to_bytes()).unwrap();
        for part in parts {
            united.unite(part);
        }
        prop_assert_eq!(&shown(&united), &wanted);
        prop_assert_eq!(Header { created_at: plain.created_at(), updated_at: plain.updated_at(), ..*united.header() }, *plain.header());
    }

    #[test]
    fn a_part_that_is_not_wanted_is_all_that_a_row_lacks((engine, reports) in any_trace(), wanted in 0_u8..=0x7f) {
        let task = task(engine, reports);
        let parts = [
            (Parts::ARGS, "args"), (Parts::KWARGS, "kwargs"), (Parts::RESULT, "result"), (Parts::EXCEPTION, "exception"),
            (Parts::EXCEPTION, "traceback"), (Parts::ETA, "eta"), (Parts::RELATIVES, "parent_task_id"),
            (Parts::RELATIVES, "root_task_id"), (Parts::TAGS, "tags"),
        ];
        let each = [Parts::ARGS, Parts::KWARGS, Parts::RESULT, Parts::EXCEPTION, Parts::ETA, Parts::RELATIVES, Parts::TAGS];
        let is_wanted = |part: Parts| each.iter().position(|it| *it == part).is_some_and(|bit| wanted & 1 << bit != 0);
        let asked = each.into_iter().filter(|part| is_wanted(*part)).fold(Parts::NONE, Parts::and);
        let mut whole = serde_json::to_value(task.row(ProjectId::NIL)).unwrap();
        for (part, member) in parts {
            if !is_wanted(part) {
                whole[member] = if member == "tags" { serde_json::json!([]) } else { serde_json::Value::Null };
            }
        }
        prop_assert_eq!(serde_json::to_value(task.row_of(ProjectId::NIL, asked)).unwrap(), whole);
    }

    #[test]
    fn a_stored_value_is_read_back_whole((engine, reports) in any_trace()) {
        let task = recorded(engine, &reports);
        let bytes = task.to_bytes();
        let read = Task::decode(task.id(), &bytes).unwrap();
        prop_assert_eq!(&read, &task);
        prop_assert_eq!(read.to_bytes(), bytes.clone());
        prop_assert_eq!(Header::read(&bytes).unwrap(), *task.header());
        prop_assert_eq!(shown(&read), shown(&task));
    }

    #[test]
    fn a_repeated_report_changes_nothing((engine, reports) in any_trace(), again in any::<prop::sample::Index>()) {
        let mut task = recorded(engine, &reports);
        let before = task.to_bytes();
        prop_assert_eq!(task.record(again.get(&reports).clone(), noon().plus_secs(99)), Recorded::Nothing);
        prop_assert_eq!(task.to_bytes(), before);
    }

    #[test]
    fn updated_at_moves_exactly_when_something_shows((engine, reports) in any_trace()) {
        let mut task = task(engine, vec![reports[0].clone()]);
        for report in &reports[1..] {
            let (before, header) = (shown(&task), *task.header());
            match task.record(report.clone(), noon().plus_secs(-1)) {
                Recorded::Nothing => prop_assert_eq!(*task.header(), header),
                Recorded::Joined => {
                    prop_assert_eq!(shown(&task), before);
                    prop_assert_eq!(*task.header(), header);
                }
                Recorded::Changed => prop_assert_eq!(task.updated_at(), header.updated_at.plus_micros(1)),
            }
        }
    }

    #[test]
    fn a_terminal_state_of_one_attempt_never_regresses((engine, reports) in any_trace()) {
        // One attempt: at most one start, and no deletion.
        let mut starts = 0;
        let reports: Vec<Report> = honest(reports).into_iter().filter(|report| match report.kind() {
            Kind::Started => { starts += 1; starts == 1 }
            Kind::Deleted => false,
            _ => true,
        }).collect();
        prop_assume!(!reports.is_empty());
        let mut task = task(engine, vec![reports[0].clone()]);
        let mut was_terminal = task.header().state.is_terminal();
        for report in &reports[1..] {
            task.record(report.clone(), noon());
            let is_terminal = task.header().state.is_terminal();
            prop_assert!(is_terminal || !was_terminal);
            was_terminal = is_terminal;
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused((engine, reports) in any_trace(), cut in any::<prop::sample::Index>(), flip in any::<u8>()) {
        let task = recorded(engine, &reports);
        let bytes = task.to_bytes().to_vec();
        let at = cut.index(bytes.len());
        prop_assert!(Task::decode(task.id(), &Bytes::copy_from_slice(&bytes[..at])).is_err());
        let mut bent = bytes;
        bent[at] ^= flip;
        // Either outcome is fine; a panic is not.
        if let Ok(read) = Task::decode(task.id(), &Bytes::from(bent)) {
            let _shown = shown(&read);
        }
    }
}

#[test]
fn the_stored_format_is_for_ever() {
    let from = reporter(1, "bare-1-1");
    let task = task(
        Engine::Celery,
        vec![
            event(Engine::Celery, 1, &from, "received", 0.0, BODIES[0]),
            event(Engine::Celery, 2, &from, "succeeded", 1.5, BODIES[2]),
        ],
    );
    assert_eq!(hex::encode(task.to_bytes()), include_str!("golden.hex").trim());
}

#[test]
fn size_is_bounded_and_the_first_receipt_kept() {
    let from = reporter(1, "p");
    let long = format!(r#"{{"task_name":"t","args":["{}"]}}"#, "x".repeat(6_000));
    let mut reports = vec![event(Engine::Rq, 0, &from, "received", 0.0, r#"{"task_name":"first","args":[1]}"#)];
    for id in 1..1_200 {
        reports.push(event(Engine::Rq, id, &from, "started", id as f64, &long));
    }
    let plain = task(Engine::Rq, reports.clone());
    assert!(plain.header().history_truncated);
    assert_eq!(plain.reports().len(), 1_001);
    assert!(plain.to_bytes().len() < 450_000);
    let bodies = plain.reports().iter().filter(|report| report.body().is_some()).count();
    assert!((40..=65).contains(&bodies), "{bodies}");
    let row = plain.row(ProjectId::NIL);
    assert_eq!((row.name.as_str(), row.retry_count), ("first", 999));
    reports.reverse();
    let reversed = task(Engine::Rq, reports);
    assert_eq!(shown(&reversed), shown(&plain));
    assert_eq!(reversed.reports(), plain.reports());
}
