//! The task tables on the memory engine and on fjall.

mod marks;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::engine::Engine;
use domain::id::address::{Layout, TaskId, TaskKey};
use domain::id::{AgentId, EventId, ProjectId};
use domain::task::{EventFields, Filter, Parts, Report, Reporter, Sighting, State, Task, TaskRow};
use domain::time::Timestamp;
use tokio::sync::mpsc;

use super::*;
use crate::engine::fjall::{Fjall, FjallConfig};
use crate::engine::memory::{Faults, Memory};
use crate::store::{Committed, WriteOp};

const RETENTION: i64 = 35 * 86_400;
const PROJECT: ProjectId = ProjectId::from_bytes([1; 16]);
const OTHER: ProjectId = ProjectId::from_bytes([2; 16]);

/// Shortly before midnight, so that lists go over the edge of a day. Today, for fjall counts real seconds.
fn now() -> Timestamp {
    today().plus_secs(86_400 - 30)
}

/// Midnight before this moment.
fn today() -> Timestamp {
    let id = EventId::from_uuid(uuid::Uuid::now_v7());
    let millis = id.bytes()[..6].iter().fold(0_i64, |ms, byte| ms << 8 | i64::from(*byte));
    Timestamp::from_millis(millis - millis % 86_400_000)
}

fn report(engine: Engine, task_id: &str, kind: &str, at: Timestamp, data: &str) -> Report {
    let reporter = Reporter { agent: AgentId::from_bytes([3; 16]), worker_id: None };
    let (kind, at) = (format!("task.{kind}"), at.to_string());
    let fields = EventFields {
        id: None,
        kind: Some(&kind),
        engine: Some(engine.as_str()),
        task_id: Some(task_id),
        occurred_at: Some(&at),
        data: Some(data),
    };
    Sighting::from_event(&fields, &reporter, now()).unwrap().report
}

/// Commits the first sight of a task, then writes the rest of its reports.
async fn tell(tasks: &Tasks, layout: Layout, engine: Engine, task_id: &str, reports: Vec<Report>) -> Task {
    let task = Task::first(engine, task_id, reports, layout, RETENTION, now()).unwrap();
    let commit = tasks.first_sight(PROJECT, &task, now()).unwrap();
    assert_eq!(tasks.store.commit_one(commit).await.unwrap(), Committed::Done);
    task
}

async fn add(tasks: &Tasks, engine: Engine, task_id: &str, report: Report) -> Task {
    let Found::Known(mut task) = tasks.find(PROJECT, TaskKey::new(engine, task_id)).await.unwrap() else {
        panic!("unknown task {task_id}")
    };
    task.record(report, now());
    tasks.store.write(tasks.rows(PROJECT, &task, now()).unwrap()).await.unwrap();
    *task
}

fn memory() -> Tasks {
    Tasks::new(Arc::new(Memory::new()), 0, RETENTION)
}

/// Walks a list to its end and returns the ids in the order shown.
async fn walk(tasks: &Tasks, filter: &Filter, limit: usize) -> Vec<TaskId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = tasks.list(PROJECT, filter, after, limit, now()).await.unwrap();
        assert!(page.rows.len() <= limit);
        assert!(page.next.is_none() || !page.rows.is_empty(), "an empty page with a cursor");
        ids.extend(page.rows.iter().map(|row| row.id));
        match page.next {
            Some(next) => after = Some(next),
            None => return ids,
        }
    }
}

/// Two hundred tasks over three days, in every layout, some of them hidden.
async fn fill(tasks: &Tasks) -> BTreeSet<TaskId> {
    let mut visible = BTreeSet::new();
    for n in 0..200_i64 {
        let engine = Engine::ALL[n as usize % 6];
        let layout = Layout::ALL[n as usize % 4];
        let at = now().plus_micros(-(n * n * 7_000_001) % (3 * 86_400_000_000));
        let queue = if n % 10 == 0 { "rare" } else { "often" };
        let data = format!(r#"{{"task_name":"app.task_{}","queue":"{queue}","worker":"w{}@vm"}}"#, n % 7, n % 3);
        let name = format!("t-{n}");
        let task = tell(tasks, layout, engine, &name, vec![report(engine, &name, "started", at, &data)]).await;
        assert_eq!(task.id().received_at(), at);
        if n % 9 == 0 {
            add(tasks, engine, &name, Report::deleted(EventId::mint(now()), now())).await;
        } else {
            visible.insert(task.id());
        }
    }
    visible
}

async fn a_walk_shows_each_visible_task_once(tasks: Tasks) {
    let visible = fill(&tasks).await;
    let newest_first: Vec<TaskId> = visible.iter().rev().copied().collect();
    for limit in [1, 7, 50, 5000] {
        assert_eq!(walk(&tasks, &Filter::default(), limit).await, newest_first, "limit {limit}");
    }
    let rare = Filter { queue: Some("rare".to_owned()), ..Filter::default() };
    let shown = walk(&tasks, &rare, 3).await;
    assert!(shown.len() >= 15 && shown.is_sorted_by(|a, b| a > b));
    assert_eq!(tasks.count(PROJECT, &rare, 1000, now()).await.unwrap(), Some(shown.len() as u64));
    assert_eq!(tasks.count(PROJECT, &rare, 50, now()).await.unwrap(), None);
    assert_eq!(tasks.count(PROJECT, &Filter::default(), 0, now()).await.unwrap(), Some(visible.len() as u64));
    assert_eq!(tasks.select(PROJECT, &rare, None, 1000, now()).await.unwrap(), shown);

    let (since, until) = (now().plus_secs(-86_400), now().plus_secs(-3_600));
    let between = Filter { since: Some(since), until: Some(until), ..Filter::default() };
    let wanted: Vec<TaskId> =
        newest_first.iter().copied().filter(|id| (since..=until).contains(&id.received_at())).collect();
    assert!(!wanted.is_empty());
    assert_eq!(walk(&tasks, &between, 10).await, wanted);
    let crossed = Filter { since: Some(until), until: Some(since), ..Filter::default() };
    assert!(walk(&tasks, &crossed, 10).await.is_empty());

    let rows = exported(&tasks, &Filter::default(), Parts::ALL).await;
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), newest_first);
    let elsewhere = tasks.list(OTHER, &Filter::default(), None, 10, now()).await.unwrap();
    assert!(elsewhere.rows.is_empty() && elsewhere.next.is_none());
    assert!(tasks.is_empty(OTHER, now()).await.unwrap() && !tasks.is_empty(PROJECT, now()).await.unwrap());
}

async fn exported(tasks: &Tasks, filter: &Filter, parts: Parts) -> Vec<TaskRow> {
    let (out, mut chunks) = mpsc::channel(1);
    tokio::spawn(tasks.export(PROJECT, filter.clone(), now()).run(out));
    let mut rows = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        rows.extend(chunk.unwrap().rows(parts).map(|row| row.unwrap()));
    }
    rows
}

#[tokio::test(start_paused = true)]
async fn a_walk_shows_each_visible_task_once_in_memory() {
    a_walk_shows_each_visible_task_once(memory()).await;
}

#[tokio::test]
async fn a_walk_shows_each_visible_task_once_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    a_walk_shows_each_visible_task_once(Tasks::new(Arc::new(store), 0, RETENTION)).await;
}

#[tokio::test(start_paused = true)]
async fn every_filter_admits_what_it_says_and_no_more() {
    let tasks = memory();
    fill(&tasks).await;
    let all = tasks.list(PROJECT, &Filter::default(), None, 5000, now()).await.unwrap().rows;
    let filters = [
        Filter { state: Some(State::Started), ..Filter::default() },
        Filter { state: Some(State::Failed), ..Filter::default() },
        Filter { priorities: "normal,low".parse().unwrap(), ..Filter::default() },
        Filter { priorities: "critical".parse().unwrap(), ..Filter::default() },
        Filter { engine: Some(Engine::Huey), ..Filter::default() },
        Filter { name: Some("app.task_3".to_owned()), ..Filter::default() },
        Filter { name: Some("app.task".to_owned()), ..Filter::default() },
        Filter { name_prefix: Some("app.".to_owned()), ..Filter::default() },
        Filter { name_contains: Some("task_5".to_owned()), ..Filter::default() },
        Filter { worker: Some("w1@vm".to_owned()), ..Filter::default() },
        Filter { worker: Some("w1".to_owned()), ..Filter::default() },
        Filter { search: Some("TASK_3 rare".to_owned()), ..Filter::default() },
        Filter { search: Some("t-17".to_owned()), ..Filter::default() },
        Filter { search: Some(all[3].id.to_string()), ..Filter::default() },
        Filter { queue: Some("rare".to_owned()), engine: Some(Engine::Dramatiq), ..Filter::default() },
    ];
    for (filter, count) in filters.iter().zip([177, 0, 177, 0, 22, 26, 0, 177, 25, 67, 0, 3, 1, 1, 6]) {
        let wanted: Vec<TaskId> = all.iter().filter(|row| filter.prepare().admits(row)).map(|row| row.id).collect();
        let shown = walk(&tasks, filter, 4).await;
        assert_eq!(shown, wanted, "{filter:?}");
        assert_eq!(shown.len(), count, "{filter:?}");
        assert_eq!(tasks.count(PROJECT, filter, 1000, now()).await.unwrap(), Some(count as u64));
        let rows: Vec<TaskRow> = all.iter().filter(|row| wanted.contains(&row.id)).cloned().collect();
        assert_eq!(exported(&tasks, filter, Parts::ALL).await, rows, "an export has the rows of the list");
        let lean = exported(&tasks, filter, Parts::NONE).await;
        assert_eq!(lean.iter().map(|row| row.id).collect::<Vec<_>>(), wanted, "whatever it wants of them");
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_that_nobody_takes_ends() {
    let tasks = memory();
    fill(&tasks).await;
    let (out, mut chunks) = mpsc::channel(1);
    let running = tokio::spawn(tasks.export(PROJECT, Filter::default(), now()).run(out));
    let first = chunks.recv().await.unwrap().unwrap();
    assert_eq!(first.rows(Parts::NONE).count(), 100, "the first chunk is small");
    drop(chunks);
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn inserts_behind_and_before_a_walk_do_not_disturb_it() {
    let tasks = memory();
    let visible = fill(&tasks).await;
    let (mut ids, mut after, mut n) = (Vec::new(), None, 0);
    loop {
        let page = tasks.list(PROJECT, &Filter::default(), after, 10, now()).await.unwrap();
        ids.extend(page.rows.iter().map(|row| row.id));
        // A newer task, and a change to one that was shown.
        n += 1;
        let (name, row) = (format!("new-{n}"), &page.rows[0]);
        let at = now().plus_secs(1);
        tell(&tasks, Layout::Day, Engine::Rq, &name, vec![report(Engine::Rq, &name, "started", at, "{}")]).await;
        add(&tasks, row.engine, &row.task_id, report(row.engine, &row.task_id, "failed", at, "{}")).await;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(ids, visible.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_first_sight_takes_the_winners_id() {
    let tasks = memory();
    let at = now().plus_secs(-5);
    let winner = tell(&tasks, Layout::Day, Engine::Rq, "t", vec![report(Engine::Rq, "t", "started", at, "{}")]).await;
    let late = report(Engine::Rq, "t", "succeeded", at.plus_secs(1), "{}");
    let loser = Task::first(Engine::Rq, "t", vec![late], Layout::Hour, RETENTION, now()).unwrap();
    assert_ne!(loser.id(), winner.id());
    let lost = tasks.store.commit_one(tasks.first_sight(PROJECT, &loser, now()).unwrap()).await.unwrap();
    let Committed::Lost(rows) = lost else { panic!("{lost:?}") };
    assert_eq!(taken_by(&rows).unwrap(), winner.id());
    assert_eq!(tasks.locate(PROJECT, winner.key()).await.unwrap(), Some(winner.id()));
    assert!(matches!(tasks.find(PROJECT, TaskKey::new(Engine::Arq, "t")).await.unwrap(), Found::Unknown));
}

#[tokio::test(start_paused = true)]
async fn rows_of_several_writers_are_united_before_they_are_filtered() {
    let store = Memory::new();
    let one = Tasks::new(Arc::new(store.clone()), 5, RETENTION);
    let two = Tasks::new(Arc::new(store.handle()), 6, RETENTION);
    let at = now().plus_secs(-100);
    let mut ids = Vec::new();
    for n in 0..40_i64 {
        let name = format!("t-{n}");
        let started = report(Engine::Rq, &name, "started", at.plus_secs(-n), r#"{"queue":"q"}"#);
        let ended = report(Engine::Rq, &name, "succeeded", at.plus_secs(1), "{}");
        let task = tell(&one, Layout::Day, Engine::Rq, &name, vec![started]).await;
        let theirs = Task::first(Engine::Rq, &name, vec![ended], Layout::Day, RETENTION, now()).unwrap();
        let theirs = theirs.moved_to(task.id());
        two.store.write(two.rows(PROJECT, &theirs, now()).unwrap()).await.unwrap();
        ids.push(task.id());
    }
    for (state, found) in [(State::Succeeded, 40), (State::Started, 0)] {
        let filter = Filter { state: Some(state), queue: Some("q".to_owned()), ..Filter::default() };
        for limit in [1, 7, 100] {
            let shown = walk(&one, &filter, limit).await;
            assert_eq!(shown.len(), found);
            assert!(found == 0 || shown == ids);
        }
    }
    let row = two.detail(PROJECT, Engine::Rq, "t-7").await.unwrap().unwrap();
    assert_eq!((row.id, row.state, row.queue.as_deref()), (ids[7], State::Succeeded, Some("q")));
    // A deletion by one writer hides the task for all.
    let found = two.find(PROJECT, TaskKey::new(Engine::Rq, "t-7")).await.unwrap();
    let Found::Shared(mut task) = found else { panic!("{found:?}") };
    task.record(Report::deleted(EventId::mint(now()), now()), now());
    two.store.write(vec![two.rewrite(PROJECT, &task, now()).unwrap()]).await.unwrap();
    assert!(one.detail(PROJECT, Engine::Rq, "t-7").await.unwrap().is_none());
    assert_eq!(walk(&one, &Filter::default(), 9).await.len(), 39);
}

#[tokio::test(start_paused = true)]
async fn a_detail_is_the_row_of_the_list_and_ids_name_tasks_both_ways() {
    let tasks = memory();
    fill(&tasks).await;
    let rows = tasks.list(PROJECT, &Filter::default(), None, 5, now()).await.unwrap().rows;
    for row in rows {
        let detail = tasks.detail(PROJECT, row.engine, &row.task_id).await.unwrap().unwrap();
        assert_eq!(detail, row);
        for text in [row.task_id.clone(), row.id.to_string()] {
            let named = tasks.named(PROJECT, &text).await.unwrap();
            assert_eq!(named.iter().map(Task::id).collect::<Vec<_>>(), [row.id]);
        }
        assert!(tasks.named(OTHER, &row.task_id).await.unwrap().is_empty());
        assert!(tasks.detail(OTHER, row.engine, &row.task_id).await.unwrap().is_none());
    }
    // Every ninth is deleted.
    assert!(tasks.detail(PROJECT, Engine::ALL[3], "t-9").await.unwrap().is_none());
    assert!(tasks.named(PROJECT, "t-9").await.unwrap().is_empty());
    assert!(tasks.tree(PROJECT, Engine::ALL[3], "t-9").await.unwrap().is_none());
    assert!(tasks.events(PROJECT, Engine::ALL[3], "t-9", None, 10).await.unwrap().events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_are_paged_newest_first() {
    let tasks = memory();
    let at = now().plus_secs(-100);
    let mut reports: Vec<Report> = (0..25).map(|n| report(Engine::Rq, "t", "started", at.plus_secs(n), "{}")).collect();
    // Two at one instant.
    reports.push(report(Engine::Rq, "t", "failed", at.plus_secs(3), "{}"));
    tell(&tasks, Layout::Day, Engine::Rq, "t", reports).await;
    let (mut shown, mut after) = (Vec::new(), None);
    loop {
        let page = tasks.events(PROJECT, Engine::Rq, "t", after, 4).await.unwrap();
        shown.extend(page.events.iter().map(|event| (event.occurred_at, event.id)));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(shown.len(), 26);
    assert!(shown.is_sorted_by(|newer, older| newer > older));
}

async fn child(tasks: &Tasks, engine: Engine, name: &str, root: &str, seconds: i64) -> Task {
    let data = format!(r#"{{"task_name":"x","root_task_id":"{root}","parent_task_id":"{root}"}}"#);
    let at = now().plus_secs(seconds - 1000);
    tell(tasks, Layout::Hour, engine, name, vec![report(engine, name, "received", at, &data)]).await
}

#[tokio::test(start_paused = true)]
async fn a_tree_holds_all_tasks_of_its_root_across_engines() {
    let tasks = memory();
    child(&tasks, Engine::Celery, "root", "root", 0).await;
    child(&tasks, Engine::Celery, "a", "root", 1).await;
    child(&tasks, Engine::Rq, "b", "root", 2).await;
    child(&tasks, Engine::Celery, "stranger", "elsewhere", 1).await;
    // Its root is heard only later.
    let at = now().plus_secs(-990);
    tell(&tasks, Layout::Day, Engine::Celery, "c", vec![report(Engine::Celery, "c", "started", at, "{}")]).await;
    let received = report(Engine::Celery, "c", "received", at.plus_secs(-1), r#"{"root_task_id":"root"}"#);
    add(&tasks, Engine::Celery, "c", received).await;
    for (engine, asked) in [(Engine::Celery, "root"), (Engine::Celery, "a"), (Engine::Rq, "b"), (Engine::Celery, "c")] {
        let tree = tasks.tree(PROJECT, engine, asked).await.unwrap().unwrap();
        assert_eq!((tree.root_task_id.as_str(), tree.truncated), ("root", false));
        let nodes: Vec<&str> = tree.nodes.iter().map(|node| node.task_id.as_str()).collect();
        assert_eq!(nodes, ["root", "a", "b", "c"]);
    }
    let orphan = tasks.tree(PROJECT, Engine::Celery, "stranger").await.unwrap().unwrap();
    assert_eq!((orphan.root_task_id.as_str(), orphan.nodes.len()), ("elsewhere", 1));
    add(&tasks, Engine::Celery, "a", Report::deleted(EventId::mint(now()), now())).await;
    assert_eq!(tasks.tree(PROJECT, Engine::Celery, "c").await.unwrap().unwrap().nodes.len(), 3);
    assert!(tasks.tree(PROJECT, Engine::Celery, "nope").await.unwrap().is_none());
    assert!(tasks.tree(OTHER, Engine::Celery, "root").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_cut_at_exactly_500_nodes() {
    let tasks = memory();
    child(&tasks, Engine::Celery, "root", "root", 0).await;
    for n in 1..500 {
        child(&tasks, Engine::Celery, &format!("c-{n}"), "root", n).await;
    }
    let tree = tasks.tree(PROJECT, Engine::Celery, "c-499").await.unwrap().unwrap();
    assert_eq!((tree.nodes.len(), tree.truncated), (500, false));
    child(&tasks, Engine::Celery, "one-more", "root", 500).await;
    let tree = tasks.tree(PROJECT, Engine::Celery, "one-more").await.unwrap().unwrap();
    assert_eq!((tree.nodes.len(), tree.truncated), (500, true));
    assert_eq!((tree.nodes[0].task_id.as_str(), tree.nodes[499].task_id.as_str()), ("root", "c-499"));
    // A deleted one makes room.
    add(&tasks, Engine::Celery, "c-3", Report::deleted(EventId::mint(now()), now())).await;
    let tree = tasks.tree(PROJECT, Engine::Celery, "one-more").await.unwrap().unwrap();
    assert_eq!((tree.nodes.len(), tree.truncated), (500, false));
}

#[tokio::test(start_paused = true)]
async fn rows_live_as_long_as_their_task_is_kept_and_never_for_ever() {
    let tasks = memory();
    let ttl_of = |write: &crate::store::Write| match &write.op {
        WriteOp::Put { ttl, .. } => ttl.map(std::num::NonZeroU32::get),
        WriteOp::Delete => None,
    };
    let first = |age: i64| {
        let at = now().plus_secs(-age);
        let reports = vec![report(Engine::Rq, "t", "started", at, r#"{"root_task_id":"r"}"#)];
        Task::first(Engine::Rq, "t", reports, Layout::Day, RETENTION, now()).unwrap()
    };
    let mut task = first(100);
    let commit = tasks.first_sight(PROJECT, &task, now()).unwrap();
    let WriteOp::Put { ttl, .. } = &commit.writes[0].1 else { panic!() };
    assert_eq!(ttl.map(std::num::NonZeroU32::get), Some(RETENTION as u32 + 3600 - 100));
    assert_eq!(commit.follow.len(), 3);
    assert!(
        commit.follow.iter().all(|write| ttl_of(write).is_some_and(|ttl| i64::from(ttl) >= RETENTION + 3600 - 100))
    );
    task.record(Report::deleted(EventId::mint(now()), now()), now());
    assert_eq!(ttl_of(&tasks.rewrite(PROJECT, &task, now()).unwrap()), Some(RETENTION as u32 - 100 + 7200));
    for (age, left) in [(RETENTION - 60, 3660), (RETENTION, 3600), (RETENTION + 1, 3600), (2 * RETENTION, 3600)] {
        let commit = tasks.first_sight(PROJECT, &first(age), now()).unwrap();
        assert_eq!(ttl_of(&commit.follow[0]), Some(left), "{age}: dated to the edge, and seen for an hour");
    }
    let old = first(RETENTION);
    assert!(tasks.rewrite(PROJECT, &old, now().plus_secs(3540)).is_some());
    assert!(tasks.rewrite(PROJECT, &old, now().plus_secs(3541)).is_none(), "about to end: not for ever");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_slowly_changes_nothing() {
    let faults =
        Faults { latency: std::time::Duration::ZERO..=std::time::Duration::from_millis(5), ..Faults::default() };
    let tasks = Tasks::new(Arc::new(Memory::with_faults(3, faults)), 0, RETENTION);
    let visible = fill(&tasks).await;
    assert_eq!(walk(&tasks, &Filter::default(), 30).await.len(), visible.len());
}
