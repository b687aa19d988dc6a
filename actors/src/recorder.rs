//! Records what sessions heard: union of reports, one commit for all that waits, then the acks.
//!
//! **Owns** the tasks of its share of the shards while they are busy; eviction loses nothing.
//! **Invariants** I-1: an event is acked after its commit is durable, never before. I-2: a task has one id;
//! a lost claim moves to the winner's id before anything is written under it.
//! **Talks to** the store, the ack sinks of sessions, and whoever deletes tasks.
//! **On restart** starts with an empty memory: the next sight reads the store. What was not acked is sent again.

pub(crate) mod ack;
mod counters;
mod inbox;
mod marks;
mod memory;
mod queue;
mod round;

use std::sync::Arc;

use cql::Store;
use cql::stats::Counter;
use cql::tasks::Tasks;
use domain::id::address::Layout;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Mutex;

pub(crate) use ack::{Ack, AckSink, Acks, Tally, Ticket};
use counters::Counters;
pub use inbox::Deletions;
pub(crate) use inbox::{Batch, Inbox, Item, Recorders, Seen, Work};
use marks::Marks;
use memory::Memory;
use round::Round;

use crate::changes::Changes;
use crate::clock::Clock;
use crate::complaint::Complaint;
use crate::meters::RecorderMeters;

/// Events taken in one round: what waits longer rides in the next commit. Enough to make little of a synced write,
/// few enough that a round is over soon.
const EVENTS_PER_ROUND: usize = 512;
/// On a cluster every row of marks, lists and counters that a round writes is a statement of its own.
const EVENTS_PER_ROUND_OF_A_CLUSTER: usize = 2048;

/// What a recorder is built with, and keeps through restarts.
#[derive(Clone)]
pub(crate) struct Wiring {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub tasks: Tasks,
    /// Whose cells of the counters these are.
    pub counter: Counter,
    pub layout: Layout,
    pub changes: Changes,
    /// Outlives the recorder: what waits in it is not lost when one fails.
    pub inbox: Arc<Mutex<Inbox>>,
    /// That events wait for the store.
    pub complaint: Arc<Complaint>,
}

/// One recorder: supervision around a loop that takes, commits, acks.
pub(crate) struct Recorder;

/// Does the next round. Only the recorder sends it.
pub(crate) struct Next(());

/// A recorder's memory between rounds.
pub(crate) struct State {
    wiring: Wiring,
    memory: Memory,
    counters: Counters,
    marks: Marks,
    meters: RecorderMeters,
}

impl Actor for Recorder {
    type Msg = Next;
    type State = State;
    type Arguments = Wiring;

    async fn pre_start(&self, myself: ActorRef<Next>, wiring: Wiring) -> Result<State, ActorProcessingErr> {
        myself.cast(Next(()))?;
        Ok(State {
            wiring,
            memory: Memory::default(),
            counters: Counters::default(),
            marks: Marks::default(),
            meters: RecorderMeters::default(),
        })
    }

    async fn handle(&self, myself: ActorRef<Next>, _: Next, state: &mut State) -> Result<(), ActorProcessingErr> {
        // The lock is held by one recorder at a time: its predecessor is gone before it starts.
        let is_alone = state.wiring.tasks.is_alone();
        let events = if is_alone { EVENTS_PER_ROUND } else { EVENTS_PER_ROUND_OF_A_CLUSTER };
        let batches = state.wiring.inbox.lock().await.next_round(events).await;
        if batches.is_empty() {
            myself.stop(Some("every sender is gone".to_owned()));
            return Ok(());
        }
        let State { wiring, memory, counters, marks, meters } = state;
        Round::new(wiring, memory, counters, marks, meters).run(batches).await;
        state.memory.evict(state.wiring.clock.now());
        myself.cast(Next(()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
