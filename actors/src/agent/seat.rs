//! The sessions of one agent, each with its lane.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use domain::command::Attempt;
use domain::id::{CommandId, SessionId};

use super::{Avoid, Needs, Offer};
use crate::session::SessionHandle;

/// What is in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) command: CommandId,
    pub(super) chunk: u32,
    pub(super) attempt: Attempt,
    /// The frame was given to the session, so bytes may have left.
    pub(super) given: bool,
}

struct Seat {
    handle: SessionHandle,
    /// Free if empty. After a restart there may be several: one that was answered, while its answer was on its way to
    /// the ledger, and the one after it.
    lane: Vec<Delivery>,
    /// A command of this session was given up without an answer: the agent may still be at it.
    late: bool,
    /// The session took no frame; it is left alone until it is heard of again.
    deaf: bool,
}

/// All seats, in session order.
#[derive(Default)]
pub(super) struct Seats(BTreeMap<SessionId, Seat>);

impl Seats {
    pub(super) fn sit(&mut self, handle: SessionHandle) {
        let seat = Seat { handle, lane: Vec::new(), late: false, deaf: false };
        self.0.entry(seat.handle.id()).or_insert(seat);
    }

    /// Marks a lane as taken by a delivery that was handed out earlier.
    pub(super) fn hold(&mut self, session: SessionId, delivery: Delivery) {
        if let Some(seat) = self.0.get_mut(&session) {
            seat.lane.push(delivery);
        }
    }

    /// Takes the best free lane for a command and keeps it.
    pub(super) fn take(&mut self, offer: &Offer) -> Option<SessionId> {
        // An offer that is repeated keeps the lane it has.
        let is_kept = |held: &Delivery| held.command == offer.command && !held.given;
        if let Some((session, _)) = self.0.iter().find(|(_, seat)| seat.lane.iter().any(is_kept)) {
            return Some(*session);
        }
        let kept = Delivery { command: offer.command, chunk: 0, attempt: Attempt::NONE, given: false };
        let (session, seat) = self
            .0
            .iter_mut()
            .filter(|(_, seat)| seat.lane.is_empty() && seat.hears() && seat.can(&offer.needs))
            .max_by_key(|(_, seat)| seat.rank(&offer.needs))?;
        seat.lane.push(kept);
        Some(*session)
    }

    /// Fills a kept lane. `None`: the session is gone or its lane is another command's by now.
    pub(super) fn give(&mut self, session: SessionId, delivery: Delivery) -> Option<SessionHandle> {
        let seat = self.0.get_mut(&session)?;
        let kept = seat.lane.iter_mut().find(|held| held.command == delivery.command)?;
        *kept = delivery;
        Some(seat.handle.clone())
    }

    /// Frees the lane of a delivery that was answered over `session`, which may be another one than the frame went
    /// to. An answer that comes again must not free the lane of the next chunk.
    pub(super) fn free(&mut self, session: SessionId, command: CommandId, chunk: u32) {
        for (id, seat) in &mut self.0 {
            seat.late |= seat.clear(|held| held.given && (held.command, held.chunk) == (command, chunk));
            if *id == session {
                (seat.late, seat.deaf) = (false, false);
            }
        }
    }

    /// Frees a lane that was kept for a command and got no delivery. One that has it stays taken: an offer made
    /// twice is refused once.
    pub(super) fn release(&mut self, command: CommandId) {
        for seat in self.0.values_mut() {
            seat.clear(|held| held.command == command && !held.given);
        }
    }

    /// Frees lanes with deliveries of commands that are open no more.
    pub(super) fn keep_open(&mut self, open: &BTreeSet<CommandId>) {
        for seat in self.0.values_mut() {
            seat.late |= seat.clear(|held| held.given && !open.contains(&held.command));
        }
    }

    /// Frees the lane of a session that took nothing.
    pub(super) fn refuse(&mut self, session: SessionId, command: CommandId) {
        if let Some(seat) = self.0.get_mut(&session) {
            seat.deaf = true;
            seat.clear(|held| held.command == command);
        }
    }

    /// Frees whichever lane a command has; the agent may still be at it.
    pub(super) fn forget(&mut self, command: CommandId) {
        for seat in self.0.values_mut() {
            seat.late |= seat.clear(|held| held.command == command);
        }
    }

    /// Removes a session; what was in its lane, and which worker it was.
    pub(super) fn leave(&mut self, session: SessionId) -> Option<(Vec<Delivery>, Option<String>)> {
        let seat = self.0.remove(&session)?;
        Some((seat.lane, seat.handle.facts.worker_id.clone()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Seat {
    /// Takes out of the lane what fits; true if any of it was given to the session.
    fn clear(&mut self, fits: impl Fn(&Delivery) -> bool) -> bool {
        self.lane.extract_if(.., |held| fits(held)).fold(false, |given, held| given | held.given)
    }

    /// One that took no frame is tried again once its agent polls again.
    fn hears(&self) -> bool {
        !self.deaf || self.handle.is_polling()
    }

    fn can(&self, needs: &Needs) -> bool {
        let facts = &self.handle.facts;
        let avoided = needs.avoid.as_ref().is_some_and(|Avoid(worker)| *worker == facts.worker_id);
        let has_engine = match needs.engine {
            Some(engine) => facts.engines.iter().any(|name| name == engine.as_str()),
            None => true,
        };
        // Without a hello nothing is known, and the agent decides.
        !avoided && (has_engine || !facts.said_hello)
    }

    /// Larger is better: there to take it, not busy with something given up, listing the action, a task worker; then
    /// spread.
    fn rank(&self, needs: &Needs) -> (bool, bool, bool, bool, u64) {
        let facts = &self.handle.facts;
        let lists = needs.engine.is_some_and(|engine| {
            facts
                .capabilities
                .get(engine.as_str())
                .is_some_and(|actions| actions.iter().any(|action| action == needs.action.as_str()))
        });
        let is_task_worker = facts.worker_role.as_deref() == Some("task");
        // DefaultHasher::new has fixed keys, so equal inputs choose alike on every node.
        let mut hasher = std::hash::DefaultHasher::new();
        (&needs.target, &facts.worker_id).hash(&mut hasher);
        (!self.handle.is_away(), !self.late, lists, is_task_worker, hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use domain::command::Action;
    use domain::id::{AgentId, ProjectId};
    use domain::time::Timestamp;

    use super::*;
    use crate::session::SessionFacts;

    const SESSION: SessionId = SessionId::from_bytes([1; 16]);

    fn command(n: u8) -> CommandId {
        CommandId::from_bytes([n; 16])
    }

    fn offer(n: u8) -> Offer {
        let needs = Needs { engine: None, action: Action::RetryTask, target: String::new(), avoid: None };
        Offer { command: command(n), needs }
    }

    /// One session that is at a chunk of command 1.
    fn busy(chunk: u32) -> Seats {
        let facts = SessionFacts {
            session: SESSION,
            project: ProjectId::NIL,
            agent: AgentId::NIL,
            worker_id: None,
            worker_role: None,
            engines: Vec::new(),
            capabilities: Default::default(),
            said_hello: false,
            connected_at: Timestamp::EPOCH,
        };
        let mut seats = Seats::default();
        seats.sit(SessionHandle::new(facts).0);
        assert_eq!(seats.take(&offer(1)), Some(SESSION));
        let delivery = Delivery { command: command(1), chunk, attempt: Attempt(1), given: true };
        assert!(seats.give(SESSION, delivery).is_some());
        seats
    }

    #[test]
    fn an_offer_made_twice_does_not_free_the_lane_in_use() {
        let mut seats = busy(0);
        seats.release(command(1));
        assert_eq!(seats.take(&offer(2)), None);
        seats.free(SESSION, command(1), 0);
        assert_eq!(seats.take(&offer(2)), Some(SESSION));
        seats.release(command(2));
        assert_eq!(seats.take(&offer(3)), Some(SESSION), "a lane that was only kept is free again");
    }

    #[test]
    fn an_answer_that_comes_again_does_not_free_the_next_chunks_lane() {
        let mut seats = busy(1);
        seats.free(SESSION, command(1), 0);
        assert_eq!(seats.take(&offer(2)), None);
        seats.free(SESSION, command(1), 1);
        assert_eq!(seats.take(&offer(2)), Some(SESSION));
    }

    #[test]
    fn a_lane_is_free_when_everything_in_it_has_ended() {
        let mut seats = busy(0);
        // After a restart: the answer to command 2 is on its way to the ledger.
        seats.hold(SESSION, Delivery { command: command(2), chunk: 0, attempt: Attempt(1), given: true });
        seats.forget(command(2));
        assert_eq!(seats.take(&offer(3)), None, "the agent is at command 1");
        seats.forget(command(1));
        assert_eq!(seats.take(&offer(3)), Some(SESSION));
    }

    #[test]
    fn a_command_that_another_home_ended_holds_no_lane() {
        let mut seats = busy(0);
        seats.keep_open(&BTreeSet::from([command(1)]));
        assert_eq!(seats.take(&offer(2)), None);
        seats.keep_open(&BTreeSet::new());
        assert_eq!(seats.take(&offer(2)), Some(SESSION));
        seats.keep_open(&BTreeSet::new());
        assert_eq!(seats.take(&offer(3)), None, "a draft that waits for its entry keeps its lane");
    }
}
