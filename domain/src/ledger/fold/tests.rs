use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::command::chunk::{FrozenTask, split};
use crate::command::wire::Form;
use crate::command::{Advertised, Asked, Claim, Draft, Resolved, Source, Verb};
use crate::id::{AgentId, SessionId, UserId, uuid_v7};
use crate::ledger::decide::{self, Answer, Heard, Prepared, Returned, Terms};
use crate::ledger::entry::Frozen;
use crate::ledger::{Issuance, LedgerKey, Log, Proposal, Sealed};

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
const AGENT: AgentId = AgentId::from_bytes([1; 16]);
const SESSION: SessionId = SessionId::from_bytes([2; 16]);
const TERMS: Terms = Terms { command_timeout_secs: 60, bulk_limit_per_minute: 3 };

/// What can happen to a ledger; commands are named by when they were issued.
#[derive(Clone, Debug)]
enum Step {
    Issue { verb: u8, user: u8, key: Option<u8>, lane: bool },
    Dispatch { command: prop::sample::Index, returned: u8 },
    Answer { command: prop::sample::Index, chunk: u32, success: bool },
    Deadlines,
    Wait { secs: u16 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let command = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (0..4_u8, 0..2_u8, prop::option::of(0..4_u8), any::<bool>())
            .prop_map(|(verb, user, key, lane)| Step::Issue { verb, user, key, lane }),
        3 => (command(), 0..3_u8).prop_map(|(command, returned)| Step::Dispatch { command, returned }),
        4 => (command(), 0..3_u32, any::<bool>())
            .prop_map(|(command, chunk, success)| Step::Answer { command, chunk, success }),
        1 => Just(Step::Deadlines),
        2 => (0..70_u16).prop_map(|secs| Step::Wait { secs }),
    ]
}

fn draft(verb: u8, user: u8, key: Option<u8>) -> Draft {
    let (verb, body) = match verb {
        0 => (Verb::RetryTask, r#""engine":"celery","task_id":"t""#),
        1 => (Verb::CancelTask, r#""engine":"celery","task_id":"t""#),
        2 => (Verb::PurgeQueue, r#""queue":"q","force":true"#),
        _ => (Verb::BulkRetry, r#""filter":{"state":"failed"}"#),
    };
    let key = key.map_or_else(String::new, |key| format!(r#","idempotency_key":"k{key}""#));
    let asked = Asked::parse(verb, format!(r#"{{"agent_id":"{AGENT}",{body}{key}}}"#).as_bytes()).unwrap();
    let tasks = (0..501).map(|n| FrozenTask::new(format!("t{n}"), None, None)).collect();
    let advertised = Advertised { engines: vec!["celery".into()], said_hello: true, ..Advertised::default() };
    let resolved = Resolved { tasks, advertised, ..Resolved::default() };
    Draft::new(asked, Actor::User(UserId::from_bytes([user; 16])), Source::default(), resolved)
}

/// A home that appends what it decides.
struct Home {
    log: Log,
    now: Timestamp,
    sealed: Vec<Sealed>,
    issued: Vec<CommandId>,
}

impl Home {
    fn new() -> Self {
        let log = Log::new(PROJECT, LedgerKey::new(&[1; 32]));
        Self { log, now: Timestamp::from_secs(1_800_000_000), sealed: Vec::new(), issued: Vec::new() }
    }

    fn record(&mut self, proposals: impl IntoIterator<Item = Proposal>) {
        for proposal in proposals {
            self.sealed.push(self.log.record(proposal, self.now).0);
        }
    }

    fn pick(&self, index: &prop::sample::Index) -> Option<CommandId> {
        (!self.issued.is_empty()).then(|| self.issued[index.index(self.issued.len())])
    }

    fn step(&mut self, step: &Step) {
        self.now = self.now.plus_micros(1);
        match step {
            Step::Issue { verb, user, key, lane } => self.issue(&draft(*verb, *user, *key), *lane),
            Step::Dispatch { command, returned } => {
                let Some(command) = self.pick(command) else { return };
                let Some(open) = self.log.fold.open(command) else { return };
                let (chunk, attempt) = (open.command.chunk, open.command.attempt);
                let returned = match returned {
                    0 => None,
                    1 => Some(Returned::NotSent { chunk, attempt }),
                    _ => Some(Returned::Gone { chunk, attempt }),
                };
                if let Ok(proposal) = decide::dispatch(&self.log.fold, command, returned, SESSION, self.now) {
                    self.record([proposal]);
                }
            }
            Step::Answer { command, chunk, success } => {
                let Some(command) = self.pick(command) else { return };
                let answer = Answer { success: *success, result: None, error: (!success).then(|| "no".to_owned()) };
                let claim = Claim { command, chunk: *chunk, attempt: Attempt(1) };
                let chunks = split(&draft(3, 0, None).resolved.tasks);
                let ended = self.log.fold.open(command).is_none();
                let heard = Heard { agent: AGENT, claim, answer: &answer, chunk: chunks.get(*chunk as usize), ended };
                let proposals = decide::result(&self.log.fold, heard, self.now, TERMS);
                self.record(proposals);
            }
            Step::Deadlines => {
                for command in self.log.fold.overdue(self.now) {
                    let ended = decide::deadline(&self.log.fold, command, Delivered::Unknown, self.now);
                    self.record(ended);
                }
            }
            Step::Wait { secs } => self.now = self.now.plus_secs(i64::from(*secs)),
        }
    }

    fn issue(&mut self, draft: &Draft, lane: bool) {
        let command = CommandId::from_uuid(uuid_v7(self.now, [0; 8]));
        let form = Form::of(draft, self.now);
        let chunks = split(&draft.resolved.tasks);
        let frozen = matches!(draft.request.verb(), Verb::BulkRetry).then(|| Frozen {
            chunks: chunks.len() as u32,
            total: 501,
            digest: String::new(),
        });
        let prepared = Prepared { command, form, sealed: None, frozen, holder: None };
        let lane = lane.then_some(SESSION);
        if let Ok(Issuance::New(proposals)) = decide::issue(&self.log.fold, draft, &prepared, lane, self.now, TERMS) {
            self.issued.push(command);
            self.record(proposals);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_back_is_what_was_decided(steps in vec(any_step(), 0..80), cut in any::<prop::sample::Index>()) {
        let mut home = Home::new();
        for step in &steps {
            home.step(step);
        }
        let mut read = Log::new(PROJECT, LedgerKey::new(&[1; 32]));
        let cut = cut.index(home.sealed.len() + 1);
        let mut changes = Vec::new();
        for (n, sealed) in home.sealed.iter().enumerate() {
            if n == cut {
                // A home may start from a head anywhere.
                let head = read.fold.snapshot().expect("small enough");
                let from_head = Fold::from_snapshot(&head).expect("readable");
                prop_assert_eq!(&from_head, &read.fold);
                read = Log::from_fold(from_head, LedgerKey::new(&[1; 32]));
            }
            changes.extend(read.read(sealed).expect("the chain holds").1);
        }
        prop_assert_eq!(&read.fold, &home.log.fold);
        // The projection says of every command what the fold says, and no open one is missing in it.
        let mut rows: BTreeMap<CommandId, Command> = BTreeMap::new();
        for change in changes {
            if let Change::Command(command) = change {
                rows.insert(command.id, *command);
            }
        }
        for command in &home.issued {
            let open = home.log.fold.open(*command);
            prop_assert_eq!(rows[command].status.is_terminal(), open.is_none());
            prop_assert!(open.is_none_or(|open| open.command == rows[command] && open.state.status() == rows[command].status));
        }
    }

    #[test]
    fn a_command_has_one_outcome_and_nothing_but_late_results_after_it(steps in vec(any_step(), 0..120)) {
        let mut home = Home::new();
        for step in &steps {
            home.step(step);
        }
        let mut ended = BTreeMap::new();
        let mut dispatched = BTreeMap::new();
        for sealed in &home.sealed {
            let entry = Entry::decode(&sealed.bytes).unwrap();
            let Some(command) = entry.kind.command() else { continue };
            match &entry.kind {
                Kind::Outcome(_) => {
                    prop_assert!(ended.insert(command, entry.seq).is_none(), "a second outcome at {}", entry.seq);
                }
                Kind::Late(_) => prop_assert!(ended.contains_key(&command)),
                Kind::Dispatched(dispatch) => {
                    prop_assert!(!ended.contains_key(&command));
                    let before = dispatched.insert(command, (dispatch.chunk, dispatch.attempt));
                    prop_assert!(before.is_none_or(|before| before < (dispatch.chunk, dispatch.attempt)));
                }
                _ => prop_assert!(!ended.contains_key(&command), "seq {} after the end", entry.seq),
            }
        }
    }

    #[test]
    fn a_limiter_is_never_over(steps in vec(any_step(), 0..200)) {
        let mut home = Home::new();
        for step in &steps {
            home.step(step);
        }
        let mut taken: BTreeMap<(Route, UserId), Vec<Timestamp>> = BTreeMap::new();
        for sealed in &home.sealed {
            let entry = Entry::decode(&sealed.bytes).unwrap();
            let Kind::Issued(issued) = &entry.kind else { continue };
            let (Some(route), Some(user)) = (Route::of(issued.action), entry.actor.user()) else { continue };
            taken.entry((route, user)).or_default().push(entry.at);
        }
        for times in taken.values() {
            for (n, at) in times.iter().enumerate() {
                let within = times[n..].iter().take_while(|later| later.since(*at) < 60_000_000).count();
                prop_assert!(within <= TERMS.bulk_limit_per_minute as usize);
            }
        }
    }

    #[test]
    fn a_key_is_one_commands(steps in vec(any_step(), 0..80)) {
        let mut home = Home::new();
        for step in &steps {
            home.step(step);
        }
        let mut keys = BTreeMap::new();
        for sealed in &home.sealed {
            let entry = Entry::decode(&sealed.bytes).unwrap();
            if let Kind::Issued(issued) = &entry.kind && let Some(key) = &issued.idempotency_key {
                prop_assert!(keys.insert(key.clone(), issued.command).is_none());
            }
        }
    }
}
