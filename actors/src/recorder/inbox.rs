//! The way into the recorders: bounded for each project and in all, and fair between projects.
//!
//! A session waits while its project has as much before a recorder as it may have, or while all of them together
//! have; a project that sends more than a recorder can take waits for itself. What is taken in one round is shared
//! out in turns ([`Queue`]).

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use domain::id::address::{Shard, TaskKey};
use domain::id::{EventId, ProjectId};
use domain::task::Sighting;
use domain::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::ack::{AckSink, Ticket};
use super::queue::Queue;

/// Batches of one project that may wait for one recorder.
const PROJECT_BATCHES: usize = 32;

/// A round that would be a small one begins so long after the one before. A round costs much whatever it holds (marks,
/// counters, the list of open tasks, a synced write), and whoever sends one event now and then never waits for this.
const ROUND_EVERY: Duration = Duration::from_millis(8);

/// Batches of all projects that may wait for one recorder.
const INBOX_BATCHES: usize = 4096;

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
    /// An operator deletes tasks. One deletion has one id, however often it is tried.
    Deletions { keys: Vec<TaskKey>, deletion: EventId, reply: oneshot::Sender<Deletions> },
    /// Started tasks whose worker is gone, if nothing was heard of them since they were looked at.
    Lost { tasks: Vec<(TaskKey, Timestamp)> },
    /// A command of ours put a task on a queue for later.
    Scheduled(Box<Sighting>),
}

/// What became of deletions, once it is durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deletions {
    /// Tasks that were visible and that this deletion has hidden.
    pub hidden: u64,
    /// Tasks of which nobody can say. Tried again under the same id, each is still counted once.
    pub failed: Vec<TaskKey>,
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

/// A batch that waits, and its place among those of its project and of all.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    #[expect(dead_code, reason = "held until the batch is taken")]
    places: [OwnedSemaphorePermit; 2],
}

/// Senders to every recorder of this node; cheap to clone. The recorders end when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Recorders(Arc<[Entrance]>);

#[derive(Debug)]
struct Entrance {
    sender: mpsc::Sender<Waiting>,
    places: Arc<Semaphore>,
    /// Of each project that was heard of since the start.
    of_projects: DashMap<ProjectId, Arc<Semaphore>>,
}

/// The receiving end of one recorder.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Waiting>,
    queue: Queue<Waiting>,
    /// When the next round may begin, however small it is.
    not_before: Option<Instant>,
}

impl Entrance {
    /// Waits for a place.
    async fn enter(&self, batch: Batch) -> Option<Waiting> {
        let of_project = {
            let entry = self.of_projects.entry(batch.project);
            entry.or_insert_with(|| Arc::new(Semaphore::new(PROJECT_BATCHES))).clone()
        };
        let first = of_project.acquire_owned().await.ok()?;
        let second = self.places.clone().acquire_owned().await.ok()?;
        Some(Waiting { batch, places: [first, second] })
    }
}

impl Inbox {
    /// What is done in the next round, of up to `events` events and a batch more; waits until there is something.
    /// Empty once every sender is gone.
    pub(crate) async fn next_round(&mut self, events: usize) -> Vec<Batch> {
        if self.queue.is_empty() {
            let Some(first) = self.receiver.recv().await else { return Vec::new() };
            self.put(first);
        }
        while let Ok(waiting) = self.receiver.try_recv() {
            self.put(waiting);
        }
        if let Some(at) = self.not_before {
            self.gather(events, at).await;
        }
        self.not_before = Some(Instant::now() + ROUND_EVERY);
        self.queue.take(events).into_iter().map(|waiting| waiting.batch).collect()
    }

    /// Waits until it is time, or as much waits as a round takes or a project may have.
    async fn gather(&mut self, events: usize, until: Instant) {
        let mut longest = self.queue.longest();
        while self.queue.weight() < events && longest < PROJECT_BATCHES {
            match timeout_at(until, self.receiver.recv()).await {
                Ok(Some(waiting)) => longest = longest.max(self.put(waiting)),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Returns how many batches of its project wait now.
    fn put(&mut self, waiting: Waiting) -> usize {
        let weight = match &waiting.batch.work {
            Work::Events { items, .. } => items.len(),
            Work::Deletions { keys, .. } => keys.len(),
            Work::Lost { tasks } => tasks.len(),
            Work::Scheduled(_) => 1,
        };
        self.queue.put(waiting.batch.project, waiting, weight)
    }
}

impl Recorders {
    /// Ways to `count` recorders, and their receiving ends.
    pub(crate) fn channels(count: usize) -> (Self, Vec<Inbox>) {
        let channel = |_| {
            // Never full: each batch in it has a place.
            let (sender, receiver) = mpsc::channel(INBOX_BATCHES);
            let places = Arc::new(Semaphore::new(INBOX_BATCHES));
            (
                Entrance { sender, places, of_projects: DashMap::new() },
                Inbox { receiver, queue: Queue::default(), not_before: None },
            )
        };
        let (entrances, inboxes): (Vec<_>, Vec<_>) = (0..count).map(channel).unzip();
        (Self(entrances.into()), inboxes)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Which recorder records a shard.
    pub(crate) fn of(&self, shard: Shard) -> usize {
        usize::from(shard.index()) % self.0.len()
    }

    /// Hands a batch over, waiting while the recorder is behind with this project or with all. False: the node is going down, nothing is lost
    /// because nothing is acked.
    pub(crate) async fn send(&self, recorder: usize, batch: Batch) -> bool {
        let entrance = &self.0[recorder];
        match entrance.enter(batch).await {
            Some(waiting) => entrance.sender.send(waiting).await.is_ok(),
            None => false,
        }
    }

    /// Hands over what a command of ours says of a task.
    pub(crate) async fn schedule(&self, project: ProjectId, sighting: Sighting) -> bool {
        let recorder = self.of(Shard::of_key(project, sighting.key));
        self.send(recorder, Batch { project, work: Work::Scheduled(Box::new(sighting)) }).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn batch(project: u8) -> Batch {
        Batch { project: ProjectId::from_bytes([project; 16]), work: Work::Lost { tasks: Vec::new() } }
    }

    async fn send(recorders: &Recorders, project: u8) -> bool {
        timeout(Duration::from_secs(1), recorders.send(0, batch(project))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_project_without_a_place_waits_for_itself() {
        let (recorders, mut inboxes) = Recorders::channels(1);
        for _ in 0..PROJECT_BATCHES {
            assert!(send(&recorders, 1).await);
        }
        assert!(!send(&recorders, 1).await, "a project has as many places as it wants");
        assert!(send(&recorders, 2).await, "a project waits for another one");
        let round = inboxes[0].next_round(2).await;
        assert_eq!(round.iter().map(|batch| batch.project.bytes()[0]).collect::<Vec<_>>(), [1, 2]);
        assert!(send(&recorders, 1).await, "what was taken has left its place");
    }

    #[tokio::test(start_paused = true)]
    async fn small_rounds_keep_their_distance() {
        let (recorders, mut inboxes) = Recorders::channels(1);
        let begun = Instant::now();
        for project in 1..4 {
            assert!(send(&recorders, project).await);
            assert_eq!(inboxes[0].next_round(2).await.len(), 1);
        }
        assert_eq!(begun.elapsed(), ROUND_EVERY * 2, "the first one at once, the others in turn");
        tokio::time::advance(ROUND_EVERY).await;
        let begun = Instant::now();
        assert!(send(&recorders, 1).await);
        assert_eq!(inboxes[0].next_round(2).await.len(), 1);
        assert_eq!(begun.elapsed(), Duration::ZERO, "one event after a pause does not wait");
        for project in 1..3 {
            assert!(send(&recorders, project).await);
        }
        assert_eq!(inboxes[0].next_round(2).await.len(), 2);
        assert_eq!(begun.elapsed(), Duration::ZERO, "nor does a whole round");
        for _ in 0..PROJECT_BATCHES {
            assert!(send(&recorders, 1).await);
        }
        assert_eq!(inboxes[0].next_round(1000).await.len(), PROJECT_BATCHES);
        assert_eq!(begun.elapsed(), Duration::ZERO, "nor a project that has no place left");
    }

    #[tokio::test(start_paused = true)]
    async fn all_projects_together_have_so_many_places_and_no_more() {
        let (recorders, _inboxes) = Recorders::channels(1);
        let mut sent = 0;
        'full: for project in 0..=u8::MAX {
            for _ in 0..PROJECT_BATCHES {
                if !send(&recorders, project).await {
                    break 'full;
                }
                sent += 1;
            }
        }
        assert_eq!(sent, INBOX_BATCHES);
    }
}
