use std::time::Duration;

use cql::engine::memory::Memory;
use domain::id::SessionId;

use super::*;

const PROJECT: ProjectId = ProjectId::from_bytes([1; 16]);
const AGENT: AgentId = AgentId::from_bytes([2; 16]);

struct Node {
    presence: Presence,
    store: Memory,
    clock: Clock,
}

impl Node {
    fn new(store: &Memory, node: u8, alone: bool) -> Self {
        let clock = Clock::starting_at(Timestamp::from_secs(1_800_000_000));
        let config = PresenceConfig {
            store: Arc::new(store.clone()),
            clock: clock.clone(),
            changes: Changes::default(),
            node: NodeId::from_bytes([node; 16]),
            alone,
        };
        Self { presence: Presence::new(config), store: store.clone(), clock }
    }

    async fn connect(&self, agent: AgentId, worker: &str) -> SessionFacts {
        let hello = Hello {
            protocol_version: "2".to_owned(),
            agent_version: "1.13.0".to_owned(),
            framework: "bare".to_owned(),
            engines: vec!["celery".to_owned()],
            schedulers: Vec::new(),
            capabilities: BTreeMap::from([("celery".to_owned(), vec!["retry_task".to_owned()])]),
            host: serde_json::Map::new(),
            worker_id: Some(worker.to_owned()),
            worker_role: None,
            worker_pid: None,
            worker_started_at: None,
            runtime_features: Vec::new(),
        };
        let facts = SessionFacts {
            session: SessionId::mint(self.clock.now()),
            project: PROJECT,
            agent,
            worker_id: Some(worker.to_owned()),
            worker_role: None,
            engines: hello.engines.clone(),
            capabilities: self.presence.share(hello.capabilities.clone()),
            said_hello: true,
            connected_at: self.clock.now(),
        };
        self.presence.process_up(&facts, &hello).await;
        facts
    }
}

#[tokio::test(start_paused = true)]
async fn reading_sees_what_is_not_written_yet_and_writes_nothing() {
    let node = Node::new(&Memory::new(), 1, true);
    let facts = node.connect(AGENT, "w1").await;
    node.presence.queue_named(&facts, Engine::Celery, "mail", node.clock.now());
    node.presence.worker_named(&facts, Engine::Celery, "celery@a", node.clock.now());
    let (queues, workers) = (node.presence.queues(PROJECT).await, node.presence.workers(PROJECT).await);
    assert_eq!(queues.expect("queues")[0].row.name, "mail");
    let workers = workers.expect("workers");
    assert_eq!((workers[0].row.name.as_str(), workers[0].state), ("celery@a", OnlineState::Online));
    let stored = queue::of_project(&node.store, PROJECT).await.expect("readable");
    assert_eq!(stored, []);
    assert_eq!(worker::of_project(&node.store, PROJECT).await.expect("readable"), []);
}

#[tokio::test(start_paused = true)]
async fn a_stored_queue_and_what_was_heard_since_are_one() {
    let store = Memory::new();
    let before = Node::new(&store, 1, true);
    let facts = before.connect(AGENT, "w1").await;
    before.presence.queue_named(&facts, Engine::Celery, "mail", before.clock.now());
    before.presence.flush_agent(&facts).await;
    let created_at = before.clock.now();

    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = Node::new(&store, 2, true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let facts = after.connect(AGENT, "w1").await;
    after.presence.queue_named(&facts, Engine::Celery, "mail", after.clock.now());
    let queues = after.presence.queues(PROJECT).await.expect("queues");
    assert_eq!(queues.len(), 1);
    assert_eq!(queues[0].row.created_at, created_at);
    assert_eq!(queues[0].row.last_seen_at, after.clock.now());
    let one = after.presence.queue_of(PROJECT, Engine::Celery, AGENT, "mail").await.expect("readable");
    assert_eq!(one, Some(queues[0].row.clone()));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_or_goes_writes_what_its_agent_named_and_no_more() {
    let node = Node::new(&Memory::new(), 1, true);
    let stored = || async { queue::of_project(&node.store, PROJECT).await.expect("readable").len() };
    let facts = node.connect(AGENT, "w1").await;
    node.presence.queue_named(&facts, Engine::Celery, "mail", node.clock.now());
    let other = node.connect(AgentId::from_bytes([3; 16]), "w1").await;
    node.presence.process_down(&other).await;
    assert_eq!(stored().await, 0, "of five thousand that connect each would write what the others said since");
    node.presence.process_down(&facts).await;
    assert_eq!(stored().await, 1, "what goes leaves nothing unwritten");
}

#[tokio::test(start_paused = true)]
async fn one_agent_is_told_apart_from_its_neighbours() {
    let node = Node::new(&Memory::new(), 1, true);
    let other = AgentId::from_bytes([3; 16]);
    let facts = node.connect(AGENT, "w1").await;
    node.connect(other, "w1").await;
    let agent = node.presence.agent(PROJECT, AGENT).await.expect("readable");
    assert_eq!((agent.state, agent.processes.len()), (OnlineState::Online, 1));
    assert_eq!(agent.capabilities["celery"], ["retry_task"]);
    node.presence.process_down(&facts).await;
    assert_eq!(node.presence.agent(PROJECT, AGENT).await.expect("readable").state, OnlineState::Offline);
    assert_eq!(node.presence.agent(PROJECT, other).await.expect("readable").state, OnlineState::Online);
    let stranger = AgentId::from_bytes([4; 16]);
    assert_eq!(node.presence.agent(PROJECT, stranger).await.expect("readable").state, OnlineState::Unknown);
    let all = node.presence.agents(PROJECT).await.expect("readable");
    assert_eq!(all.len(), 2);
    assert_eq!(all[&AGENT].engines, agent.engines);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_moved_to_another_node_is_online_there() {
    let store = Memory::new();
    let (here, there) = (Node::new(&store, 1, false), Node::new(&store, 2, false));
    let facts = here.connect(AGENT, "w1").await;
    here.presence.process_down(&facts).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    there.connect(AGENT, "w1").await;
    for node in [&here, &there] {
        let agent = node.presence.agent(PROJECT, AGENT).await.expect("readable");
        assert_eq!((agent.state, agent.processes.len()), (OnlineState::Online, 1));
        assert_eq!(agent.newest.expect("a row").node, there.presence.node());
    }
}

/// What commands ask of an agent is what is shown of it, whoever of its processes is online, on one node or two.
#[tokio::test(start_paused = true)]
async fn commands_see_an_agent_as_it_is_shown() {
    for alone in [true, false] {
        let node = Node::new(&Memory::new(), 1, alone);
        let mut connected = Vec::new();
        for (worker, engines) in [("w1", &["celery"][..]), ("w2", &["celery"]), ("w3", &["rq", "celery"])] {
            let facts = node.connect(AGENT, worker).await;
            node.presence.with_process(&facts, |row| {
                row.engines = engines.iter().map(|&engine| engine.to_owned()).collect();
                let actions =
                    |engine: &&str| ((*engine).to_owned(), vec![format!("{worker}'s"), "retry_task".to_owned()]);
                row.capabilities = Arc::new(engines.iter().map(actions).collect());
            });
            connected.push(facts);
            agrees(&node, AGENT).await;
        }
        let standing = node.presence.standing(PROJECT, AGENT).await.expect("readable");
        assert_eq!((standing.state, &standing.engines[..]), (OnlineState::Online, &["celery".into(), "rq".into()][..]));
        for facts in connected {
            node.presence.process_down(&facts).await;
            agrees(&node, AGENT).await;
        }
        assert_eq!(node.presence.state(PROJECT, AGENT).await.expect("readable"), OnlineState::Offline);
        let stranger = AgentId::from_bytes([4; 16]);
        agrees(&node, stranger).await;
        assert_eq!(node.presence.state(PROJECT, stranger).await.expect("readable"), OnlineState::Unknown);
    }
}

async fn agrees(node: &Node, agent: AgentId) {
    let shown = node.presence.agent(PROJECT, agent).await.expect("readable");
    let standing = node.presence.standing(PROJECT, agent).await.expect("readable");
    assert_eq!(node.presence.state(PROJECT, agent).await.expect("readable"), shown.state);
    assert_eq!((standing.state, standing.engines), (shown.state, shown.engines));
    let sorted = |lists: &BTreeMap<String, Vec<String>>| -> BTreeMap<String, std::collections::BTreeSet<String>> {
        lists.iter().map(|(engine, actions)| (engine.clone(), actions.iter().cloned().collect())).collect()
    };
    assert_eq!(sorted(&standing.capabilities), sorted(&shown.capabilities));
}
