//! Two homes for one project, each believing it is the only one, on one store with faults.
//!
//! One seed drives the workload and the faults. Afterwards the ledger is the judge: one outcome per command, no
//! frame without its entry, nothing sent twice that may not be done twice, one command per key, the limiter never
//! over, the chain whole, the projections equal to the fold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cql::engine::memory::{Faults, Memory};
use cql::ledger::{audit, entries, head};
use domain::command::{Action, Claim, Redelivery, Status, Verb};
use domain::id::CommandId;
use domain::ledger::{Entry, Kind, Log, Sealed};
use domain::time::Timestamp;
use ractor::ActorStatus;

use super::harness::*;
use crate::clock::Clock;
use crate::project::{Heard, ProjectHandle};

const SEEDS: u64 = 12;
const OPERATIONS: usize = 60;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the workers of both nodes have seen.
#[derive(Default)]
struct Seen {
    /// Deliveries of which bytes may have left, by command.
    left: BTreeMap<CommandId, Vec<Claim>>,
    /// Claims whose `dispatched` entry was not there when the frame came.
    unentered: Vec<Claim>,
}

type Homes = Arc<Mutex<Vec<ProjectHandle>>>;

/// Every entry, whatever the faults say.
async fn all(store: &Memory) -> Vec<Sealed> {
    loop {
        if let Ok(found) = entries::tail(store, PROJECT, 1, 100_000).await {
            return found;
        }
    }
}

fn decoded(sealed: &[Sealed]) -> Vec<Entry> {
    sealed.iter().map(|sealed| Entry::decode(&sealed.bytes).unwrap()).collect()
}

/// A worker that takes what comes, checks it against the ledger, and answers to any home, or not at all.
async fn work(mut worker: Worker, store: Memory, seen: Arc<Mutex<Seen>>, homes: Homes, seed: u64) {
    let mut dice = Dice(seed);
    let mut lives = 0;
    loop {
        let Some(got) = worker.next().await else {
            lives += 1;
            if lives > 400 {
                return;
            }
            continue;
        };
        let claim: Claim = got.claim.parse().unwrap();
        let is_entered = decoded(&all(&store).await).iter().any(|entry| match &entry.kind {
            Kind::Dispatched(dispatch) => {
                (dispatch.command, dispatch.chunk, dispatch.attempt) == (claim.command, claim.chunk, claim.attempt)
            }
            _ => false,
        });
        if !is_entered {
            seen.lock().unwrap().unentered.push(claim);
        }
        if dice.roll(6) == 0 {
            got.not_sent();
            continue;
        }
        seen.lock().unwrap().left.entry(claim.command).or_default().push(claim);
        let (frame, text) = got.written();
        tokio::time::sleep(Duration::from_millis(dice.roll(200))).await;
        let home = homes.lock().unwrap()[dice.roll(2) as usize].clone();
        match dice.roll(24) {
            0 => {}
            1 => {
                home.heard(AGENT, worker.session, &frame.id, Some(&text), Heard::Ack).await;
            }
            2 => {
                home.heard(AGENT, worker.session, &frame.id, Some(&text), failure("no")).await;
            }
            _ => {
                home.heard(AGENT, worker.session, &frame.id, Some(&text), success("{}")).await;
            }
        }
    }
}

fn is_dead(node: &Node) -> bool {
    matches!(node.project.cell().get_status(), ActorStatus::Stopped | ActorStatus::Stopping)
}

async fn run(seed: u64) {
    let faults = Faults {
        read_failed: 0.01,
        write_failed: 0.01,
        write_delayed: 0.05,
        commit_failed: 0.02,
        commit_unknown: 0.06,
        latency: Duration::ZERO..=Duration::from_millis(8),
        ..Faults::default()
    };
    let store = Memory::with_faults(seed, faults);
    let clock = Clock::starting_at(Timestamp::from_secs(1_800_000_000));
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(Node::on(store.handle(), clock.clone()).await);
    }
    let homes: Homes = Arc::new(Mutex::new(nodes.iter().map(|node| node.project.clone()).collect()));
    let seen = Arc::new(Mutex::new(Seen::default()));
    for (n, node) in nodes.iter().enumerate() {
        for w in 0..2 {
            let worker = node.connect(AGENT, &format!("w{n}-{w}"));
            let seed = seed * 31 + (n * 2 + w) as u64;
            tokio::spawn(work(worker, store.handle(), Arc::clone(&seen), Arc::clone(&homes), seed));
        }
    }

    let mut dice = Dice(seed);
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    for n in 0..OPERATIONS {
        for (n, node) in nodes.iter_mut().enumerate() {
            if is_dead(node) {
                node.revive().await;
                homes.lock().unwrap()[n] = node.project.clone();
            }
        }
        let mut draft = match dice.roll(3) {
            0 => retry(&format!("t{n}")),
            1 => cancel(&format!("t{n}")),
            _ => draft(Verb::PurgeQueue, r#"{"queue":"q","force":true}"#),
        };
        let key = dice.roll(20);
        if key < 6 {
            // The same key from both homes, on purpose.
            draft = cancel("keyed");
            draft.idempotency_key = Some(format!("k{key}"));
        }
        let both = dice.roll(3) == 0;
        for node in nodes.iter().skip(if both { 0 } else { dice.roll(2) as usize }).take(if both { 2 } else { 1 }) {
            let (project, draft, accepted) = (node.project.clone(), draft.clone(), Arc::clone(&accepted));
            tokio::spawn(async move {
                if let Ok(command) = project.issue(draft).await {
                    accepted.lock().unwrap().insert(command.id);
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(400))).await;
        if dice.roll(15) == 0 {
            nodes[dice.roll(2) as usize].project.cell().kill();
        }
    }

    // Everything heals; what is open runs to its end.
    store.set_faults(Faults::default());
    for _ in 0..40 {
        for (n, node) in nodes.iter_mut().enumerate() {
            if is_dead(node) {
                node.revive().await;
                homes.lock().unwrap()[n] = node.project.clone();
            }
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let accepted = accepted.lock().unwrap().clone();
    judge(&store, &seen, &accepted, seed).await;
}

async fn judge(store: &Memory, seen: &Seen, accepted: &BTreeSet<CommandId>, seed: u64) {
    let verified = audit::verify(store, PROJECT, &keys().ledger, |_| {}).await.unwrap();
    assert_eq!(verified.first_bad, None, "seed {seed}");
    assert_eq!(seen.unentered, [], "seed {seed}: frames without their entry");
    let entries = decoded(&all(store).await);
    let (mut actions, mut outcomes, mut keys_seen) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut purges: Vec<Timestamp> = Vec::new();
    for entry in &entries {
        match &entry.kind {
            Kind::Issued(issued) => {
                assert!(actions.insert(issued.command, issued.action).is_none(), "seed {seed}: issued twice");
                if let Some(key) = &issued.idempotency_key {
                    assert!(keys_seen.insert(key.clone(), issued.command).is_none(), "seed {seed}: {key} twice");
                }
                if issued.action == Action::PurgeQueue {
                    purges.push(entry.at);
                }
            }
            Kind::Outcome(outcome) => {
                assert!(outcomes.insert(outcome.command, outcome.status).is_none(), "seed {seed}: a second outcome");
            }
            _ => {}
        }
    }
    for command in actions.keys().chain(accepted) {
        assert!(outcomes.contains_key(command), "seed {seed}: {command} never ended");
    }
    for (command, claims) in &seen.left {
        if actions[command].redelivery() == Redelivery::AtMostOnce {
            assert_eq!(claims.len(), 1, "seed {seed}: {command} was delivered more than once: {claims:?}");
        }
    }
    for (n, at) in purges.iter().enumerate() {
        let within = purges[n..].iter().take_while(|later| later.since(*at) < 60_000_000).count();
        assert!(within <= 10, "seed {seed}: {within} purges within a minute");
    }
    projections_follow(store, &entries, &outcomes, seed).await;
}

/// The rows say what the entries say, and a fold from the head is the fold from the start.
async fn projections_follow(store: &Memory, entries: &[Entry], outcomes: &BTreeMap<CommandId, Status>, seed: u64) {
    for (command, status) in outcomes {
        let row = cql::ledger::commands::get(store, PROJECT, *command).await.unwrap();
        assert_eq!(row.map(|row| row.status), Some(*status), "seed {seed}: row of {command}");
    }
    let listed = cql::ledger::commands::list(store, PROJECT, None, None, 10_000).await.unwrap();
    assert_eq!(listed.items.len(), outcomes.len(), "seed {seed}");
    assert!(listed.items.is_sorted_by(|a, b| a.id > b.id));
    let mut log = Log::new(PROJECT, keys().ledger);
    for sealed in all(store).await {
        log.read(&sealed).unwrap();
    }
    let start = head::load(store, PROJECT).await.unwrap();
    assert!(start.seq() <= entries.len() as u64);
    assert!(!log.fold.is_busy());
    let open = cql::ledger::open::projects(store, cql::ledger::open::partition_of(PROJECT)).await.unwrap();
    assert_eq!(open, [], "seed {seed}: nothing is open any more");
}

#[tokio::test(start_paused = true)]
async fn two_homes_waste_work_and_do_no_wrong() {
    for seed in 0..SEEDS {
        run(seed).await;
    }
}
