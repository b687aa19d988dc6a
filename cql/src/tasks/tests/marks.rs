//! Marks on every engine: what they name is what a walk over all rows finds.

use domain::task::Mark;

use super::*;
use crate::contract::cluster;
use crate::engine::cql::Cql;

const RECORDER: u16 = 2;

/// Three hundred tasks of three days in every layout, all marked, some gone open again and back.
async fn marks_name_what_a_walk_finds(tasks: Tasks) {
    let project = ProjectId::mint(now());
    let mut begun = tasks.begin_marks(project, RECORDER, now()).await.unwrap();
    assert_eq!(begun.len(), if tasks.is_alone() { 2 } else { 1 });
    let (mut open, mut failed) = (BTreeSet::new(), Vec::new());
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
            open.insert(task.id());
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
    writes.extend(tasks.mark(project, Mark::State(State::Failed), &[*open.first().unwrap()], now()));
    writes.extend(tasks.mark(project, Mark::State(State::Failed), &[failed[0].next()], now()));
    let mut slots: std::collections::BTreeMap<Slot, Vec<TaskId>> = std::collections::BTreeMap::new();
    for id in open.iter().chain(&failed[..3]) {
        slots.entry(Slot::of(*id)).or_default().push(*id);
    }
    for (slot, ids) in &slots {
        writes.push(tasks.put_open(project, *slot, RECORDER, ids.iter()));
    }
    tasks.store.write(writes).await.unwrap();
    for (slot, ids) in slots {
        assert_eq!(tasks.open_in(project, slot, RECORDER, now()).await.unwrap(), ids);
    }
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
