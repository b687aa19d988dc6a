//! The recorder's promises, on the memory engine: acked means durable, whatever fails, restarts or races.

mod marks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cql::engine::memory::{Fault, Faults, Memory};
use cql::stats::{self, Counter};
use cql::tasks::Tasks;
use cql::{Range, Store, Table};
use domain::engine::Engine;
use domain::id::address::{Layout, Shard, TaskId, TaskKey};
use domain::id::{AgentId, EventId, ProjectId};
use domain::task::{EventFields, Filter, Reporter, Sighting, State};
use domain::time::Timestamp;
use proptest::prelude::*;
use ractor::{Actor, ActorRef};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::*;

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
const NOW: Timestamp = Timestamp::from_secs(1_776_340_800);
const RETENTION_SECS: i64 = 35 * 86_400;

/// One recorder and the way into it.
struct Home {
    recorders: Recorders,
    wiring: Wiring,
    actor: ActorRef<Next>,
    sink: Arc<AckSink>,
}

impl Home {
    async fn start(store: Memory, writer: u64, clock: &Clock) -> Self {
        let (recorders, mut inboxes) = Recorders::channels(1);
        let store: Arc<dyn Store> = Arc::new(store);
        let wiring = Wiring {
            tasks: Tasks::new(store.clone(), writer, RETENTION_SECS),
            store,
            clock: clock.clone(),
            counter: Counter { recorder: 0, writer },
            layout: Layout::Day,
            changes: crate::changes::Changes::default(),
            inbox: Arc::new(Mutex::new(inboxes.remove(0))),
            complaint: Arc::default(),
        };
        let (actor, _ended) = Actor::spawn(None, Recorder, wiring.clone()).await.unwrap();
        Self { recorders, wiring, actor, sink: Arc::new(AckSink::default()) }
    }

    async fn send(&self, events: &[Event]) {
        let items = events
            .iter()
            .map(|event| Item {
                ticket: Ticket::Whole(event.id.to_string().into()),
                seen: Seen::Report(Box::new(event.sighting())),
            })
            .collect();
        let batch =
            Batch { project: PROJECT, work: Work::Events { sink: self.sink.clone(), since: Instant::now(), items } };
        assert!(self.recorders.send(self.recorders.of(Shard::of_key(PROJECT, events[0].key())), batch).await);
    }

    /// Acks that arrive before the recorder falls silent.
    async fn acks(&self) -> Vec<Ack> {
        let mut all = Vec::new();
        while tokio::time::timeout(Duration::from_secs(2), self.sink.ready()).await.is_ok() {
            all.extend(self.sink.take().list);
        }
        all.extend(self.sink.take().list);
        all
    }
}

/// One event of a Celery task.
#[derive(Clone, Debug)]
struct Event {
    id: EventId,
    task: u8,
    kind: &'static str,
    at: Timestamp,
}

fn event(id: u16, task: u8, kind: &'static str, at_ms: i64) -> Event {
    let mut bytes = [1; 16];
    bytes[14..].copy_from_slice(&id.to_be_bytes());
    Event { id: EventId::from_bytes(bytes), task, kind, at: NOW.plus_micros(at_ms * 1000) }
}

impl Event {
    fn task_id(&self) -> String {
        format!("task-{}", self.task)
    }

    fn key(&self) -> TaskKey {
        TaskKey::new(Engine::Celery, &self.task_id())
    }

    fn sighting(&self) -> Sighting {
        let (id, task_id, at) = (self.id.to_string(), self.task_id(), self.at.to_string());
        let fields = EventFields {
            id: Some(&id),
            kind: Some(self.kind),
            engine: Some("celery"),
            task_id: Some(&task_id),
            occurred_at: Some(&at),
            data: Some(r#"{"task_name":"math.add","queue":"celery"}"#),
        };
        Sighting::from_event(&fields, &Reporter { agent: AgentId::from_bytes([2; 16]), worker_id: None }, NOW).unwrap()
    }
}

fn life(task: u8) -> Vec<Event> {
    let kinds = ["task.received", "task.started", "task.succeeded"];
    (0..3).map(|n| event(u16::from(task) * 3 + n, task, kinds[usize::from(n)], i64::from(n) * 50)).collect()
}

async fn row_state(store: &Memory, task: u8) -> Option<State> {
    let tasks = Tasks::new(Arc::new(store.clone()), 1, RETENTION_SECS);
    tasks.detail(PROJECT, Engine::Celery, &format!("task-{task}")).await.unwrap().map(|row| row.state)
}

#[tokio::test(start_paused = true)]
async fn an_acked_event_is_in_its_task_and_a_repeat_is_acked_as_no_news() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    home.send(&life(1)).await;
    let acks = home.acks().await;
    assert_eq!(acks.iter().map(|ack| ack.accepted).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(row_state(&store, 1).await, Some(State::Succeeded));
    home.send(&life(1)).await;
    assert_eq!(home.acks().await.iter().map(|ack| (ack.received, ack.accepted)).collect::<Vec<_>>(), [(1, 0); 3]);
    let totals = stats::totals(&store, PROJECT, NOW, NOW).await.unwrap();
    assert_eq!((totals.by_state, totals.succeeded), ([0, 0, 1, 0, 0, 0, 0], 1), "a repeat must not count");
}

/// Whether a list shows a task.
async fn is_listed(tasks: &Tasks, id: TaskId) -> bool {
    let page = tasks.list(PROJECT, &Filter::default(), None, 10, NOW).await.unwrap();
    page.rows.iter().any(|row| row.id == id)
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_writer_died_before_its_place_in_the_lists_gets_it_when_its_event_comes_again() {
    let store = Memory::new();
    let clock = Clock::starting_at(NOW);
    let first = Home::start(store.clone(), 1, &clock).await;
    first.send(&life(1)[..1]).await;
    first.acks().await;
    let tasks = Tasks::new(Arc::new(store.handle()), 9, RETENTION_SECS);
    let id = tasks.locate(PROJECT, life(1)[0].key()).await.unwrap().unwrap();
    let place = tasks.segment(PROJECT, id, NOW).unwrap().key;
    store.write(vec![cql::Write::delete(place)]).await.unwrap();
    assert!(!is_listed(&tasks, id).await, "the list finds it without a segment");
    let second = Home::start(store.handle(), 2, &clock).await;
    store.inject(Fault::CommitFailed);
    second.send(&life(1)[..1]).await;
    assert_eq!(second.acks().await, [], "acked although its place is not durable");
    second.send(&life(1)[..1]).await;
    assert_eq!(second.acks().await.len(), 1);
    assert!(is_listed(&tasks, id).await);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_become_durable_is_not_acked_and_comes_through_when_sent_again() {
    for fault in
        [Fault::ReadFailed, Fault::CommitFailed, Fault::UnknownApplied, Fault::UnknownLater, Fault::UnknownNever]
    {
        let store = Memory::new();
        let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
        store.inject(fault);
        home.send(&life(1)[..1]).await;
        assert_eq!(home.acks().await, [], "{fault:?}");
        home.send(&life(1)[..1]).await;
        assert_eq!(home.acks().await.len(), 1, "{fault:?}");
        // The task is known by now, so nothing is read; its next event fails as well.
        if fault != Fault::ReadFailed {
            store.inject(fault);
        }
        home.send(&life(1)[1..]).await;
        home.acks().await;
        home.send(&life(1)[1..]).await;
        assert_eq!(home.acks().await.len(), 2, "{fault:?}");
        assert_eq!(row_state(&store, 1).await, Some(State::Succeeded), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_dies_loses_no_acked_event() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    home.send(&life(1)[..2]).await;
    assert_eq!(home.acks().await.len(), 2);
    home.actor.kill_and_wait(None).await.unwrap();
    // Its successor takes over the same inbox, with nothing in memory.
    home.send(&life(1)[2..]).await;
    let _successor = Actor::spawn(None, Recorder, home.wiring.clone()).await.unwrap();
    assert_eq!(home.acks().await.len(), 1);
    assert_eq!(row_state(&store, 1).await, Some(State::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_no_report_is_kept_aside_and_acked() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    let seen = Seen::Unstorable { event: "worker.online".into(), reason: "not a task event".into() };
    let items = vec![Item { ticket: Ticket::Whole("frame".into()), seen }];
    home.recorders
        .send(
            0,
            Batch { project: PROJECT, work: Work::Events { sink: home.sink.clone(), since: Instant::now(), items } },
        )
        .await;
    assert_eq!(home.acks().await, [Ack { id: "frame".into(), received: 1, accepted: 0 }]);
    let day = (NOW.micros() / 86_400_000_000) as u32;
    let partition = [PROJECT.bytes().as_slice(), &day.to_be_bytes()].concat();
    assert_eq!(store.scan(Range::all(Table::DeadLetter, partition, 9)).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_started_task_is_lost_unless_something_was_heard_meanwhile() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    home.send(&life(1)[..2]).await;
    home.acks().await;
    let tasks = Tasks::new(Arc::new(store.clone()), 0, RETENTION_SECS);
    let seen_at = tasks.detail(PROJECT, Engine::Celery, "task-1").await.unwrap().unwrap().updated_at;
    let lose = async |seen_at| {
        let work = Work::Lost { tasks: vec![(life(1)[0].key(), seen_at)] };
        home.recorders.send(0, Batch { project: PROJECT, work }).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    lose(seen_at.plus_micros(-1)).await;
    assert_eq!(row_state(&store, 1).await, Some(State::Started));
    lose(seen_at).await;
    assert_eq!(row_state(&store, 1).await, Some(State::Lost));
    let late = event(9, 1, "task.succeeded", 9_000_000);
    home.send(&[late]).await;
    home.acks().await;
    assert_eq!(row_state(&store, 1).await, Some(State::Succeeded), "any later report beats the word");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Two homes for the same shard on one store with faults (I-1, I-2): every acked event shows in its task,
    /// no task has two ids, and the row is what one home would have made of the same events.
    #[test]
    fn two_homes_lose_nothing_and_give_no_task_two_ids(seed: u64, sends in proptest::collection::vec((0_u8..6, 0_usize..3, any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(race(seed, sends));
    }
}

async fn race(seed: u64, sends: Vec<(u8, usize, bool)>) {
    let faults = Faults {
        read_failed: 0.05,
        write_failed: 0.05,
        write_delayed: 0.3,
        commit_failed: 0.05,
        commit_unknown: 0.15,
        latency: Duration::ZERO..=Duration::from_millis(20),
        ..Faults::default()
    };
    let store = Memory::with_faults(seed, faults);
    let clock = Clock::starting_at(NOW);
    let homes = [Home::start(store.clone(), 1, &clock).await, Home::start(store.handle(), 2, &clock).await];
    for (task, step, right) in sends {
        homes[usize::from(right)].send(&life(task)[step..=step]).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut acked = BTreeSet::new();
    for home in &homes {
        acked.extend(home.acks().await.into_iter().map(|ack| ack.id));
    }
    // Whatever was delayed has arrived by now, and readers see a healthy store.
    tokio::time::sleep(Duration::from_secs(5)).await;
    store.set_faults(Faults::default());
    let reader = store.handle();
    let tasks = Tasks::new(Arc::new(reader.clone()), 3, RETENTION_SECS);
    let rows = tasks.list(PROJECT, &Filter::default(), None, 100, clock.now()).await.unwrap();
    let mut ids = BTreeMap::<String, BTreeSet<String>>::new();
    for row in &rows.rows {
        ids.entry(row.task_id.clone()).or_default().insert(row.id.to_string());
    }
    for (task, ids) in &ids {
        assert_eq!(ids.len(), 1, "{task} has several ids");
    }
    for task in 0..6 {
        let heard: BTreeSet<Box<str>> = life(task).iter().map(|event| event.id.to_string().into()).collect();
        let heard: BTreeSet<_> = heard.intersection(&acked).cloned().collect();
        let stored = tasks.get(PROJECT, Engine::Celery, &format!("task-{task}")).await.unwrap();
        let stored: BTreeSet<Box<str>> =
            stored.iter().flat_map(|task| task.reports()).map(|report| report.id().to_string().into()).collect();
        assert!(heard.is_subset(&stored), "acked but not stored: {:?}", heard.difference(&stored));
        if !heard.is_empty() {
            assert!(ids.contains_key(&format!("task-{task}")), "acked but not listed");
        }
    }
}
