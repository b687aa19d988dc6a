//! One input decided against the ledger: its entries are recorded, and what is to be done once they are durable
//! is kept as a verdict.

use domain::command::{Claim, Command};
use domain::id::{CommandId, UserId};
use domain::ledger::decide::{self, Heard};
use domain::ledger::{Change, Issuance, Kind, Limited, Proposal, Refusal, Route, Sealed};
use domain::task::Sighting;
use domain::time::Timestamp;

use super::ProjectActor;
use super::prepare::is_unfrozen;
use super::state::{Input, Issuing, State};

/// A delivery that goes out once its entry is durable.
pub(super) struct Handout {
    /// Of the `dispatched` entry.
    pub(super) seq: u64,
    /// The command as dispatched.
    pub(super) command: Command,
}

/// What an input came to.
pub(super) enum Verdict {
    Issued {
        command: Box<Command>,
        handout: Option<Handout>,
    },
    /// A bulk command that nothing refuses: its ids are made durable, and it is decided again.
    Unfrozen,
    Replayed(CommandId),
    Refused(Refusal),
    Noted(u64),
    Limited(Limited),
    HandedOut(Option<Handout>),
    /// The command that was answered, if it still was open, and whether it has ended now.
    Answered {
        ended: bool,
        /// What it says of a task that is to run later.
        scheduled: Option<Box<Sighting>>,
    },
    /// The answer is to a command that is not open: its row says more.
    NotOpen,
    Ended(bool),
}

/// Entries of a batch so far, and what follows from them.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) sealed: Vec<Sealed>,
    pub(super) changes: Vec<(u64, Change)>,
}

impl Entries {
    fn record(&mut self, state: &mut State, proposal: Proposal, now: Timestamp) -> u64 {
        let (sealed, changes) = state.log.record(proposal, now);
        let seq = sealed.seq;
        self.changes.extend(changes.into_iter().map(|change| (seq, change)));
        self.sealed.push(sealed);
        seq
    }

    fn record_all(&mut self, state: &mut State, proposals: Vec<Proposal>, now: Timestamp) -> u64 {
        proposals.into_iter().map(|proposal| self.record(state, proposal, now)).last().unwrap_or(state.log.fold.seq())
    }

    /// The row of a command as the newest change has it.
    fn row(&self, id: CommandId) -> Option<Command> {
        self.changes.iter().rev().find_map(|(_, change)| match change {
            Change::Command(command) if command.id == id => Some((**command).clone()),
            Change::Command(_) | Change::Late { .. } | Change::Key { .. } | Change::Chunk { .. } | Change::Busy(_) => {
                None
            }
        })
    }
}

impl ProjectActor {
    pub(super) fn decide(&self, state: &mut State, input: &Input, entries: &mut Entries, now: Timestamp) -> Verdict {
        match input {
            Input::Issue(issuing) => self.decide_issue(state, issuing, entries, now),
            Input::Note { proposal, .. } => self.decide_note(state, proposal, entries, now),
            Input::Lane { command, session } => {
                let returned = state.returned.get(command).copied();
                match decide::dispatch(&state.log.fold, *command, returned, *session, now) {
                    Ok(proposal) => {
                        let seq = entries.record(state, proposal, now);
                        Verdict::HandedOut(entries.row(*command).map(|command| Handout { seq, command }))
                    }
                    Err(_) => Verdict::HandedOut(None),
                }
            }
            Input::Answer { agent, claim, answer, chunk, ended, .. } => {
                let Claim { command, .. } = *claim;
                let was_open = state.log.fold.open(command).is_some();
                if !was_open && !ended {
                    return Verdict::NotOpen;
                }
                let heard = Heard { agent: *agent, claim: *claim, answer, chunk: chunk.as_ref(), ended: *ended };
                let proposals = decide::result(&state.log.fold, heard, now, self.terms);
                entries.record_all(state, proposals, now);
                let ended = was_open && state.log.fold.open(command).is_none();
                let row = if ended { entries.row(command) } else { None };
                let scheduled = row.as_ref().and_then(domain::command::scheduled).map(Box::new);
                Verdict::Answered { ended, scheduled }
            }
            Input::Overdue(command) => {
                let Some(open) = state.log.fold.open(*command) else { return Verdict::Ended(false) };
                let delivered = state.delivered(open);
                match decide::deadline(&state.log.fold, *command, delivered, now) {
                    Some(proposal) => {
                        entries.record(state, proposal, now);
                        Verdict::Ended(true)
                    }
                    None => Verdict::Ended(false),
                }
            }
        }
    }

    fn decide_issue(&self, state: &mut State, issuing: &Issuing, entries: &mut Entries, now: Timestamp) -> Verdict {
        let Issuing { draft, prepared, lane, .. } = issuing;
        match decide::issue(&state.log.fold, draft, prepared, *lane, now, self.terms) {
            Ok(Issuance::Replayed(command)) => Verdict::Replayed(command),
            Ok(Issuance::New(_)) if is_unfrozen(issuing) => Verdict::Unfrozen,
            Ok(Issuance::New(proposals)) => {
                let is_handout = matches!(proposals.last().map(|last| &last.kind), Some(Kind::Dispatched(_)));
                let seq = entries.record_all(state, proposals, now);
                let Some(command) = entries.row(prepared.command) else { return Verdict::Replayed(prepared.command) };
                let handout = is_handout.then(|| Handout { seq, command: command.clone() });
                Verdict::Issued { command: Box::new(command), handout }
            }
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn decide_note(&self, state: &mut State, proposal: &Proposal, entries: &mut Entries, now: Timestamp) -> Verdict {
        let limited: Option<UserId> =
            if matches!(proposal.kind, Kind::DeleteBegun(_)) { proposal.actor.user() } else { None };
        if let Some(user) = limited {
            let (fold, limit) = (&state.log.fold, self.terms.bulk_limit_per_minute);
            if let Err(limited) = fold.limits().check(Route::BulkDelete, user, now.max(fold.at()), limit) {
                return Verdict::Limited(limited);
            }
        }
        Verdict::Noted(entries.record(state, proposal.clone(), now))
    }
}
