//! One seed: chaos, then health, then the last judgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cql::engine::memory::{Dice, Faults, Memory};
use cql::ledger::{audit, commands, head, open};
use cql::{Store, Table};
use domain::command::{Status, Verb};
use domain::id::{AgentId, CommandId};
use domain::ledger::{Entry, Kind, LedgerKey, Log, Sealed};
use domain::secret::KeyUse;
use tokio::time::sleep;

use super::agent::Process;
use super::node::Node;
use super::operator::{any_draft, ask, burst, delete, issue, task};
use super::store::{CrashPlan, Lie};
use super::tally::Tally;
use super::world::{AGENTS, PROJECT, QUIET, TIMEOUT_SECS, USERS, World, master};
use crate::mesh::Mesh;

/// Things that happen in a run, one after the other.
const OPERATIONS: usize = 40;
/// Longer than a home whose budget of restarts is spent has to wait.
const RECOVERY: Duration = Duration::from_secs(70);

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) violations: Vec<String>,
    pub(super) tally: Tally,
    /// The ledger's last hash: equal runs have equal hashes.
    pub(super) hash: [u8; 32],
    /// The ledger, a line per entry.
    pub(super) story: Vec<String>,
}

fn faults(dice: &mut Dice) -> Faults {
    // Some seeds have a store that never fails, some one that often does.
    let much = [0.0, 0.3, 1.0, 2.0][dice.below(4)];
    Faults {
        read_failed: 0.005 * much,
        write_failed: 0.01 * much,
        write_delayed: 0.05 * much,
        commit_failed: 0.02 * much,
        commit_unknown: 0.05 * much,
        latency: Duration::ZERO..=Duration::from_millis(8),
        ..Faults::default()
    }
}

pub(super) async fn run(seed: u64, lie: Option<Lie>) -> Report {
    let mut dice = Dice::new(seed);
    let memory = Memory::with_faults(seed, faults(&mut dice));
    let nodes = 1 + dice.below(2);
    let world = World::new(seed, memory, nodes, CrashPlan::draw(&mut dice), lie);
    for node in &world.nodes {
        node.start(&world).await;
    }
    for (n, agent) in AGENTS.iter().enumerate() {
        for process in 0..2 {
            let process = Process::new(&world, *agent, &format!("p{n}{process}"), Dice::new(dice.roll()));
            tokio::spawn(process.live());
        }
    }
    tokio::spawn(bury(Arc::clone(&world), Dice::new(dice.roll())));
    for n in 0..OPERATIONS {
        happen(&world, &mut dice, n).await;
        sleep(dice.duration(&(Duration::ZERO..=Duration::from_millis(1500)))).await;
    }
    if dice.chance(0.2) {
        desert(&world).await;
    } else {
        recover(&world, &mut dice).await;
    }
    judge(&world).await;
    let mut tally = world.tally();
    tally.add_store(world.memory.injected());
    let story = story(world.observer()).await;
    let mut judge = world.judge();
    Report { violations: std::mem::take(&mut judge.violations), tally, hash: *judge.hash(), story }
}

async fn story(observer: &Memory) -> Vec<String> {
    let all = cql::ledger::entries::tail(observer, PROJECT, 1, 100_000).await.expect("an observer never fails");
    let line = |sealed: &Sealed| match Entry::decode(&sealed.bytes) {
        Ok(Entry { seq, at, actor, kind, .. }) => format!("{seq} {at} {actor} {kind:?}"),
        Err(error) => format!("{}: {error}", sealed.seq),
    };
    all.iter().map(line).collect()
}

/// Ends nodes that are to die, and starts them again after a while.
async fn bury(world: Arc<World>, mut dice: Dice) {
    loop {
        let node = world.next_crash().await;
        world.nodes[node].crash();
        let rest = [0, 500, 3_000, 30_000][dice.below(4)];
        let time = dice.duration(&(Duration::ZERO..=Duration::from_millis(rest)));
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            sleep(time).await;
            world.nodes[node].start(&world).await;
        });
    }
}

/// The next thing that happens.
async fn happen(world: &Arc<World>, dice: &mut Dice, n: usize) {
    let node = dice.below(world.nodes.len());
    match dice.below(100) {
        0..4 => {
            world.count("node: crash");
            world.ask_crash(node);
        }
        4..8 => {
            world.count("node: project actor killed");
            if let Some(project) = world.nodes[node].mesh().and_then(|mesh| mesh.project_cell(PROJECT)) {
                project.kill();
            }
        }
        8..12 => {
            world.count("node: agent actors killed");
            if let Some(project) = world.nodes[node].mesh().and_then(|mesh| mesh.project_cell(PROJECT)) {
                project.get_children().into_iter().for_each(|agent| agent.kill());
            }
        }
        12..15 => {
            world.count("node: store out of reach");
            world.nodes[node].stall(dice.duration(&(Duration::from_millis(100)..=Duration::from_secs(30))));
        }
        15..17 => {
            world.count("store: full for a while");
            world.memory.set_full(true);
            let time = dice.duration(&(Duration::from_millis(100)..=Duration::from_secs(20)));
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(time).await;
                world.memory.set_full(false);
            });
        }
        17..18 => {
            world.count("node: shut down and started");
            let world = Arc::clone(world);
            tokio::spawn(async move {
                world.nodes[node].shut_down().await;
                world.nodes[node].start(&world).await;
            });
        }
        18..22 => {
            for draft in burst(dice, n) {
                let other = dice.below(world.nodes.len());
                tokio::spawn(issue(Arc::clone(world), other, draft, dice.roll()));
            }
        }
        22..28 => {
            let user = USERS[dice.below(USERS.len())];
            tokio::spawn(delete(Arc::clone(world), node, user, dice.bytes()));
        }
        _ => {
            let draft = any_draft(dice, n);
            let both = dice.chance(0.25);
            for other in 0..world.nodes.len() {
                if other == node || both {
                    tokio::spawn(issue(Arc::clone(world), other, draft.clone(), dice.roll()));
                }
            }
        }
    }
}

/// Everything heals. Then commands end in time, and those that are answered succeed.
async fn recover(world: &Arc<World>, dice: &mut Dice) {
    world.calm_down();
    sleep(Duration::from_secs(35)).await;
    for node in &world.nodes {
        node.start(world).await;
    }
    sleep(RECOVERY).await;
    let now = world.clock.now();
    world.judge().expect_health(now);
    for (n, mesh, agent) in connected(world) {
        let wanted = task(Verb::RetryTask, agent, USERS[0], &format!("health-{n}-{}", dice.roll()));
        let Some(command) = ask(world, &mesh, &wanted).await else {
            world.judge().accuse("a healthy node does not answer".to_owned());
            continue;
        };
        sleep(Duration::from_secs(10)).await;
        let status = world.judge().case(command.id).and_then(|case| case.outcome).map(|ended| ended.status);
        if status != Some(Status::Succeeded) {
            let id = command.id;
            world.judge().accuse(format!("{id} at node {n} has come to {status:?}, and its agent is healthy"));
        }
    }
    // Last, for each may take a lane on every node.
    for (n, mesh, agent) in connected(world) {
        let quiet = task(Verb::CancelTask, agent, USERS[0], &format!("{QUIET}-{n}-{}", dice.roll()));
        ask(world, &mesh, &quiet).await;
    }
    sleep(Duration::from_secs(u64::from(TIMEOUT_SECS) + 10)).await;
}

/// Every node dies, and nobody comes back but the nodes: what is open ends all the same.
async fn desert(world: &Arc<World>) {
    world.count("everything: crash, and nobody comes back");
    world.desert();
    world.calm_down();
    world.nodes.iter().for_each(Node::crash);
    sleep(Duration::from_secs(35)).await;
    for node in &world.nodes {
        node.start(world).await;
    }
    sleep(RECOVERY).await;
}

/// Every node with every agent that is connected there.
fn connected(world: &World) -> Vec<(usize, Mesh, AgentId)> {
    let running = world.nodes.iter().enumerate().filter_map(|(n, node)| Some((n, node.mesh()?)));
    let each = |(n, mesh): (usize, Mesh)| AGENTS.map(|agent| (n, mesh.clone(), agent));
    running.flat_map(each).filter(|(_, mesh, agent)| mesh.directory().is_connected(*agent)).collect()
}

async fn judge(world: &World) {
    world.judge().close();
    let observer = world.observer();
    let mut wrongs = Vec::new();
    let cases: Vec<(CommandId, Option<Status>, Option<Status>)> = world
        .judge()
        .cases()
        .map(|(command, case)| (command, case.outcome.map(|ended| ended.status), case.late))
        .collect();
    for (command, status, late) in &cases {
        let row = commands::get(observer, PROJECT, *command).await.expect("an observer never fails");
        let shown = row.map(|row| (Some(row.status), row.late_status));
        if shown != Some((*status, *late)) {
            wrongs.push(format!("{command} is {status:?}, late {late:?}; its row says {shown:?}"));
        }
    }
    let listed = commands::list(observer, PROJECT, None, None, 10_000).await.expect("an observer never fails");
    if listed.items.len() != cases.len() || !listed.items.is_sorted_by(|a, b| a.id > b.id) {
        wrongs.push(format!("{} commands, of which the list shows {}", cases.len(), listed.items.len()));
    }
    let busy = open::projects(observer, open::partition_of(PROJECT)).await.expect("an observer never fails");
    // A mark for a command that was never issued stands until another one ends.
    let [marked_busy, marked_idle] = world.marked.each_ref().map(|stamp| stamp.load(Ordering::Relaxed));
    if !busy.is_empty() && marked_busy < marked_idle {
        wrongs.push("the project stands as busy, and nothing is open".to_owned());
    }
    wrongs.extend(folds_alike(observer, world).await);
    let frozen = world.judge().chunk_rows();
    let stored = observer.count(Table::CommandChunk);
    let may_leave = world.may_leave_ids.load(Ordering::Relaxed) || world.memory.injected().write_failed > 0;
    if stored < frozen || (stored > frozen && !may_leave) {
        wrongs.push(format!("{frozen} chunks and outcomes of chunks, of which {stored} are stored"));
    }
    let mut judge = world.judge();
    wrongs.into_iter().for_each(|wrong| judge.accuse(wrong));
}

/// A fold from the stored head is the fold from the first entry, and the chain verifies as an auditor would do it.
async fn folds_alike(observer: &Memory, world: &World) -> Vec<String> {
    let key = || LedgerKey::new(master().site_key(KeyUse::Ledger, PROJECT).as_bytes());
    let mut wrongs = Vec::new();
    let verified = audit::verify(observer, PROJECT, &key(), &[], |_| {}).await.expect("an observer never fails");
    if verified.first_bad.is_some() || verified.checked != world.judge().seq() {
        wrongs.push(format!("the audit says {verified:?}"));
    }
    let store: &dyn Store = observer;
    let head = head::load(store, PROJECT).await.expect("an observer never fails");
    let (mut whole, mut rest) = (Log::new(PROJECT, key()), Log::from_fold(head, key()));
    let all = cql::ledger::entries::tail(store, PROJECT, 1, 100_000).await.expect("an observer never fails");
    for sealed in &all {
        let is_read = whole.read(sealed).is_ok() && (sealed.seq <= rest.fold.seq() || rest.read(sealed).is_ok());
        if !is_read {
            wrongs.push(format!("entry {} does not fold", sealed.seq));
        }
    }
    if whole.fold.hash() != rest.fold.hash() || whole.fold.limits() != rest.fold.limits() || whole.fold.is_busy() {
        wrongs.push("the fold from the head is another than the fold from the start".to_owned());
    }
    let keys = observer.count(Table::Idem);
    let held = all.iter().filter(|sealed| has_key(sealed)).count();
    if keys != held {
        wrongs.push(format!("{held} keys, of which {keys} are stored"));
    }
    wrongs
}

fn has_key(sealed: &Sealed) -> bool {
    Entry::decode(&sealed.bytes).is_ok_and(|entry| match entry.kind {
        Kind::Issued(issued) => issued.idempotency_key.is_some(),
        _ => false,
    })
}
