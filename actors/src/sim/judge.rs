//! What must always hold, said without the code that is judged: from the entries as they become durable, the frames
//! that leave, the actions that are done, and the answers that are given.

use std::collections::{BTreeMap, BTreeSet};

use domain::command::record::Delivered;
use domain::command::{Action, Actor, Claim, Redelivery, Status};
use domain::id::{AgentId, CommandId, ProjectId, SessionId, UserId};
use domain::ledger::entry::{ChunkOutcome, Dispatch, Issued, Late, Outcome};
use domain::ledger::{Entry, Kind, LedgerKey, Route, Sealed, chain};
use domain::time::Timestamp;

use super::world::BULK_LIMIT;

/// How late a command may end in health.
const LATE_MICROS_MAX: i64 = 1_000_000;

/// What is known of one command.
pub(super) struct Case {
    pub(super) action: Action,
    agent: AgentId,
    chunks: Option<u32>,
    deadline: Timestamp,
    /// As they were entered, each for its session.
    dispatched: Vec<(Claim, SessionId)>,
    /// Deliveries of which bytes may have left.
    left: Vec<Claim>,
    /// How often each chunk was done.
    done: BTreeMap<u32, u32>,
    /// Answers that were given: chunk and success.
    said: BTreeSet<(u32, bool)>,
    answered_chunks: BTreeSet<u32>,
    pub(super) outcome: Option<Ended>,
    pub(super) late: Option<Status>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) status: Status,
    delivered: Delivered,
    at: Timestamp,
}

pub(super) struct Judge {
    key: LedgerKey,
    seq: u64,
    hash: [u8; 32],
    at: Timestamp,
    cases: BTreeMap<CommandId, Case>,
    /// Whose each idempotency key is, and the hash of its request.
    keys: BTreeMap<String, (CommandId, String)>,
    limited: BTreeMap<(Route, UserId), Vec<Timestamp>>,
    /// Ids that bulk commands have touched.
    touched: BTreeSet<(CommandId, String)>,
    /// Deadlines from here on are kept to the second.
    healthy_since: Option<Timestamp>,
    pub(super) violations: Vec<String>,
}

impl Judge {
    pub(super) fn new(project: ProjectId, key: LedgerKey) -> Self {
        Self {
            key,
            seq: 0,
            hash: chain::genesis(project),
            at: Timestamp::EPOCH,
            cases: BTreeMap::new(),
            keys: BTreeMap::new(),
            limited: BTreeMap::new(),
            touched: BTreeSet::new(),
            healthy_since: None,
            violations: Vec::new(),
        }
    }

    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    pub(super) fn cases(&self) -> impl Iterator<Item = (CommandId, &Case)> {
        self.cases.iter().map(|(command, case)| (*command, case))
    }

    pub(super) fn case(&self, command: CommandId) -> Option<&Case> {
        self.cases.get(&command)
    }

    /// Rows that bulk commands have come to: frozen chunks, and outcomes of those that were answered.
    pub(super) fn chunk_rows(&self) -> usize {
        self.cases.values().map(|case| case.chunks.unwrap_or(0) as usize + case.answered_chunks.len()).sum()
    }

    /// The n-th of the open commands of other agents.
    pub(super) fn foreign(&self, agent: AgentId, n: usize) -> Option<Claim> {
        let open = |case: &&Case| case.agent != agent && case.outcome.is_none() && !case.dispatched.is_empty();
        let foreign: Vec<&Case> = self.cases.values().filter(open).collect();
        foreign.get(n % foreign.len().max(1)).and_then(|case| case.dispatched.last()).map(|(claim, _)| *claim)
    }

    pub(super) fn key(&self, key: &str) -> Option<&(CommandId, String)> {
        self.keys.get(key)
    }

    pub(super) const fn expect_health(&mut self, since: Timestamp) {
        self.healthy_since = Some(since);
    }

    pub(super) fn accuse(&mut self, what: String) {
        self.violations.push(format!("at seq {}: {what}", self.seq));
    }

    /// The next entry is durable.
    pub(super) fn read(&mut self, sealed: &Sealed) {
        let entry = match sealed.verify(self.seq + 1, &self.hash, Some(&self.key)) {
            Ok(entry) => entry,
            Err(broken) => {
                self.accuse(format!("the chain is not whole: {broken}"));
                // Goes on behind it, so that one break is one violation.
                (self.seq, self.hash) = (sealed.seq.max(self.seq + 1), sealed.hash);
                return;
            }
        };
        (self.seq, self.hash) = (entry.seq, sealed.hash);
        if entry.at < self.at {
            self.accuse("time goes back".to_owned());
        }
        self.at = entry.at;
        match &entry.kind {
            Kind::Issued(issued) => self.issued(&entry, issued),
            Kind::Dispatched(dispatch) => self.dispatched(dispatch),
            Kind::ChunkOutcome(outcome) => self.chunk_outcome(outcome),
            Kind::Outcome(outcome) => self.outcome(&entry, outcome),
            Kind::Late(late) => self.late(late),
            Kind::DeleteBegun(_) => self.limit(Route::BulkDelete, &entry),
            Kind::Deleted(_)
            | Kind::Login(_)
            | Kind::TokenMinted(_)
            | Kind::TokenRevoked(_)
            | Kind::RoleChanged(_)
            | Kind::ProjectChanged(_)
            | Kind::Refused(_) => {}
        }
    }

    fn issued(&mut self, entry: &Entry, issued: &Issued) {
        let case = Case {
            action: issued.action,
            agent: issued.agent,
            chunks: issued.bulk.as_ref().map(|bulk| bulk.chunks),
            deadline: issued.deadline,
            dispatched: Vec::new(),
            left: Vec::new(),
            done: BTreeMap::new(),
            said: BTreeSet::new(),
            answered_chunks: BTreeSet::new(),
            outcome: None,
            late: None,
        };
        if self.cases.insert(issued.command, case).is_some() {
            self.accuse(format!("{} issued twice", issued.command));
        }
        if let Some(key) = &issued.idempotency_key {
            let holder = (issued.command, issued.request_hash.clone());
            if let Some((first, _)) = self.keys.insert(key.clone(), holder) {
                self.accuse(format!("key {key} made {} after {first}", issued.command));
            }
        }
        if let Some(route) = Route::of(issued.action) {
            self.limit(route, entry);
        }
    }

    fn limit(&mut self, route: Route, entry: &Entry) {
        let Some(user) = entry.actor.user() else { return };
        self.limited.entry((route, user)).or_default().push(entry.at);
        let taken = self.taken(route, user, entry.at, 60);
        if taken > BULK_LIMIT as usize {
            self.accuse(format!("{route:?}: {taken} within a minute"));
        }
    }

    /// Limited actions of a user within `secs` before `at`, which counts.
    fn taken(&self, route: Route, user: UserId, at: Timestamp, secs: i64) -> usize {
        let since = at.plus_secs(-secs);
        self.limited.get(&(route, user)).map_or(0, |all| all.iter().filter(|taken| **taken > since).count())
    }

    /// A user was told that he is over a limit, shortly before `now`.
    pub(super) fn told_limited(&mut self, route: Route, user: UserId, now: Timestamp) {
        let now = now.max(self.at);
        // The decision is a little older than its answer.
        let taken = self.taken(route, user, now, 90);
        if taken < BULK_LIMIT as usize {
            self.accuse(format!("{route:?} refused although only {taken} were made"));
        }
    }

    fn dispatched(&mut self, dispatch: &Dispatch) {
        let Dispatch { command, chunk, attempt, session, deadline: _ } = *dispatch;
        let claim = Claim { command, chunk, attempt };
        let Some(case) = self.cases.get_mut(&command) else {
            return self.accuse(format!("{claim} dispatched, but never issued"));
        };
        let tries = case.dispatched.iter().filter(|(earlier, _)| earlier.chunk == chunk).count();
        let mut wrongs = Vec::new();
        if case.outcome.is_some() {
            wrongs.push("after its outcome");
        }
        if attempt.0 as usize != tries + 1 {
            wrongs.push("with a number that was used or skipped");
        }
        if chunk > 0 && !case.answered_chunks.contains(&(chunk - 1)) {
            wrongs.push("before the chunk before it was answered");
        }
        if case.answered_chunks.contains(&chunk) {
            wrongs.push("after its chunk was answered");
        }
        case.dispatched.push((claim, session));
        for wrong in wrongs {
            self.accuse(format!("{claim} dispatched {wrong}"));
        }
    }

    fn chunk_outcome(&mut self, outcome: &ChunkOutcome) {
        let Some(case) = self.cases.get_mut(&outcome.command) else {
            return self.accuse(format!("an answer to {}, which was never issued", outcome.command));
        };
        case.deadline = outcome.deadline;
        let is_first = case.answered_chunks.insert(outcome.chunk);
        let was_said = case.said.contains(&(outcome.chunk, outcome.success));
        let is_open = case.outcome.is_none();
        if !is_first || !was_said || !is_open {
            let (command, chunk) = (outcome.command, outcome.chunk);
            self.accuse(format!(
                "{command} chunk {chunk} answered (first {is_first}, said {was_said}, open {is_open})"
            ));
        }
    }

    fn outcome(&mut self, entry: &Entry, outcome: &Outcome) {
        let (command, at) = (outcome.command, entry.at);
        let ended = Ended { status: outcome.status, delivered: outcome.delivered, at };
        let Some(case) = self.cases.get_mut(&command) else {
            return self.accuse(format!("an outcome of {command}, which was never issued"));
        };
        let mut wrongs = Vec::new();
        if let Some(first) = case.outcome.replace(ended) {
            wrongs.push(format!("a second outcome {ended:?} after {first:?}"));
        }
        match (outcome.status, entry.actor) {
            (Status::TimedOut, Actor::System) if at < case.deadline => wrongs.push("timed out early".to_owned()),
            (Status::TimedOut, Actor::System) => {}
            (Status::Succeeded | Status::Failed, Actor::Agent(agent)) => {
                let is_said = match case.chunks {
                    None => case.said.contains(&(0, outcome.status == Status::Succeeded)),
                    Some(chunks) => (0..chunks).all(|chunk| case.answered_chunks.contains(&chunk)),
                };
                if agent != case.agent || !is_said {
                    wrongs.push(format!("{} without that answer of its agent", outcome.status));
                }
            }
            _ => wrongs.push(format!("{} by {}", outcome.status, entry.actor)),
        }
        let has_left = !case.left.is_empty();
        if outcome.delivered == Delivered::No && has_left {
            wrongs.push("said to be never delivered, and bytes have left".to_owned());
        }
        if outcome.delivered == Delivered::Yes && !has_left {
            wrongs.push("said to be delivered, and nothing has left".to_owned());
        }
        for wrong in wrongs {
            self.accuse(format!("{command}: {wrong}"));
        }
    }

    fn late(&mut self, late: &Late) {
        let Some(case) = self.cases.get_mut(&late.command) else {
            return self.accuse(format!("a late result of {}, which was never issued", late.command));
        };
        let is_ended = case.outcome.is_some();
        case.late.get_or_insert(late.status);
        if !is_ended {
            self.accuse(format!("a late result of {}, which has not ended", late.command));
        }
    }

    /// Bytes of a delivery may leave from now on.
    pub(super) fn left(&mut self, claim: Claim, session: SessionId) {
        let Some(case) = self.cases.get_mut(&claim.command) else {
            return self.accuse(format!("{claim} left, and was never issued"));
        };
        let mut wrongs = Vec::new();
        if !case.dispatched.contains(&(claim, session)) {
            wrongs.push("without its durable entry");
        }
        if case.left.contains(&claim) {
            wrongs.push("twice as the same attempt");
        }
        let is_again = case.left.iter().any(|earlier| earlier.chunk == claim.chunk);
        if is_again && case.action.redelivery() == Redelivery::AtMostOnce {
            wrongs.push("again, though it may be delivered only once");
        }
        if case.outcome.is_some_and(|ended| ended.delivered == Delivered::No) {
            wrongs.push("after it was said that it never would");
        }
        case.left.push(claim);
        for wrong in wrongs {
            self.accuse(format!("{claim} ({}) left {wrong}", self.cases[&claim.command].action));
        }
    }

    /// Whether the agent still is to answer this delivery, as far as anybody can know.
    pub(super) fn is_awaited(&self, claim: Claim) -> bool {
        self.cases.get(&claim.command).is_some_and(|case| {
            case.outcome.is_none()
                && !case.answered_chunks.contains(&claim.chunk)
                && case.dispatched.last().is_some_and(|(last, _)| *last == claim)
        })
    }

    /// An agent does what it was asked.
    pub(super) fn done(&mut self, claim: Claim, ids: &[String]) {
        let Some(case) = self.cases.get_mut(&claim.command) else { return };
        let times = case.done.entry(claim.chunk).or_default();
        *times += 1;
        let (times, tries) = (*times as usize, case.dispatched.iter().filter(|(d, _)| d.chunk == claim.chunk).count());
        if times > tries {
            self.accuse(format!("{claim} done {times} times in {tries} attempts"));
        }
        for id in ids {
            if !self.touched.insert((claim.command, id.clone())) {
                self.accuse(format!("{claim} touched {id} twice"));
            }
        }
    }

    /// An agent gives an answer, whether it arrives or not.
    pub(super) fn said(&mut self, claim: Claim, success: bool) {
        if let Some(case) = self.cases.get_mut(&claim.command) {
            case.said.insert((claim.chunk, success));
        }
    }

    /// Everything had its time: what is open now stays open.
    pub(super) fn close(&mut self) {
        let mut wrongs = Vec::new();
        for (command, case) in &self.cases {
            match case.outcome {
                None => wrongs.push(format!("{command} ({}) never ended", case.action)),
                Some(ended) if self.healthy_since.is_some_and(|since| case.deadline >= since) => {
                    let late = ended.at.since(case.deadline);
                    if ended.status == Status::TimedOut && late > LATE_MICROS_MAX {
                        wrongs.push(format!("{command} ended {late} us after its deadline"));
                    }
                }
                Some(_) => {}
            }
        }
        for wrong in wrongs {
            self.accuse(wrong);
        }
    }
}
