//! The append: one at a time, as many inputs as wait, and what is done once it is durable.
//!
//! Decide, persist, change memory, reply. The log in memory is ahead of the store while an append runs, so nothing
//! is decided meanwhile; if the append is lost, the log is read anew and every input decided again.

use std::collections::VecDeque;
use std::sync::Arc;

use cql::StoreError;
use cql::ledger::{Appended, Projector, Receipt, commands, entries, head, open};
use domain::command::{Command, Status};
use domain::ledger::Returned;
use domain::task::Sighting;
use ractor::ActorRef;
use tokio::time::Instant;

use super::decide::{Entries, Handout, Verdict};
use super::handle::{IssueError, NoteError};
use super::prepare::answer;
use super::state::{Appending, Input, Issuing, State};
use super::{ProjectActor, ProjectMessage, Uncertain, load};
use crate::agent::{Dispatched, Parts};
use crate::changes::Topic;
use crate::meters;

/// One input brings at most two entries.
const INPUT_ENTRIES_MAX: usize = 2;

/// The head is written again after this many entries: a home that starts reads at most so many.
const HEAD_EVERY: u64 = 500;

/// How often what waits for space is tried again.
const SPACE_EVERY_SECS: i64 = 1;

/// An append that has come to an end.
pub struct AppendDone {
    decided: Vec<(Input, Verdict)>,
    outcome: Result<Appended, StoreError>,
    projector: Projector,
    head_seq: u64,
}

impl ProjectActor {
    /// Starts an append of what waits, unless one is running.
    pub(super) fn append_next(&self, myself: &ActorRef<ProjectMessage>, state: &mut State) {
        while state.appending.is_none() && !state.queue.is_empty() {
            let seq = state.log.fold.seq();
            let head_due = seq >= state.head_seq + HEAD_EVERY;
            // Too large a head is not tried again before as many entries more.
            let head = if head_due { head::put(&state.log.fold) } else { None };
            let head_seq = if head_due { seq } else { state.head_seq };
            let (decided, batch) = self.decide_waiting(state);
            if batch.sealed.is_empty() {
                // Nothing to make durable: what was decided rests on what is.
                for (input, verdict) in decided {
                    self.complete(myself, state, input, verdict, None);
                }
                continue;
            }
            state.appending = Some(Appending);
            let mut projector = std::mem::take(&mut state.projector);
            let (store, project, myself) = (Arc::clone(&self.store), self.project, myself.clone());
            tokio::spawn(async move {
                let append = async {
                    let mut follow = projector.writes(&*store, project, &batch.changes).await?;
                    follow.extend(head);
                    let before = open::announce(project, &batch.changes);
                    entries::append_after(before, &*store, project, &batch.sealed, follow).await
                };
                let started = Instant::now();
                let outcome = append.await;
                if matches!(outcome, Ok(Appended::Done(_))) {
                    meters::appended(project, &batch.changes, started.elapsed());
                }
                // A project that is gone reads from the ledger what became of this.
                let done = AppendDone { decided, outcome, projector, head_seq };
                let _ = myself.cast(ProjectMessage::Appended(Box::new(done)));
            });
        }
    }

    fn decide_waiting(&self, state: &mut State) -> (Vec<(Input, Verdict)>, Entries) {
        let now = self.clock.now();
        let (mut decided, mut batch) = (Vec::new(), Entries::default());
        while batch.sealed.len() + INPUT_ENTRIES_MAX <= cql::ledger::APPEND_MAX {
            let Some(input) = state.queue.pop_front() else { break };
            let verdict = self.decide(state, &input, &mut batch, now);
            decided.push((input, verdict));
        }
        (decided, batch)
    }

    pub(super) async fn on_appended(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        done: AppendDone,
    ) -> Result<(), Uncertain> {
        let AppendDone { decided, outcome, projector, head_seq } = done;
        state.appending = None;
        match outcome {
            Ok(Appended::Done(receipt)) => {
                (state.projector, state.head_seq) = (projector, head_seq);
                for (input, verdict) in decided {
                    self.complete(myself, state, input, verdict, Some(&receipt));
                }
                self.changes.tell(self.project, Topic::Command);
                self.changes.ledger_grew(self.project);
                Ok(())
            }
            // Another home was first: read on, decide again.
            Ok(Appended::Lost) => self.decide_again(myself, state, decided).await,
            Ok(Appended::Unknown) => Err(Uncertain::Append),
            Err(StoreError::Full) => self.wait_for_space(state, decided).await,
            Err(error) => Err(Uncertain::Store(error)),
        }
    }

    /// Nothing was written. Who asks for something hears of it; what happened is kept, to be decided again.
    async fn wait_for_space(&self, state: &mut State, decided: Vec<(Input, Verdict)>) -> Result<(), Uncertain> {
        self.reload(state).await?;
        self.look_up_keys(state).await?;
        for (input, _) in decided {
            match input {
                Input::Issue(issuing) => {
                    // The lane that was kept for it is free again.
                    self.tell_forget(state, issuing.draft.agent, issuing.prepared.command);
                    self.answer_without(*issuing, Err(IssueError::Store(StoreError::Full)));
                }
                Input::Note { reply, .. } => answer(reply, Err(NoteError::Store(StoreError::Full))),
                Input::Lane { .. } | Input::Answer { .. } => state.kept.push_back(input),
                // Found again by the next tick.
                Input::Overdue(_) => {}
            }
        }
        if state.complaint.is_due() {
            tracing::warn!(project.id = %self.project, "no space for the ledger, commands are refused and results wait");
        }
        state.space_at = Some(self.clock.now().plus_secs(SPACE_EVERY_SECS));
        Ok(())
    }

    async fn decide_again(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        decided: Vec<(Input, Verdict)>,
    ) -> Result<(), Uncertain> {
        tracing::info!(project.id = %self.project, "append lost to another home; deciding again");
        self.reload(state).await?;
        let again: VecDeque<Input> = decided.into_iter().map(|(input, _)| input).collect();
        let later = std::mem::replace(&mut state.queue, again);
        state.queue.extend(later);
        self.look_up_keys(state).await?;
        // The other home may have brought commands that our sessions can run.
        let open: Vec<_> = state.log.fold.open_commands().map(|open| open.command.id).collect();
        for command in open {
            self.offer_open(myself, state, command).await;
        }
        Ok(())
    }

    /// Asks again whose the keys of waiting drafts are: the other home may have taken one and written a head since,
    /// and a fold that starts at a head knows the newest keys only.
    async fn look_up_keys(&self, state: &mut State) -> Result<(), Uncertain> {
        let queued = state.queue.iter_mut().filter_map(|input| match input {
            Input::Issue(issuing) => Some(issuing),
            Input::Note { .. } | Input::Lane { .. } | Input::Answer { .. } | Input::Overdue(_) => None,
        });
        for issuing in queued.chain(state.offered.values_mut()) {
            self.look_up_key(issuing).await.map_err(Uncertain::Store)?;
            issuing.reloads = state.reloads;
        }
        Ok(())
    }

    async fn reload(&self, state: &mut State) -> Result<(), Uncertain> {
        let loaded = load::load(&*self.store, self.project, &self.keys.ledger).await.map_err(Uncertain::Ledger)?;
        let load::Loaded { log, projector, head_seq } = loaded;
        (state.log, state.projector, state.head_seq) = (log, projector, head_seq);
        state.reloads += 1;
        state.forget_ended();
        self.tell_open(state);
        state.catch_up_at = state.catch_up_at.or_else(|| state.next_catch_up(self.clock.now()));
        Ok(())
    }

    /// Does what an input came to; its entries, if any, are durable.
    fn complete(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        input: Input,
        verdict: Verdict,
        receipt: Option<&Receipt>,
    ) {
        match (input, verdict) {
            (Input::Issue(issuing), verdict) => {
                let (agent, id) = (issuing.draft.agent, issuing.prepared.command);
                if let Verdict::Issued { command, handout } = verdict {
                    if command.global_throttle {
                        tracing::error!(project.id = %self.project, command.id = %id, "rate limit for every worker of a broker");
                    }
                    if issuing.draft.request.is_forced() {
                        tracing::error!(project.id = %self.project, command.id = %id, "purge of a queue forced, without confirmation");
                    }
                    if handout.is_none() && !issuing.told && command.status == Status::Issued {
                        // Its agent may have connected since it was asked for.
                        let _ = myself.cast(ProjectMessage::Next { command: id });
                    }
                    answer(issuing.reply, Ok(*command));
                    self.hand_out(myself, state, handout, receipt);
                    return;
                }
                self.tell_forget(state, agent, id);
                match verdict {
                    Verdict::Unfrozen => self.freeze(myself, *issuing),
                    Verdict::Replayed(first) => self.answer_replay(state, first, *issuing),
                    Verdict::Refused(refusal) => self.answer_without(*issuing, Err(IssueError::Refused(refusal))),
                    Verdict::Issued { .. }
                    | Verdict::Noted(_)
                    | Verdict::Limited(_)
                    | Verdict::HandedOut(_)
                    | Verdict::Answered { .. }
                    | Verdict::NotOpen
                    | Verdict::Ended(_) => {}
                }
            }
            (Input::Note { reply, .. }, Verdict::Noted(seq)) => answer(reply, Ok(seq)),
            (Input::Note { reply, .. }, Verdict::Limited(limited)) => answer(reply, Err(limited.into())),
            (Input::Lane { .. }, Verdict::HandedOut(Some(handout))) => {
                state.returned.remove(&handout.command.id);
                self.hand_out(myself, state, Some(handout), receipt);
            }
            (Input::Lane { command, .. }, Verdict::HandedOut(None)) => {
                self.tell_release(state, command);
            }
            (Input::Answer { agent, claim, .. }, Verdict::Answered { ended: true, scheduled }) => {
                // Another attempt may be in a lane, and its own answer may never come.
                self.changes.command_ended(claim.command);
                self.tell_forget(state, agent, claim.command);
                state.forget(claim.command);
                self.tell_scheduled(scheduled);
            }
            (Input::Answer { claim, .. }, Verdict::Answered { ended: false, .. }) => {
                self.offer_later(myself, state, claim.command);
            }
            (Input::Answer { agent, claim, answer, permit, .. }, Verdict::NotOpen) => {
                self.look_up_answer(myself, state, agent, claim, answer, permit);
            }
            (Input::Overdue(command), Verdict::Ended(true)) => {
                tracing::info!(project.id = %self.project, command.id = %command, "command timed out");
                self.changes.command_ended(command);
                for child in state.agents.keys().copied().collect::<Vec<_>>() {
                    self.tell_forget(state, child, command);
                }
                state.forget(command);
            }
            (
                Input::Note { .. } | Input::Lane { .. } | Input::Answer { .. } | Input::Overdue(_),
                Verdict::Issued { .. }
                | Verdict::Unfrozen
                | Verdict::Replayed(_)
                | Verdict::Refused(_)
                | Verdict::Noted(_)
                | Verdict::Limited(_)
                | Verdict::HandedOut(_)
                | Verdict::Answered { .. }
                | Verdict::NotOpen
                | Verdict::Ended(_),
            ) => {}
        }
    }

    /// The task of a retry for later is known by its eta before anybody reports it. Lost with the node: then it has
    /// none, like any task that somebody else scheduled.
    fn tell_scheduled(&self, scheduled: Option<Box<Sighting>>) {
        let Some(sighting) = scheduled else { return };
        let (recorders, project) = (self.recorders.clone(), self.project);
        tokio::spawn(async move { recorders.schedule(project, *sighting).await });
    }

    /// A bulk command whose next chunk waits wants a lane again.
    fn offer_later(&self, myself: &ActorRef<ProjectMessage>, state: &State, command: domain::id::CommandId) {
        if state.log.fold.open(command).is_some_and(|open| open.command.is_bulk()) {
            let _ = myself.cast(ProjectMessage::Next { command });
        }
    }

    /// Answers with the command that the key stands for, as it is now.
    fn answer_replay(&self, state: &State, first: domain::id::CommandId, issuing: Issuing) {
        if let Some(open) = state.log.fold.open(first) {
            return self.answer_without(issuing, Ok(open.command.clone()));
        }
        let (store, project, this) = (Arc::clone(&self.store), self.project, self.clone());
        tokio::spawn(async move {
            let row = commands::get(&*store, project, first).await;
            let replay = row.map_err(IssueError::Store).and_then(|row| row.ok_or(IssueError::Unavailable));
            this.answer_without(issuing, replay);
        });
    }

    /// Answers a draft that came to no command of its own; ids that were frozen for it are gone before its caller
    /// hears of it.
    fn answer_without(&self, issuing: Issuing, value: Result<Command, IssueError>) {
        let Issuing { prepared, reply, .. } = issuing;
        let Some(frozen) = prepared.frozen else { return answer(reply, value) };
        let (store, project) = (Arc::clone(&self.store), self.project);
        tokio::spawn(async move {
            if let Err(error) = commands::thaw(&*store, project, prepared.command, frozen.chunks).await {
                tracing::warn!(command.id = %prepared.command, error = %error, "frozen ids of a refused command stay");
            }
            answer(reply, value);
        });
    }

    /// Hands a durable delivery to its agent; for a bulk command its frozen ids are read first.
    fn hand_out(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &State,
        handout: Option<Handout>,
        receipt: Option<&Receipt>,
    ) {
        let (Some(Handout { seq, command }), Some(receipt)) = (handout, receipt) else { return };
        let Some(session) = command.session else { return };
        let not_sent = (command.id, Returned::NotSent { chunk: command.chunk, attempt: command.attempt });
        let now = self.clock.now();
        if !command.is_bulk() {
            let secrets = command.open_secrets(&self.keys.data);
            let parts = Parts { secrets: secrets.as_deref(), chunk: None };
            if let Some(dispatched) = Dispatched::new(&command, session, parts, now, seq, receipt) {
                self.tell_deliver(myself, state, command.agent, dispatched, not_sent);
            }
            return;
        }
        let (store, project, myself, receipt) =
            (Arc::clone(&self.store), self.project, myself.clone(), receipt.clone());
        tokio::spawn(async move {
            let frozen = commands::frozen(&*store, project, command.id, command.chunk).await.ok().flatten();
            let parts = Parts { secrets: None, chunk: frozen.as_ref() };
            let dispatched =
                frozen.as_ref().and_then(|_| Dispatched::new(&command, session, parts, now, seq, &receipt));
            let message = match dispatched {
                Some(dispatched) => {
                    ProjectMessage::Loaded { agent: command.agent, dispatched: Box::new(dispatched), not_sent }
                }
                None => ProjectMessage::Returned { command: command.id, returned: not_sent.1, worker: None },
            };
            // A project that is gone counts the delivery as under way.
            let _ = myself.cast(message);
        });
    }
}
