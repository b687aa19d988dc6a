//! The way into the recorders: bounded channels, one per recorder, batches from one session or deletion each.

use std::sync::Arc;

use domain::id::ProjectId;
use domain::id::address::{Shard, TaskKey};
use domain::task::Sighting;
use domain::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ack::{AckSink, Ticket};

/// Batches that may wait in front of one recorder. A session waits when it is full.
const INBOX_BATCHES: usize = 1024;

/// What one recorder is to record in one go, for one project.
#[derive(Debug)]
pub(crate) struct Batch {
    pub project: ProjectId,
    pub work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// What one session heard.
    Events {
        sink: Arc<AckSink>,
        /// When the first of them was taken from the wire.
        since: Instant,
        items: Vec<Item>,
    },
    /// An operator deletes tasks.
    Deletions { keys: Vec<TaskKey>, reply: oneshot::Sender<Deletions> },
    /// Started tasks whose worker is gone, if nothing was heard of them since they were looked at.
    Lost { tasks: Vec<(TaskKey, Timestamp)> },
    /// A command of ours put a task on a queue for later.
    Scheduled(Box<Sighting>),
}

/// What became of deletions, once it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deletions {
    /// Tasks that were visible and are hidden now.
    pub hidden: u64,
    /// Tasks of which nobody can say.
    pub failed: u64,
}

/// One event and what its fate is counted for.
#[derive(Debug)]
pub(crate) struct Item {
    pub ticket: Ticket,
    pub seen: Seen,
}

#[derive(Debug)]
pub(crate) enum Seen {
    Report(Box<Sighting>),
    /// Well signed, but it can never be a task's report: kept aside with the reason, and acked.
    Unstorable {
        event: Box<str>,
        reason: Box<str>,
    },
}

/// Senders to every recorder of this node; cheap to clone. The recorders end when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Recorders(Arc<[mpsc::Sender<Batch>]>);

impl Recorders {
    /// Channels for `count` recorders, and their receiving ends.
    pub(crate) fn channels(count: usize) -> (Self, Vec<mpsc::Receiver<Batch>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(INBOX_BATCHES)).unzip();
        (Self(senders.into()), receivers)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Which recorder records a shard.
    pub(crate) fn of(&self, shard: Shard) -> usize {
        usize::from(shard.index()) % self.0.len()
    }

    /// Hands a batch over, waiting while the recorder is behind. False: the node is going down, nothing is lost
    /// because nothing is acked.
    pub(crate) async fn send(&self, recorder: usize, batch: Batch) -> bool {
        self.0[recorder].send(batch).await.is_ok()
    }

    /// Hands over what a command of ours says of a task.
    pub(crate) async fn schedule(&self, project: ProjectId, sighting: Sighting) -> bool {
        let recorder = self.of(Shard::of_key(project, sighting.key));
        self.send(recorder, Batch { project, work: Work::Scheduled(Box::new(sighting)) }).await
    }
}
