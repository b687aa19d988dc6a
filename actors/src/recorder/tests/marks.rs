//! Whatever happens, marks and lists of open tasks name every task that a walk over all rows would find.

use domain::task::TaskRow;

use super::*;

const QUEUES: [&str; 3] = ["often", "rare", "never-changed"];
const KINDS: [&str; 7] = ["received", "started", "succeeded", "failed", "retried", "revoked", "started"];
const TASKS: u8 = 10;

/// Something that happens to a recorder's tasks.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An event of a task: which kind, which queue it names, seconds after the task's birth.
    Event(u8, usize, usize, i64),
    Delete(u8),
    Lose(u8),
    /// The recorder dies; its successor knows nothing.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..TASKS, 0..KINDS.len(), 0..QUEUES.len(), 0_i64..400)
            .prop_map(|(task, kind, queue, after)| Step::Event(task, kind, queue, after)),
        2 => (0..TASKS).prop_map(Step::Delete),
        2 => (0..TASKS).prop_map(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

/// Tasks of several days, some within one zone of marks.
fn sighting(task: u8, kind: usize, queue: usize, after_secs: i64) -> Sighting {
    let born = NOW.plus_secs(-40_000 * i64::from(task / 3)).plus_micros(-1_000_000_000 - i64::from(task) * 20_000);
    let (kind, at) = (format!("task.{}", KINDS[kind]), born.plus_secs(after_secs).to_string());
    let (id, name) = (EventId::mint(NOW).to_string(), format!("task-{task}"));
    let data = format!(r#"{{"task_name":"app.work","worker":"w@vm","queue":"{}"}}"#, QUEUES[queue]);
    let fields = EventFields {
        id: Some(&id),
        kind: Some(&kind),
        engine: Some("celery"),
        task_id: Some(&name),
        occurred_at: Some(&at),
        data: Some(&data),
    };
    Sighting::from_event(&fields, &Reporter { agent: AgentId::from_bytes([2; 16]), worker_id: None }, NOW).unwrap()
}

impl Home {
    fn whole(&self, sighting: Sighting) -> Batch {
        let item = Item { ticket: Ticket::Whole("frame".into()), seen: Seen::Report(Box::new(sighting)) };
        let work = Work::Events { sink: self.sink.clone(), since: Instant::now(), items: vec![item] };
        Batch { project: PROJECT, work }
    }

    async fn take(&self, step: Step, tasks: &Tasks) {
        let key = |task: u8| TaskKey::new(Engine::Celery, &format!("task-{task}"));
        let work = match step {
            Step::Event(task, kind, queue, after) => {
                assert!(self.recorders.send(0, self.whole(sighting(task, kind, queue, after))).await);
                return;
            }
            Step::Delete(task) => Work::Deletions {
                keys: vec![key(task)],
                deletion: EventId::mint(NOW),
                reply: tokio::sync::oneshot::channel().0,
            },
            Step::Lose(task) => {
                let row = tasks.detail(PROJECT, Engine::Celery, &format!("task-{task}")).await;
                let Ok(Some(row)) = row else { return };
                Work::Lost { tasks: vec![(key(task), row.updated_at)] }
            }
            Step::Restart => return,
        };
        assert!(self.recorders.send(0, Batch { project: PROJECT, work }).await);
    }
}

/// Every filter that marks can answer, alone, together, and with bounds.
fn filters() -> Vec<Filter> {
    let queues = QUEUES.iter().map(|queue| Some((*queue).to_owned())).chain([None, Some("unheard of".to_owned())]);
    let states: Vec<Option<State>> = State::ALL.into_iter().map(Some).chain([None]).collect();
    let both = queues.flat_map(|queue| {
        let one = move |state: &Option<State>| Filter { queue: queue.clone(), state: *state, ..Filter::default() };
        states.iter().map(one).collect::<Vec<_>>()
    });
    let bounded = |filter: Filter| {
        let (since, until) = (Some(NOW.plus_secs(-100_000)), Some(NOW.plus_secs(-41_000)));
        [Filter { since, ..filter.clone() }, Filter { until, ..filter.clone() }, filter]
    };
    both.flat_map(bounded).collect()
}

async fn pages(tasks: &Tasks, filter: &Filter, limit: usize) -> Vec<TaskRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = tasks.list(PROJECT, filter, after, limit, NOW).await.unwrap();
        assert!(page.next.is_none() || page.rows.len() == limit, "a short page with a cursor");
        rows.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

/// Compares with a walk over all rows, which is what a list without a queue and a state does.
async fn assert_all_found(tasks: &Tasks) {
    let all = pages(tasks, &Filter::default(), 5).await;
    for filter in filters() {
        let wanted: Vec<&TaskRow> = all.iter().filter(|row| filter.prepare().admits(row)).collect();
        for limit in [1, 3, 300] {
            let found = pages(tasks, &filter, limit).await;
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{filter:?}, {limit} a page");
        }
        let count = tasks.count(PROJECT, &filter, 10_000, NOW).await.unwrap();
        assert_eq!(count, Some(wanted.len() as u64), "{filter:?}");
        let ids = tasks.select(PROJECT, &filter, None, 1_000, NOW).await.unwrap();
        assert_eq!(ids, wanted.iter().map(|row| row.id).collect::<Vec<_>>(), "{filter:?}");
    }
}

fn run(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(story);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn marks_and_rows_show_the_same(steps in proptest::collection::vec((step(), any::<bool>()), 1..60)) {
        run(async {
            let store = Memory::new();
            let clock = Clock::starting_at(NOW);
            let tasks = Tasks::new(Arc::new(store.clone()), 0, RETENTION_SECS);
            let mut home = Home::start(store.clone(), 0, &clock).await;
            for (step, waits) in steps {
                if matches!(step, Step::Restart) {
                    home.actor.kill_and_wait(None).await.unwrap();
                    home = Home::start(store.clone(), 0, &clock).await;
                }
                home.take(step, &tasks).await;
                // Else it shares a round with the next.
                if waits {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            home.acks().await;
            assert_all_found(&tasks).await;
        });
    }

    /// Two homes at once on a store that fails, delays and does not know: each event is sent again until it is acked,
    /// to whichever home.
    #[test]
    fn marks_and_rows_show_the_same_whoever_writes(
        seed: u64,
        steps in proptest::collection::vec((step(), any::<bool>(), any::<bool>()), 1..50),
    ) {
        run(async {
            let faults = Faults {
                read_failed: 0.03,
                write_failed: 0.1,
                write_delayed: 0.2,
                commit_failed: 0.05,
                commit_unknown: 0.1,
                latency: Duration::ZERO..=Duration::from_millis(20),
                ..Faults::default()
            };
            let store = Memory::with_faults(seed, Faults::default());
            let clock = Clock::starting_at(NOW);
            crowd(&Home::start(store.handle(), 98, &clock).await).await;
            store.set_faults(faults);
            let tasks = Tasks::new(Arc::new(store.handle()), 99, RETENTION_SECS);
            let mut writer = 3;
            let mut homes = [Home::start(store.clone(), 1, &clock).await, Home::start(store.handle(), 2, &clock).await];
            for (step, right, waits) in steps {
                let home = usize::from(right);
                if matches!(step, Step::Restart) {
                    homes[home].actor.kill_and_wait(None).await.unwrap();
                    homes[home] = Home::start(store.handle(), writer, &clock).await;
                    writer += 1;
                }
                homes[home].take(step, &tasks).await;
                if waits {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            for home in &homes {
                home.acks().await;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            store.set_faults(Faults::default());
            assert_all_found(&tasks).await;
        });
    }
}

/// So many newer tasks of no interest that a look at the newest sends every list to the marks.
async fn crowd(home: &Home) {
    for n in 0..140 {
        let (id, name) = (EventId::mint(NOW).to_string(), format!("crowd-{n}"));
        let at = NOW.plus_micros(-1_000 * n).to_string();
        let fields = EventFields {
            id: Some(&id),
            kind: Some("task.succeeded"),
            engine: Some("celery"),
            task_id: Some(&name),
            occurred_at: Some(&at),
            data: Some(r#"{"task_name":"x","queue":"crowd"}"#),
        };
        let reporter = Reporter { agent: AgentId::from_bytes([2; 16]), worker_id: None };
        home.recorders.send(0, home.whole(Sighting::from_event(&fields, &reporter, NOW).unwrap())).await;
    }
    home.acks().await;
}

/// What marks save: store reads of a list, counted.
#[derive(Clone)]
struct Counted {
    store: Memory,
    rows: Arc<std::sync::atomic::AtomicUsize>,
}

impl Counted {
    fn new(store: Memory) -> Self {
        Self { store, rows: Arc::default() }
    }

    /// Rows of tasks read since it was last asked.
    fn rows(&self) -> usize {
        self.rows.swap(0, std::sync::atomic::Ordering::Relaxed)
    }

    fn note(&self, table: Table, rows: usize) {
        if table == Table::Task {
            self.rows.fetch_add(rows, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[async_trait::async_trait]
impl Store for Counted {
    async fn get(&self, key: &cql::Key) -> cql::store::Result<Option<bytes::Bytes>> {
        self.note(key.table, 1);
        self.store.get(key).await
    }

    async fn scan(&self, range: Range) -> cql::store::Result<Vec<cql::Row>> {
        let table = range.table;
        let rows = self.store.scan(range).await?;
        self.note(table, rows.len());
        Ok(rows)
    }

    async fn write(&self, writes: Vec<cql::Write>) -> cql::store::Result<()> {
        self.store.write(writes).await
    }

    async fn commit(&self, commits: Vec<cql::Commit>) -> Vec<cql::store::Result<cql::Committed>> {
        self.store.commit(commits).await
    }

    fn durability(&self) -> cql::store::Durability {
        self.store.durability()
    }
}

/// Ends `many` tasks, one of a hundred in the rare queue, one of a hundred and fifty failed.
async fn finish(home: &Home, many: usize) {
    let send = async |n: usize, kind: &str, at: Timestamp| {
        let (id, name, kind) = (EventId::mint(NOW).to_string(), format!("t-{n}"), format!("task.{kind}"));
        let data = format!(r#"{{"task_name":"x","queue":"{}"}}"#, if n.is_multiple_of(100) { "rare" } else { "often" });
        let at = at.to_string();
        let fields = EventFields {
            id: Some(&id),
            kind: Some(&kind),
            engine: Some("celery"),
            task_id: Some(&name),
            occurred_at: Some(&at),
            data: Some(&data),
        };
        let reporter = Reporter { agent: AgentId::from_bytes([2; 16]), worker_id: None };
        home.recorders.send(0, home.whole(Sighting::from_event(&fields, &reporter, NOW).unwrap())).await;
    };
    for n in 0..many {
        let at = NOW.plus_micros(-1_000 * (many - n) as i64);
        send(n, "received", at).await;
        send(n, if n % 150 == 1 { "failed" } else { "succeeded" }, at.plus_micros(500)).await;
        if n.is_multiple_of(100) {
            // Commits come in rounds of what waits.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    home.acks().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_of_few_among_many_reads_few() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    finish(&home, 10_000).await;
    let counted = Counted::new(store.clone());
    let tasks = Tasks::new(Arc::new(counted.clone()), 0, RETENTION_SECS);
    let rare = Filter { queue: Some("rare".to_owned()), ..Filter::default() };
    let failed = Filter { state: Some(State::Failed), ..Filter::default() };
    let rare_failed = Filter { state: Some(State::Failed), ..rare.clone() };
    let open = |state| Filter { state: Some(state), ..Filter::default() };
    let cases = [
        (&rare, 50, 51),
        (&failed, 50, 51),
        (&rare_failed, 0, 0),
        (&open(State::Started), 0, 0),
        (&open(State::Received), 0, 0),
        (&open(State::Retried), 0, 0),
        (&open(State::Lost), 0, 0),
    ];
    for (filter, shown, read) in cases {
        let page = tasks.list(PROJECT, filter, None, 50, NOW).await.unwrap();
        assert_eq!((page.rows.len(), counted.rows()), (shown, read), "{filter:?}");
        let next = tasks.list(PROJECT, filter, page.next, 50, NOW).await.unwrap();
        assert!(counted.rows() <= 51, "{filter:?}: {} on the second page", next.rows.len());
    }
    // All of them, whatever many or few want: a look at the newest, then what is named.
    assert_eq!(tasks.count(PROJECT, &rare, 1_000, NOW).await.unwrap(), Some(100));
    assert!(counted.rows() < 700);
    assert_eq!(tasks.count(PROJECT, &failed, 1_000, NOW).await.unwrap(), Some(67));
    assert!(counted.rows() < 700);
    // Most of them are read as they lie.
    let often = Filter { queue: Some("often".to_owned()), ..Filter::default() };
    assert_eq!(tasks.count(PROJECT, &often, 100_000, NOW).await.unwrap(), Some(9_900));
    assert!((10_000..11_000).contains(&counted.rows()));
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_store_without_marks_are_found_and_later_ones_are_marked() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW.plus_secs(-3_600))).await;
    home.send(&[event(1, 1, "task.received", -7_200_000), event(2, 1, "task.failed", -7_100_000)]).await;
    home.send(&[event(3, 2, "task.started", -7_300_000)]).await;
    home.acks().await;
    // As a version without marks would have left it.
    let partition = PROJECT.bytes().to_vec();
    let rows = store.scan(Range::all(Table::TaskOpen, partition.clone(), 100)).await.unwrap();
    let delete = |row: cql::Row| cql::Write::delete(cql::Key::new(Table::TaskOpen, partition.clone(), row.clustering));
    store.write(rows.into_iter().map(delete).collect()).await.unwrap();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    let tasks = Tasks::new(Arc::new(store.clone()), 0, RETENTION_SECS);
    assert_all_found_named(&tasks, [State::Failed, State::Started], ["task-1", "task-2"]).await;
    // Their successors are marked, and they themselves still found.
    home.send(&[event(4, 3, "task.received", -1_000), event(5, 3, "task.failed", -900)]).await;
    home.send(&[event(6, 4, "task.started", -1_100)]).await;
    home.acks().await;
    assert!(store.count(Table::TaskOpen) > 0);
    for (state, wanted) in [(State::Failed, ["task-3", "task-1"]), (State::Started, ["task-4", "task-2"])] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        let found: Vec<String> = pages(&tasks, &filter, 1).await.into_iter().map(|row| row.task_id).collect();
        assert_eq!(found, wanted);
    }
    let queue = Filter { queue: Some("celery".to_owned()), ..Filter::default() };
    assert_eq!(pages(&tasks, &queue, 2).await.len(), 4);
}

async fn assert_all_found_named(tasks: &Tasks, states: [State; 2], wanted: [&str; 2]) {
    for (state, wanted) in states.into_iter().zip(wanted) {
        let filter = Filter { state: Some(state), ..Filter::default() };
        let found: Vec<String> = pages(tasks, &filter, 1).await.into_iter().map(|row| row.task_id).collect();
        assert_eq!(found, [wanted]);
    }
}

/// A list is written whole whenever it changes, so many tasks that stay open must not make it long.
#[tokio::test(start_paused = true)]
async fn tasks_that_stay_open_leave_the_list_and_what_names_them_goes_when_they_end() {
    let store = Memory::new();
    let home = Home::start(store.clone(), 0, &Clock::starting_at(NOW)).await;
    let all = async |kind, first: u16| {
        for task in 0..200 {
            home.send(&[event(first + u16::from(task), task, kind, -60_000 + i64::from(first))]).await;
        }
        home.acks().await;
    };
    all("task.started", 0).await;
    let lists = store.scan(Range::all(Table::TaskOpen, PROJECT.bytes().to_vec(), 100)).await.unwrap();
    assert!(lists.iter().all(|list| list.value.len() < 16 * 100), "{lists:?}");
    let open = store.count(Table::TaskMark);
    all("task.succeeded", 1_000).await;
    assert!(open - store.count(Table::TaskMark) > 100, "{open}, {}", store.count(Table::TaskMark));
}

/// One task leaves a list that another one joins, and the round is lost: the first is still in its state.
#[tokio::test(start_paused = true)]
async fn who_left_a_list_in_a_round_that_is_lost_is_listed_again() {
    let store = Memory::with_faults(1, Faults::default());
    let home = Home::start(store.clone(), 1, &Clock::starting_at(NOW)).await;
    crowd(&home).await;
    home.send(&[event(1, 1, "task.started", -60_000), event(2, 2, "task.received", -60_000)]).await;
    home.acks().await;
    store.inject(Fault::CommitFailed);
    home.send(&[event(3, 1, "task.failed", -50_000), event(4, 2, "task.started", -50_000)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    home.send(&[event(5, 3, "task.started", -40_000)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tasks = Tasks::new(Arc::new(store.handle()), 99, RETENTION_SECS);
    let filter = Filter { state: Some(State::Started), ..Filter::default() };
    let found: Vec<String> = pages(&tasks, &filter, 9).await.into_iter().map(|row| row.task_id).collect();
    assert_eq!(found, ["task-3", "task-1"]);
}

/// Each value of a row that is written again has to be stepped over until it is flushed.
#[tokio::test(start_paused = true)]
async fn a_partition_is_noted_once_and_again_by_who_does_not_know() {
    let store = Memory::new();
    let clock = Clock::starting_at(NOW);
    let home = Home::start(store.clone(), 0, &clock).await;
    home.send(&life(1)).await;
    home.acks().await;
    let partition = [PROJECT.bytes().as_slice(), &(NOW.millis() as u64 / 86_400_000).to_be_bytes()].concat();
    let rows = store.scan(Range::all(Table::Segment, partition.clone(), 9)).await.unwrap();
    assert_eq!(rows.len(), 1);
    let gone = cql::Key::new(Table::Segment, partition.clone(), rows[0].clustering.clone());
    store.write(vec![cql::Write::delete(gone)]).await.unwrap();
    let noted = async || store.scan(Range::all(Table::Segment, partition.clone(), 9)).await.unwrap().len();
    home.send(&life(2)).await;
    home.acks().await;
    assert_eq!(noted().await, 0, "it was durable");
    let home = Home::start(store.clone(), 0, &clock).await;
    home.send(&life(3)).await;
    home.acks().await;
    assert_eq!(noted().await, 1);
}

/// With a longer retention a row that is written again outlives the marks of before, so what was stored is walked.
#[tokio::test(start_paused = true)]
async fn a_longer_retention_begins_the_marks_anew() {
    let store = Memory::new();
    let clock = Clock::starting_at(NOW);
    let mut home = Home::start(store.clone(), 0, &clock).await;
    home.actor.kill_and_wait(None).await.unwrap();
    let started = async |home: &Home, secs: i64| {
        let mut wiring = home.wiring.clone();
        wiring.tasks = Tasks::new(Arc::new(store.clone()), 0, secs);
        let (recorders, mut inboxes) = Recorders::channels(1);
        wiring.inbox = Arc::new(Mutex::new(inboxes.remove(0)));
        let (actor, _ended) = Actor::spawn(None, Recorder, wiring.clone()).await.unwrap();
        Home { recorders, wiring, actor, sink: home.sink.clone() }
    };
    home = started(&home, 86_400).await;
    home.send(&[event(1, 1, "task.started", -1_000)]).await;
    home.acks().await;
    home = started(&home, RETENTION_SECS).await;
    home.send(&[event(2, 1, "task.failed", -900)]).await;
    // A new task of that day keeps its partition known.
    home.send(&[event(3, 2, "task.started", -800)]).await;
    home.acks().await;
    tokio::time::sleep(Duration::from_secs(3 * 86_400)).await;
    let queue = Filter { queue: Some("celery".to_owned()), ..Filter::default() };
    let tasks = &home.wiring.tasks;
    let found = tasks.list(PROJECT, &queue, None, 9, NOW.plus_secs(3 * 86_400)).await.unwrap().rows;
    assert_eq!(found.iter().map(|row| row.state).collect::<Vec<_>>(), [State::Started, State::Failed]);
}

/// Neither home's row says started, only both together: no mark of a value can name such a task.
#[tokio::test(start_paused = true)]
async fn a_task_of_two_homes_is_found_by_what_none_of_them_saw() {
    let delay = Duration::from_secs(1);
    let store = Memory::with_faults(1, Faults { delay: delay..=delay, ..Faults::default() });
    let clock = Clock::starting_at(NOW);
    let homes = [Home::start(store.clone(), 1, &clock).await, Home::start(store.handle(), 2, &clock).await];
    crowd(&homes[1]).await;
    // What the first home writes reaches the other late: its marks, then its row.
    store.inject(Fault::WriteDelayed);
    store.inject(Fault::WriteDelayed);
    homes[0].send(&[event(1, 1, "task.started", -60_000), event(2, 1, "task.succeeded", -55_000)]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    homes[1].send(&[event(3, 1, "task.started", -40_000), event(4, 1, "task.failed", -50_000)]).await;
    for home in &homes {
        assert_eq!(home.acks().await.len(), 2);
    }
    let tasks = Tasks::new(Arc::new(store.handle()), 99, RETENTION_SECS);
    for (state, found) in [(State::Started, 1), (State::Failed, 0), (State::Succeeded, 140)] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        assert_eq!(pages(&tasks, &filter, 9).await.len(), found, "{state}");
    }
}
