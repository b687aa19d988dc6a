//! A node's way to the store: it stalls, it dies at a chosen step, and for a test of the judge it lies.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use cql::engine::memory::{Dice, Memory};
use cql::store::{Durability, Result};
use cql::{Commit, Committed, Key, Range, Row, Store, Table, Write, WriteOp};
use domain::command::Status;
use domain::ledger::{Entry, Kind};
use tokio::time::{Instant, sleep_until};

use super::world::{World, lock};

/// A step of a command's life, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Freeze,
    Issued,
    Dispatched,
    ChunkOutcome,
    Outcome,
    TimedOut,
    Late,
    Note,
}

const STEPS: [Step; 8] = [
    Step::Freeze,
    Step::Issued,
    Step::Dispatched,
    Step::ChunkOutcome,
    Step::Outcome,
    Step::TimedOut,
    Step::Late,
    Step::Note,
];

/// A node dies at the n-th time a step is about to be written, or has just been.
#[derive(Clone, Copy, Debug)]
pub(super) struct CrashPlan {
    step: Step,
    after: bool,
    times: u64,
}

/// What a broken store would tell a home; the judge must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// An append that another home won is said to be done.
    LostIsDone,
    /// An append of which nobody knows is said to be done.
    UnknownIsDone,
}

/// Whether the machine under a node runs.
#[derive(Debug, Default)]
pub(super) struct Power {
    off: AtomicBool,
    stalled_until: Mutex<Option<Instant>>,
}

pub(super) struct NodeStore {
    inner: Memory,
    node: usize,
    power: Arc<Power>,
    world: Weak<World>,
}

impl CrashPlan {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let step = STEPS[dice.below(STEPS.len())];
        Self { step, after: dice.chance(0.5), times: 1 + dice.below(4) as u64 }
    }
}

impl Power {
    pub(super) fn cut(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    pub(super) fn stall_until(&self, at: Instant) {
        *lock(&self.stalled_until) = Some(at);
    }

    /// Passes while the machine runs; a dead one never answers.
    async fn gate(&self) {
        if self.off.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        let stalled = *lock(&self.stalled_until);
        if let Some(until) = stalled.filter(|until| *until > Instant::now()) {
            sleep_until(until).await;
            if self.off.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        }
    }
}

impl NodeStore {
    pub(super) fn new(inner: Memory, node: usize, power: Arc<Power>, world: &Arc<World>) -> Self {
        Self { inner, node, power, world: Arc::downgrade(world) }
    }

    /// Dies if this is the moment that was planned.
    async fn pass(&self, steps: &BTreeSet<Step>, after: bool) {
        let Some(world) = self.world.upgrade() else { return pending().await };
        let is_it = {
            let mut plan = lock(&world.plan);
            match plan.as_mut() {
                Some(planned) if steps.contains(&planned.step) && planned.after == after => {
                    planned.times -= 1;
                    let (step, is_due) = (planned.step, planned.times == 0);
                    if is_due {
                        *plan = None;
                        let side = if after { "after" } else { "before" };
                        world.count(&format!("crash {side} {step:?}"));
                    }
                    is_due
                }
                Some(_) | None => false,
            }
        };
        if is_it {
            self.power.cut();
            world.ask_crash(self.node);
        }
        drop(world);
        self.power.gate().await;
    }

    /// Remembers what the marks of busy projects say.
    fn note_marks<'a>(&self, writes: impl Iterator<Item = &'a Write>) {
        let Some(world) = self.world.upgrade() else { return };
        for write in writes.filter(|write| write.key.table == Table::Open) {
            let WriteOp::Put { value, .. } = &write.op else { continue };
            let mark = &world.marked[usize::from(value.as_ref() != [1])];
            mark.fetch_max(write.stamp.unwrap_or_default(), Ordering::Relaxed);
        }
    }

    fn lied(&self, outcome: Result<Committed>) -> Result<Committed> {
        let lie = self.world.upgrade().and_then(|world| world.lie);
        match (&outcome, lie) {
            (Ok(Committed::Lost(_)), Some(Lie::LostIsDone)) | (Ok(Committed::Unknown), Some(Lie::UnknownIsDone)) => {
                Ok(Committed::Done)
            }
            _ => outcome,
        }
    }
}

fn step_of(value: &Bytes) -> Option<Step> {
    // Hash and MAC come first.
    let entry = Entry::decode(value.get(64..)?).ok()?;
    Some(match entry.kind {
        Kind::Issued(_) => Step::Issued,
        Kind::Dispatched(_) => Step::Dispatched,
        Kind::ChunkOutcome(_) => Step::ChunkOutcome,
        Kind::Outcome(outcome) if outcome.status == Status::TimedOut => Step::TimedOut,
        Kind::Outcome(_) => Step::Outcome,
        Kind::Late(_) => Step::Late,
        Kind::DeleteBegun(_)
        | Kind::Deleted(_)
        | Kind::Login(_)
        | Kind::TokenMinted(_)
        | Kind::TokenRevoked(_)
        | Kind::RoleChanged(_)
        | Kind::ProjectChanged(_)
        | Kind::Refused(_) => Step::Note,
    })
}

fn steps_of(commits: &[Commit]) -> BTreeSet<Step> {
    let rows = commits.iter().filter(|commit| commit.table == Table::Ledger).flat_map(|commit| &commit.writes);
    rows.filter_map(|(_, op)| match op {
        WriteOp::Put { value, .. } => step_of(value),
        WriteOp::Delete => None,
    })
    .collect()
}

#[async_trait]
impl Store for NodeStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.power.gate().await;
        let answer = self.inner.get(key).await;
        self.power.gate().await;
        answer
    }

    async fn scan(&self, range: Range) -> Result<Vec<Row>> {
        self.power.gate().await;
        let answer = self.inner.scan(range).await;
        self.power.gate().await;
        answer
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        self.power.gate().await;
        let freezes = writes.iter().any(|write| write.key.table == Table::CommandChunk && write.stamp.is_none());
        let steps = if freezes { BTreeSet::from([Step::Freeze]) } else { BTreeSet::new() };
        self.note_marks(writes.iter());
        self.pass(&steps, false).await;
        let answer = self.inner.write(writes).await;
        self.pass(&steps, true).await;
        answer
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed>> {
        self.power.gate().await;
        let steps = steps_of(&commits);
        self.note_marks(commits.iter().flat_map(|commit| &commit.follow));
        self.pass(&steps, false).await;
        let answers = self.inner.commit(commits).await;
        if let Some(world) = self.world.upgrade() {
            drop(world.judge());
        }
        self.pass(&steps, true).await;
        answers.into_iter().map(|outcome| self.lied(outcome)).collect()
    }

    fn durability(&self) -> Durability {
        Durability::None
    }
}
