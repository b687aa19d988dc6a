//! The life of commands on a real cluster most of whose answers come too late: two nodes that both are home, with
//! agents on each, before the same judge. In real time, so a run is not repeated by its seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cql::engine::cql::{Cql, CqlConfig};
use cql::engine::memory::Dice;
use cql::ledger::{commands, entries};
use domain::command::{Claim, Status};
use domain::id::address::Layout;
use domain::id::{AgentId, NodeId, ProjectId, SessionId};
use domain::ledger::decide::Answer;
use domain::ledger::{Json, LedgerKey, Terms};
use domain::secret::KeyUse;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::judge::Judge;
use super::operator::any_draft;
use super::world::{AGENTS, BULK_LIMIT, TIMEOUT_SECS, lock, master};
use crate::clock::Clock;
use crate::mesh::{Mesh, MeshConfig};
use crate::project::Heard;
use crate::session::{CommandFrame, Orders, Sent, SessionFacts, SessionHandle, SessionMessage};

const ISSUES: usize = 150;
/// How long the nodes wait for an answer to a commit.
const PATIENCE_MS: [u64; 2] = [3, 6];
const ALL_END_WITHIN: Duration = Duration::from_secs(180);

/// The judge, and where he reads.
struct Court {
    project: ProjectId,
    store: Cql,
    judge: Mutex<Judge>,
}

impl Court {
    /// Reads what is durable by now: reads of the ledger see every commit that was answered.
    async fn read(&self) {
        loop {
            let next = lock(&self.judge).seq() + 1;
            // Serial reads among racing commits are refused now and then.
            let Ok(page) = entries::tail(&self.store, self.project, next, 200).await else { continue };
            if page.is_empty() {
                return;
            }
            let mut judge = lock(&self.judge);
            for sealed in page.iter().filter(|sealed| sealed.seq >= next) {
                if sealed.seq == judge.seq() + 1 {
                    judge.read(sealed);
                }
            }
        }
    }
}

async fn node(project: ProjectId, n: u8, patience_ms: u64, config: &CqlConfig) -> (Mesh, Arc<Cql>) {
    let config = CqlConfig { commit_timeout: Duration::from_millis(patience_ms), ..config.clone() };
    let store = Arc::new(Cql::open(&config).await.expect("the cluster is there"));
    let mesh = Mesh::start(MeshConfig {
        store: Arc::clone(&store) as Arc<dyn cql::Store>,
        clock: Clock::machine(),
        node: NodeId::from_bytes([n; 16]),
        alone: false,
        recorders: 1,
        layout: Layout::Day,
        retention_secs: 86_400,
        lost_after: Duration::from_secs(36_000),
        terms: Terms { command_timeout_secs: TIMEOUT_SECS, bulk_limit_per_minute: BULK_LIMIT },
        master: master(),
    });
    let mesh = mesh.await.expect("a mesh starts");
    mesh.project(project).await.expect("the project starts");
    (mesh, store)
}

/// A worker process of an agent at a node, which answers at any node.
async fn connect(court: &Arc<Court>, meshes: &[Mesh], home: usize, agent: AgentId, dice: Dice) {
    let facts = SessionFacts {
        session: SessionId::mint(meshes[home].clock().now()),
        project: court.project,
        agent,
        worker_id: Some(format!("worker-{home}-{agent}")),
        worker_role: None,
        engines: vec!["celery".to_owned()],
        capabilities: Default::default(),
        said_hello: true,
        connected_at: meshes[home].clock().now(),
    };
    let (handle, orders) = SessionHandle::new(facts.clone());
    meshes[home].directory().up(handle);
    meshes[home].session_up(&facts).await;
    tokio::spawn(work(Arc::clone(court), meshes.to_vec(), facts, orders, dice));
}

async fn work(court: Arc<Court>, meshes: Vec<Mesh>, facts: SessionFacts, mut orders: Orders, mut dice: Dice) {
    while let SessionMessage::Command { frame, reply } = orders.recv().await {
        obey(&court, &meshes, &facts, *frame, reply, &mut dice).await;
    }
}

async fn obey(
    court: &Court,
    meshes: &[Mesh],
    facts: &SessionFacts,
    frame: CommandFrame,
    reply: oneshot::Sender<Sent>,
    dice: &mut Dice,
) {
    let body: serde_json::Value = serde_json::from_slice(frame.body.as_bytes()).expect("a frame is JSON");
    let text = body["delivery_claim_token"].as_str().expect("a frame has a claim").to_owned();
    let ids = body["parameters"]["filter"]["task_ids"].as_array().map_or(0, Vec::len);
    let claim: Claim = text.parse().expect("the claim is ours");
    court.read().await;
    if dice.chance(0.1) {
        // The agent may have given up.
        let _ = reply.send(Sent::NotSent);
        return;
    }
    lock(&court.judge).left(claim, facts.session);
    let _ = reply.send(Sent::Written);
    lock(&court.judge).done(claim, &[]);
    if dice.chance(0.03) {
        return;
    }
    sleep(dice.duration(&(Duration::ZERO..=Duration::from_millis(30)))).await;
    let success = dice.chance(0.8);
    lock(&court.judge).said(claim, success);
    let result = success.then(|| Json::new(format!(r#"{{"succeeded":{ids}}}"#)).expect("it is JSON"));
    let answer = Answer { success, result, error: (!success).then(|| "no".to_owned()) };
    for _ in 0..1 + dice.below(2) {
        let Ok(project) = meshes[dice.below(meshes.len())].project(court.project).await else { continue };
        project.heard(facts.agent, facts.session, &frame.id, Some(&text), Heard::Result(answer.clone())).await;
    }
}

/// Issues at one node, or at both at once.
async fn issue_all(court: &Court, meshes: &[Mesh], dice: &mut Dice) {
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..ISSUES {
        let draft = any_draft(dice, n);
        let (first, both) = (dice.below(2), draft.idempotency_key.is_some());
        for mesh in [&meshes[first], &meshes[1 - first]].into_iter().take(1 + usize::from(both)) {
            let (mesh, draft, project) = (mesh.clone(), draft.clone(), court.project);
            waiting.spawn(async move { mesh.issue(project, draft).await });
        }
        if dice.chance(0.03)
            && let Some(cell) = meshes[first].project_cell(court.project)
        {
            cell.kill();
        }
        sleep(dice.duration(&(Duration::ZERO..=Duration::from_millis(60)))).await;
    }
    let answers = waiting.join_all().await;
    court.read().await;
    let mut judge = lock(&court.judge);
    for command in answers.into_iter().flatten() {
        if judge.case(command.id).is_none() {
            judge.accuse(format!("{} was answered, and is not in the ledger", command.id));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_homes_on_a_cluster_do_no_wrong() {
    let Ok(contact) = std::env::var("THALAMUS_TEST_CQL") else {
        println!("not run: THALAMUS_TEST_CQL is not set; `make test` starts a server and sets it");
        return;
    };
    let config = CqlConfig::new(vec![contact], "thalamus_contract");
    let project = ProjectId::from_uuid(uuid::Uuid::new_v4());
    let key = LedgerKey::new(master().site_key(KeyUse::Ledger, project).as_bytes());
    let store = Cql::open(&config).await.expect("the cluster is there");
    let court = Arc::new(Court { project, store, judge: Mutex::new(Judge::new(project, key)) });
    let mut dice = Dice::new(project.bytes()[0].into());
    let (mut meshes, mut stores) = (Vec::new(), Vec::new());
    for (n, patience_ms) in (1..).zip(PATIENCE_MS) {
        let (mesh, store) = node(project, n, patience_ms, &config).await;
        meshes.push(mesh);
        stores.push(store);
    }
    for home in 0..meshes.len() {
        for agent in AGENTS {
            connect(&court, &meshes, home, agent, Dice::new(dice.roll())).await;
        }
    }
    issue_all(&court, &meshes, &mut dice).await;
    let all_end = async {
        loop {
            court.read().await;
            if lock(&court.judge).cases().all(|(_, case)| case.outcome.is_some()) {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    let _ = tokio::time::timeout(ALL_END_WITHIN, all_end).await;
    let doubts: u64 = stores.iter().map(|store| store.doubts()).sum();
    let cases: Vec<(_, Option<Status>)> =
        lock(&court.judge).cases().map(|(id, case)| (id, case.outcome.map(|ended| ended.status))).collect();
    println!("{} commands, {} entries, {doubts} answers lost", cases.len(), lock(&court.judge).seq());
    lock(&court.judge).close();
    let violations = std::mem::take(&mut lock(&court.judge).violations);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(doubts > 0, "the answers came in time, so nothing was tried");
    for (command, status) in cases {
        let row = commands::get(&court.store, project, command).await.expect("the cluster answers reads");
        assert_eq!(row.map(|row| row.status), status, "row of {command}");
    }
}
