//! The only table of status changes.
//!
//! Every (state, event) pair is decided here, for the home that decides and for the fold that reads the
//! decisions back. What a finished command hears later is kept and changes nothing (contract D3).

use super::action::Redelivery;
use super::claim::Attempt;
use super::status::Status;

/// A delivery that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// Which chunk of a bulk command; zero otherwise.
    pub chunk: u32,
    pub attempt: Attempt,
    /// The chunk has its result, and another one is to come.
    pub answered: bool,
    pub redeliverable: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Succeeded,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CommandState {
    Issued,
    Dispatched(Held),
    /// Ended by us without asking the agent.
    Unsupported {
        late: Option<Ending>,
    },
    Finished {
        ending: Ending,
        late: Option<Ending>,
    },
    TimedOut {
        late: Option<Ending>,
    },
}

/// What can happen to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEvent {
    Dispatched(Held),
    /// We know without asking that the agent cannot do it (contract D16).
    Unsupported,
    /// A result that ends the command; any attempt's counts, once.
    Resulted(Ending),
    /// The result of a chunk that is not the last.
    ChunkResulted(u32),
    /// Not a byte of this delivery left.
    NotSent {
        chunk: u32,
        attempt: Attempt,
    },
    /// The session ended, and bytes of this delivery may have left.
    Gone {
        chunk: u32,
        attempt: Attempt,
    },
    DeadlinePassed,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("another attempt is under way")]
    StaleAttempt,
    #[error("the command was never sent")]
    NeverSent,
    #[error("the command has ended")]
    Finished,
}

impl Held {
    pub const fn new(chunk: u32, attempt: Attempt, redelivery: Redelivery) -> Self {
        Self { chunk, attempt, answered: false, redeliverable: matches!(redelivery, Redelivery::Idempotent) }
    }

    /// Whether this delivery comes right after `earlier`: its next attempt, or the next chunk's first.
    pub const fn follows(self, earlier: Self) -> bool {
        let same_chunk = self.chunk == earlier.chunk && !earlier.answered;
        let next_chunk = self.chunk == earlier.chunk + 1 && earlier.answered;
        (same_chunk && self.attempt.0 == earlier.attempt.0 + 1) || (next_chunk && self.attempt.0 == 1)
    }

    const fn is(self, chunk: u32, attempt: Attempt) -> bool {
        self.chunk == chunk && self.attempt.0 == attempt.0 && !self.answered
    }
}

impl CommandState {
    pub const fn status(self) -> Status {
        match self {
            Self::Issued => Status::Issued,
            Self::Dispatched(_) => Status::Dispatched,
            Self::Finished { ending: Ending::Succeeded, .. } => Status::Succeeded,
            Self::Unsupported { .. } | Self::Finished { ending: Ending::Failed, .. } => Status::Failed,
            Self::TimedOut { .. } => Status::TimedOut,
        }
    }

    pub const fn is_finished(self) -> bool {
        self.status().is_terminal()
    }

    /// What the command becomes.
    pub fn on(self, event: CommandEvent) -> Result<Self, Refused> {
        use CommandEvent as E;
        use CommandState as S;
        match (self, event) {
            (S::Issued, E::Dispatched(first)) => Ok(S::Dispatched(first)),
            (S::Dispatched(held), E::Dispatched(next)) if next.follows(held) => Ok(S::Dispatched(next)),
            (S::Issued, E::Unsupported) => Ok(S::Unsupported { late: None }),
            (S::Issued | S::Dispatched(_), E::DeadlinePassed) => Ok(S::TimedOut { late: None }),
            (S::Dispatched(held), E::ChunkResulted(chunk)) if chunk == held.chunk && !held.answered => {
                Ok(S::Dispatched(Held { answered: true, ..held }))
            }
            (S::Dispatched(_), E::Resulted(ending)) => Ok(S::Finished { ending, late: None }),
            (S::Dispatched(held), E::NotSent { chunk, attempt }) if held.is(chunk, attempt) => Ok(S::Issued),
            (S::Dispatched(held), E::Gone { chunk, attempt }) if held.is(chunk, attempt) && held.redeliverable => {
                Ok(S::Issued)
            }
            (
                S::Dispatched(_),
                E::Dispatched(_) | E::ChunkResulted(_) | E::NotSent { .. } | E::Gone { .. } | E::Unsupported,
            ) => Err(Refused::StaleAttempt),
            (S::Issued, E::Resulted(_) | E::ChunkResulted(_) | E::NotSent { .. } | E::Gone { .. }) => {
                Err(Refused::NeverSent)
            }
            (S::Unsupported { late }, E::Resulted(ending)) => Ok(S::Unsupported { late: late.or(Some(ending)) }),
            (S::Finished { ending: first, late }, E::Resulted(ending)) => {
                Ok(S::Finished { ending: first, late: late.or(Some(ending)) })
            }
            (S::TimedOut { late }, E::Resulted(ending)) => Ok(S::TimedOut { late: late.or(Some(ending)) }),
            (
                S::Unsupported { .. } | S::Finished { .. } | S::TimedOut { .. },
                E::Dispatched(_)
                | E::Unsupported
                | E::ChunkResulted(_)
                | E::NotSent { .. }
                | E::Gone { .. }
                | E::DeadlinePassed,
            ) => Err(Refused::Finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_ending() -> impl Strategy<Value = Ending> {
        prop_oneof![Just(Ending::Succeeded), Just(Ending::Failed)]
    }

    fn any_event() -> impl Strategy<Value = CommandEvent> {
        let held = || (0..3_u32, 1..4_u32, any::<bool>());
        prop_oneof![
            held().prop_map(|(chunk, attempt, redeliverable)| CommandEvent::Dispatched(Held {
                chunk,
                attempt: Attempt(attempt),
                answered: false,
                redeliverable
            })),
            Just(CommandEvent::Unsupported),
            any_ending().prop_map(CommandEvent::Resulted),
            (0..3_u32).prop_map(CommandEvent::ChunkResulted),
            held().prop_map(|(chunk, attempt, _)| CommandEvent::NotSent { chunk, attempt: Attempt(attempt) }),
            held().prop_map(|(chunk, attempt, _)| CommandEvent::Gone { chunk, attempt: Attempt(attempt) }),
            Just(CommandEvent::DeadlinePassed),
        ]
    }

    proptest! {
        #[test]
        fn a_finished_command_never_moves(events in vec(any_event(), 0..64)) {
            let mut state = CommandState::Issued;
            for event in events {
                let finished = state.is_finished();
                match state.on(event) {
                    Ok(next) => {
                        prop_assert!(!finished || next.status() == state.status());
                        state = next;
                    }
                    Err(refused) => prop_assert_eq!(refused == Refused::Finished, finished),
                }
            }
        }

        #[test]
        fn deliveries_only_go_forward(events in vec(any_event(), 0..64)) {
            let mut state = CommandState::Issued;
            let mut last: Option<(u32, Attempt)> = None;
            for event in events {
                // Returns to Issued are memory only; entries alone decide what is next.
                if matches!(event, CommandEvent::NotSent { .. } | CommandEvent::Gone { .. }) { continue }
                let Ok(next) = state.on(event) else { continue };
                if let (CommandEvent::Dispatched(held), Some(before)) = (event, last) {
                    prop_assert!((held.chunk, held.attempt) > before);
                }
                if let CommandEvent::Dispatched(held) = event { last = Some((held.chunk, held.attempt)); }
                state = next;
            }
        }
    }

    fn held(attempt: u32, redelivery: Redelivery) -> Held {
        Held::new(0, Attempt(attempt), redelivery)
    }

    #[test]
    fn a_dropped_session_returns_only_what_may_be_done_twice() {
        let gone = CommandEvent::Gone { chunk: 0, attempt: Attempt(1) };
        let once = CommandState::Dispatched(held(1, Redelivery::AtMostOnce));
        assert_eq!(once.on(gone), Err(Refused::StaleAttempt));
        let twice = CommandState::Dispatched(held(1, Redelivery::Idempotent));
        assert_eq!(twice.on(gone), Ok(CommandState::Issued));
        let stale = CommandEvent::NotSent { chunk: 0, attempt: Attempt(2) };
        assert_eq!(once.on(stale), Err(Refused::StaleAttempt));
        assert_eq!(once.on(CommandEvent::NotSent { chunk: 0, attempt: Attempt(1) }), Ok(CommandState::Issued));
    }

    #[test]
    fn a_result_after_the_end_is_kept_once() {
        let ended = CommandState::TimedOut { late: None };
        let late = ended.on(CommandEvent::Resulted(Ending::Succeeded)).unwrap();
        assert_eq!(late, CommandState::TimedOut { late: Some(Ending::Succeeded) });
        assert_eq!(late.on(CommandEvent::Resulted(Ending::Failed)), Ok(late));
    }

    #[test]
    fn a_chunk_is_answered_once() {
        let first = CommandState::Dispatched(held(1, Redelivery::AtMostOnce));
        let answered = first.on(CommandEvent::ChunkResulted(0)).unwrap();
        assert_eq!(answered.status(), Status::Dispatched);
        assert_eq!(answered.on(CommandEvent::ChunkResulted(0)), Err(Refused::StaleAttempt));
        let next = CommandEvent::Dispatched(Held::new(1, Attempt(1), Redelivery::AtMostOnce));
        assert!(answered.on(next).is_ok());
        assert_eq!(first.on(next), Err(Refused::StaleAttempt));
    }
}
