//! Marks on every engine: what they name is what a walk over all rows finds.

use domain::task::Mark;

use super::*;
use crate::contract::cluster;
use crate::engine::cql::Cql;
use crate::store::Write;

const RECORDER: u16 = 2;

/// Three hundred tasks of three days in every layout, all marked, some gone open again and back.
async fn marks_name_what_a_walk_finds(tasks: Tasks) {
    let project = ProjectId::mint(now());
    let mut begun = tasks.begin_marks(project, RECORDER, now()).await.unwrap();
    assert_eq!(begun.len(), if tasks.is_alone() { 2 } else { 1 });
    let (mut open, mut failed) = (Vec::new(), Vec::new());
    let mut queues: std::collections::BTreeMap<u64, Vec<TaskId>> = std::collections::BTreeMap::new();
    for n in 0..300_i64 {
        let layout = Layout::ALL[n as usize % 4];
        let at = now().plus_secs(-(n % 3) * 86_400).plus_micros(-n * 40_000);
        let data = format!(r#"{{"task_name":"app.work","queue":"q-{}"}}"#, if n % 20 == 3 { "rare" } else { "often" });
        let (name, kind) = (format!("t-{n}"), if n % 30 == 0 { "failed" } else { "started" });
        let reports = vec![report(Engine::Rq, &name, kind, at, &data)];
        let task = Task::first(Engine::Rq, &name, reports, layout, RETENTION, now()).unwrap();
        let mut writes = std::mem::take(&mut begun);
        // One round for all would be one row for each zone; several are what happens.
        writes.extend(tasks.mark(project, Mark::Queue(task.header().queue_hash()), &[task.id()], now()));
        queues.entry(task.header().queue_hash()).or_default().push(task.id());
        if task.header().is_open() {
            open.push(task.id());
        } else {
            failed.push(task.id());
        }
        tasks.store.write(writes).await.unwrap();
        let commit = tasks.first_sight(project, &task, now()).unwrap();
        assert_eq!(tasks.store.commit_one(commit).await.unwrap(), Committed::Done);
    }
    // A whole queue once more, in one round: each is still shown once.
    let mut writes: Vec<_> =
        queues.iter().flat_map(|(queue, ids)| tasks.mark(project, Mark::Queue(*queue), ids, now())).collect();
    writes.extend(tasks.mark(project, Mark::State(State::Failed), &failed, now()));
    // Marks that are true no more, and one of a task that never was.
    writes.extend(tasks.mark(project, Mark::State(State::Failed), &[open[0]], now()));
    writes.extend(tasks.mark(project, Mark::State(State::Failed), &[failed[0].next()], now()));
    // Half of the open tasks are listed, half are filed, some are both, or are not open any more.
    let (listed, filed) = (&open[..160], &open[150..]);
    let list = || listed.iter().chain(&failed[..3]);
    writes.push(tasks.list_open(project, State::Started, RECORDER, list()));
    let file = |id: &TaskId| tasks.file(project, State::Started, *id, now()).unwrap();
    writes.extend(filed.iter().chain(&failed[2..5]).map(file));
    tasks.store.write(writes).await.unwrap();
    tasks.store.write(vec![tasks.take_out(project, State::Started, failed[4])]).await.unwrap();
    let known = tasks.listed(project, State::Started, RECORDER, now()).await.unwrap();
    assert!(known.iter().eq(list()));
    assert_eq!(tasks.listed(project, State::Received, RECORDER, now()).await.unwrap(), []);
    assert_eq!(tasks.begin_marks(project, RECORDER, now()).await.unwrap(), [], "all of it is known");

    let all = tasks.list(project, &Filter::default(), None, 1_000, now()).await.unwrap().rows;
    assert_eq!(all.len(), 300);
    for queue in [None, Some("q-rare"), Some("q-often"), Some("q-none")] {
        for state in [None, Some(State::Started), Some(State::Failed), Some(State::Lost)] {
            let filter = Filter { queue: queue.map(ToOwned::to_owned), state, ..Filter::default() };
            let wanted: Vec<TaskId> = all.iter().filter(|row| filter.prepare().admits(row)).map(|row| row.id).collect();
            for limit in [7, 500] {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let page = tasks.list(project, &filter, after, limit, now()).await.unwrap();
                    found.extend(page.rows.iter().map(|row| row.id));
                    match page.next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
                assert_eq!(found, wanted, "{filter:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn marks_name_what_a_walk_finds_in_memory() {
    for writer in [0, 5] {
        marks_name_what_a_walk_finds(Tasks::new(Arc::new(Memory::new()), writer, RETENTION)).await;
    }
}

#[tokio::test]
async fn marks_name_what_a_walk_finds_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    marks_name_what_a_walk_finds(Tasks::new(Arc::new(store), 0, RETENTION)).await;
}

#[tokio::test]
async fn marks_name_what_a_walk_finds_on_a_cluster() {
    let Some(config) = cluster() else { return };
    let store = Cql::open(&config).await.unwrap();
    marks_name_what_a_walk_finds(Tasks::new(Arc::new(store), 7, RETENTION)).await;
}

/// An earlier version kept all open tasks of a recorder in 32 slots, whatever their state.
#[tokio::test(start_paused = true)]
async fn tasks_that_an_earlier_version_listed_are_found_before_and_after_they_are_filed() {
    let tasks = Tasks::new(Arc::new(Memory::new()), 0, RETENTION);
    let project = ProjectId::mint(now());
    let since = tasks.begin_marks(project, RECORDER, now()).await.unwrap();
    tasks.store.write(since).await.unwrap();
    let states = [("received", State::Received), ("started", State::Started), ("retried", State::Retried)];
    let (lister, mut slots) = (key::lister(project, RECORDER, 0), key::slots(project, RECORDER, 0));
    let mut writes = vec![Write::put(lister, [1].as_slice())];
    for n in 0..30_usize {
        let (name, at) = (format!("t-{n}"), now().plus_secs(-(n as i64)));
        let reports = vec![report(Engine::Rq, &name, states[n % 3].0, at, "{}")];
        let task = Task::first(Engine::Rq, &name, reports, Layout::Day, RETENTION, now()).unwrap();
        let commit = tasks.first_sight(project, &task, now()).unwrap();
        assert_eq!(tasks.store.commit_one(commit).await.unwrap(), Committed::Done);
        writes.push(Write::put(slots.next().unwrap(), [&[1][..], &task.id().bytes()].concat()));
    }
    tasks.store.write(writes).await.unwrap();
    assert_open(&tasks, project, states.map(|(_, state)| state)).await;
    let filed = tasks.begin_marks(project, RECORDER, now()).await.unwrap();
    tasks.store.write(filed).await.unwrap();
    assert_open(&tasks, project, states.map(|(_, state)| state)).await;
    for slot in key::slots(project, RECORDER, 0) {
        assert_eq!(tasks.store.get(&slot).await.unwrap(), None);
    }
    assert_eq!(tasks.begin_marks(project, RECORDER, now()).await.unwrap(), [], "once");
}

async fn assert_open(tasks: &Tasks, project: ProjectId, states: [State; 3]) {
    for state in states {
        let filter = Filter { state: Some(state), ..Filter::default() };
        let found = tasks.list(project, &filter, None, 50, now()).await.unwrap().rows;
        assert_eq!(found.len(), 10, "{state}");
    }
}
