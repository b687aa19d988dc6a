//! Marks: what a task can be found by without looking at all tasks.
//!
//! A mark says that a task's row had a value once. It is a hint to look at the row: a row that has the value must be
//! marked with it, a mark whose row has it no more means nothing.

use super::header::Header;
use super::state::State;

/// One thing to be found by. Its nine bytes are stored and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// Several writers wrote of the task, so none of them knows what it is marked with: it may have any value.
    Shared,
    /// By the hash of the queue's name, see [`Header::queue_hash`].
    Queue(u64),
    /// A state in which tasks stay and most are not: failed, cancelled, lost. Or an open one, of tasks that have been in it
    /// for long.
    State(State),
}

impl Mark {
    /// The mark of a state, if all tasks that get into it are marked.
    pub const fn of_state(state: State) -> Option<Self> {
        match state {
            State::Failed | State::Cancelled | State::Lost => Some(Self::State(state)),
            State::Received | State::Started | State::Retried | State::Succeeded => None,
        }
    }

    /// What a row has to be marked with when it was `before` and is `after`. Hidden rows are marked too: they may
    /// come back.
    pub fn gained(before: Option<&Header>, after: &Header) -> impl Iterator<Item = Self> {
        let is_new = |was: fn(&Header) -> u64| before.is_none_or(|before| was(before) != was(after));
        let queue = (after.queue_hash() != 0 && is_new(Header::queue_hash)).then(|| Self::Queue(after.queue_hash()));
        let state = Self::of_state(after.state).filter(|_| is_new(|header| header.state.tag().into()));
        [queue, state].into_iter().flatten()
    }

    /// Dimension, and the value within it, big-endian.
    pub fn bytes(self) -> [u8; 9] {
        let (dimension, value) = match self {
            Self::Shared => (0, 0),
            Self::Queue(hash) => (1, hash),
            Self::State(state) => (2, state.tag().into()),
        };
        let mut bytes = [dimension; 9];
        bytes[1..].copy_from_slice(&u64::to_be_bytes(value));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::task::priority::Priority;
    use crate::time::Timestamp;

    fn header(state: State, queue: u64) -> Header {
        Header {
            state,
            priority: Priority::Normal,
            engine: Engine::Rq,
            hidden: false,
            history_truncated: false,
            retry_count: 0,
            finished_at: None,
            runtime_ms: None,
            name: 0,
            queue,
            worker: 0,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    fn gained(before: Option<Header>, after: Header) -> Vec<Mark> {
        Mark::gained(before.as_ref(), &after).collect()
    }

    #[test]
    fn the_bytes_are_for_ever() {
        let hexed = |mark: Mark| hex::encode(mark.bytes());
        assert_eq!(hexed(Mark::Shared), "000000000000000000");
        assert_eq!(hexed(Mark::Queue(0x0102)), "010000000000000102");
        let states = [State::Failed, State::Cancelled, State::Lost].map(|state| hexed(Mark::State(state)));
        assert_eq!(states, ["020000000000000003", "020000000000000004", "020000000000000006"]);
    }

    #[test]
    fn a_row_is_marked_when_it_gets_a_value_and_not_again() {
        assert_eq!(gained(None, header(State::Started, 0)), []);
        assert_eq!(gained(None, header(State::Failed, 7)), [Mark::Queue(7), Mark::State(State::Failed)]);
        assert_eq!(gained(Some(header(State::Started, 0)), header(State::Succeeded, 7)), [Mark::Queue(7)]);
        assert_eq!(gained(Some(header(State::Started, 7)), header(State::Lost, 7)), [Mark::State(State::Lost)]);
        assert_eq!(gained(Some(header(State::Failed, 7)), header(State::Failed, 7)), []);
        assert_eq!(gained(Some(header(State::Failed, 7)), header(State::Failed, 8)), [Mark::Queue(8)]);
        let hidden = Header { hidden: true, ..header(State::Failed, 7) };
        assert_eq!(gained(Some(hidden), header(State::Failed, 7)), [], "it was marked before it was hidden");
    }

    #[test]
    fn every_state_is_marked_open_or_the_ordinary_end() {
        for state in State::ALL {
            let ways = [Mark::of_state(state).is_some(), state.is_open(), state == State::Succeeded];
            assert_eq!(ways.into_iter().filter(|way| *way).count(), 1, "{state}");
        }
    }
}
