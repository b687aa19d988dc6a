//! What everyone in a run shares.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cql::engine::memory::{Dice, Memory};
use cql::ledger::entries;
use domain::id::{AgentId, ProjectId, UserId};
use domain::secret::{KeyUse, MasterSecret};
use domain::time::Timestamp;
use futures_util::FutureExt;
use tokio::sync::Notify;

use super::judge::Judge;
use super::node::Node;
use super::store::{CrashPlan, Lie};
use super::tally::Tally;
use crate::clock::Clock;

pub(super) const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
pub(super) const AGENTS: [AgentId; 2] = [AgentId::from_bytes([9; 16]), AgentId::from_bytes([11; 16])];
pub(super) const USERS: [UserId; 2] = [UserId::from_bytes([5; 16]), UserId::from_bytes([6; 16])];
/// Short, so that many commands meet their deadline.
pub(super) const TIMEOUT_SECS: u32 = 20;
/// Low, so that it is met often.
pub(super) const BULK_LIMIT: u32 = 3;
/// An action on such a target is never answered, however healthy the agent.
pub(super) const QUIET: &str = "quiet";

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(super) struct World {
    pub(super) memory: Memory,
    observer: Memory,
    pub(super) clock: Clock,
    pub(super) nodes: Vec<Node>,
    pub(super) lie: Option<Lie>,
    pub(super) plan: Mutex<Option<CrashPlan>>,
    /// Nothing goes wrong any more.
    calm: AtomicBool,
    /// Agents and operators are gone for good.
    deserted: AtomicBool,
    judge: Mutex<Judge>,
    tally: Mutex<Tally>,
    crashed: Mutex<VecDeque<usize>>,
    crash: Notify,
    /// Frozen ids may stay: a bulk command was not answered, or a write failed.
    pub(super) may_leave_ids: AtomicBool,
    /// The highest stamps of marks that the project is busy, and that it is not.
    pub(super) marked: [AtomicI64; 2],
}

pub(super) fn master() -> MasterSecret {
    MasterSecret::new("0123456789abcdef0123456789abcdef").expect("long enough")
}

/// A lock of the simulation; whoever panicked with it has failed the run already.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(seed: u64, memory: Memory, nodes: usize, plan: CrashPlan, lie: Option<Lie>) -> Arc<Self> {
        let clock = Clock::seeded(START, seed);
        let mut dice = Dice::new(seed ^ 0xc10c);
        // No two clocks agree; the contract's margin is a second.
        let mut skewed =
            |n: usize| if n == 0 { clock.clone() } else { clock.skewed(dice.below(400_000) as i64 - 200_000) };
        let key = domain::ledger::LedgerKey::new(master().site_key(KeyUse::Ledger, PROJECT).as_bytes());
        Arc::new(Self {
            observer: memory.observer(),
            nodes: (0..nodes).map(|n| Node::new(n, skewed(n))).collect(),
            memory,
            lie,
            plan: Mutex::new(Some(plan)),
            calm: AtomicBool::new(false),
            deserted: AtomicBool::new(false),
            judge: Mutex::new(Judge::new(PROJECT, key)),
            tally: Mutex::new(Tally::default()),
            crashed: Mutex::new(VecDeque::new()),
            crash: Notify::new(),
            may_leave_ids: AtomicBool::new(false),
            marked: Default::default(),
            clock,
        })
    }

    pub(super) fn observer(&self) -> &Memory {
        &self.observer
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(super) fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::Relaxed)
    }

    pub(super) fn desert(&self) {
        self.deserted.store(true, Ordering::Relaxed);
    }

    pub(super) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        *lock(&self.plan) = None;
        self.memory.set_faults(cql::engine::memory::Faults::default());
        self.memory.set_full(false);
    }

    pub(super) fn count(&self, what: &str) {
        lock(&self.tally).count(what);
    }

    pub(super) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// The judge, who has read all that is durable.
    pub(super) fn judge(&self) -> MutexGuard<'_, Judge> {
        let mut judge = lock(&self.judge);
        loop {
            let page = entries::tail(&self.observer, PROJECT, judge.seq() + 1, 500).now_or_never();
            let page = page.expect("an observer never waits").expect("an observer never fails");
            if page.is_empty() {
                return judge;
            }
            for sealed in page {
                judge.read(&sealed);
            }
        }
    }

    /// A node is to die now.
    pub(super) fn ask_crash(&self, node: usize) {
        lock(&self.crashed).push_back(node);
        self.crash.notify_one();
    }

    /// The next node that is to die.
    pub(super) async fn next_crash(&self) -> usize {
        loop {
            if let Some(node) = lock(&self.crashed).pop_front() {
                return node;
            }
            self.crash.notified().await;
        }
    }
}
