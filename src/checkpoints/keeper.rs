//! Signs how far each ledger has come: at intervals while it grows, and when the server ends.
//!
//! What is signed is what stands in the store and follows from what was signed before; a chain that contradicts its
//! last checkpoint is never signed again by this process. After a crash the first round finds what the last life had
//! appended and not signed.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::Clock;
use actors::changes::Changes;
use cql::accounts::project;
use cql::ledger::entries;
use cql::{Store, StoreError};
use domain::id::ProjectId;
use domain::ledger::{Checkpoint, CheckpointKey, Inspected, Inspection, LedgerKey, Point, Witness};
use domain::secret::{KeyUse, MasterSecret};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::file::Book;
use crate::config::CheckpointConfig;

/// Entries read at a time.
const PAGE: usize = 500;
/// Every so many entries one is signed, so that a fork is narrowed down to as many.
const POINT_EVERY: u64 = 1000;
/// How long the end of the server waits for the last round.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a keeper needs.
pub struct Wiring {
    pub store: Arc<dyn Store>,
    pub changes: Changes,
    pub clock: Clock,
    pub master: MasterSecret,
    pub key: Arc<CheckpointKey>,
    pub config: CheckpointConfig,
}

/// The task that signs.
pub struct Keeper {
    ending: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    pub fn start(wiring: Wiring) -> Self {
        let ending = CancellationToken::new();
        let task = tokio::spawn(Rounds::new(wiring).run(ending.clone()));
        Self { ending, task }
    }

    /// Signs what has grown since the last round, and ends. The store must still be open, and nothing append any more.
    pub async fn finish(mut self) {
        self.ending.cancel();
        if tokio::time::timeout(PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last checkpoints were not written in time; the next start writes them");
        }
    }
}

struct Rounds {
    store: Arc<dyn Store>,
    changes: Changes,
    clock: Clock,
    master: MasterSecret,
    file: PathBuf,
    every: Duration,
    book: Arc<Mutex<Book>>,
    /// Whether every project was looked at once.
    surveyed: bool,
    pending: BTreeSet<ProjectId>,
    /// Chains that contradict what was signed.
    refused: BTreeSet<ProjectId>,
}

/// What a look at a chain came to.
enum Look {
    Points(Vec<Point>),
    Contradicted(Inspected),
}

impl Rounds {
    fn new(wiring: Wiring) -> Self {
        let Wiring { store, changes, clock, master, key, config } = wiring;
        Self {
            store,
            changes,
            clock,
            master,
            file: config.file.clone(),
            every: config.every,
            book: Arc::new(Mutex::new(Book::new(config.file, key))),
            surveyed: false,
            pending: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    async fn run(mut self, ending: CancellationToken) {
        let mut ticks = tokio::time::interval_at(Instant::now(), self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                () = ending.cancelled() => true,
                _ = ticks.tick() => false,
            };
            self.round().await;
            if is_last {
                return;
            }
        }
    }

    /// Signs what has grown. What fails waits for the next round.
    async fn round(&mut self) {
        if !self.surveyed {
            match project::list(&*self.store).await {
                Ok(projects) => {
                    self.surveyed = true;
                    self.pending.insert(ProjectId::NIL);
                    self.pending.extend(projects.iter().map(|project| project.id));
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot list projects to sign"),
            }
        }
        self.pending.extend(self.changes.take_grown());
        self.pending.retain(|project| !self.refused.contains(project));
        if self.pending.is_empty() {
            return;
        }
        let newest = match self.with_book(|book| book.newest().cloned()).await {
            Ok(newest) => newest,
            Err(error) => return self.complain(&error),
        };
        let points = self.look(&newest).await;
        if points.is_empty() {
            return;
        }
        let projects: Vec<ProjectId> = points.iter().map(|point| point.project).collect();
        match self.with_book(move |book| book.append(&points)).await {
            Ok(()) => tracing::debug!(count = projects.len(), "signed checkpoints"),
            Err(error) => {
                self.pending.extend(projects);
                self.complain(&error);
            }
        }
    }

    /// Looks at every chain that waits.
    async fn look(&mut self, newest: &HashMap<ProjectId, Checkpoint>) -> Vec<Point> {
        let mut points = Vec::new();
        for project in std::mem::take(&mut self.pending) {
            let key = LedgerKey::new(self.master.site_key(KeyUse::Ledger, project).as_bytes());
            match look(&*self.store, project, &key, newest.get(&project), &self.clock).await {
                Ok(Look::Points(found)) => points.extend(found),
                Ok(Look::Contradicted(found)) => {
                    self.refused.insert(project);
                    let what = found.sentence().unwrap_or_default();
                    tracing::error!(
                        project.id = %project, what,
                        "a ledger contradicts its checkpoints: somebody changed the store, or put an old one back; nothing more of it is signed",
                    );
                }
                Err(error) => {
                    self.pending.insert(project);
                    tracing::warn!(project.id = %project, error = &error as &dyn std::error::Error, "ledger not readable to sign");
                }
            }
        }
        points
    }

    fn complain(&self, error: &std::io::Error) {
        tracing::error!(
            file = %self.file.display(), error = error as &dyn std::error::Error,
            "checkpoints cannot be written: what happens now is not provable until they can; see the setting `checkpoint-file`",
        );
    }

    async fn with_book<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Book) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let book = Arc::clone(&self.book);
        let done = tokio::task::spawn_blocking(move || work(&mut book.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.map_err(std::io::Error::other)?
    }
}

/// Walks a chain from its newest checkpoint on: what follows from it is to be signed.
async fn look(
    store: &dyn Store,
    project: ProjectId,
    key: &LedgerKey,
    newest: Option<&Checkpoint>,
    clock: &Clock,
) -> Result<Look, StoreError> {
    let witness = newest.map(|it| [Witness { seq: it.point.seq, hash: it.point.hash, at: it.point.at }]);
    let witness = witness.as_ref().map_or(&[][..], |one| &one[..]);
    let from = newest.map_or(1, |newest| newest.point.seq);
    let mut walk = Inspection::from(from, project, Some(key), witness);
    let mut points = Vec::new();
    loop {
        let page = entries::tail(store, project, walk.found().head_seq + 1, PAGE).await?;
        for sealed in &page {
            if walk.pass(sealed, key).is_err() {
                return Ok(Look::Contradicted(walk.end(0)));
            }
            if sealed.seq.is_multiple_of(POINT_EVERY) {
                points.push(Point { project, seq: sealed.seq, hash: sealed.hash, at: clock.now() });
            }
        }
        if page.len() < PAGE {
            break;
        }
    }
    let found = walk.end(0);
    if found.first_bad.is_some() {
        return Ok(Look::Contradicted(found));
    }
    let (seq, hash) = (found.head_seq, found.head_hash);
    points.push(Point { project, seq, hash, at: clock.now() });
    points.dedup_by_key(|point| point.seq);
    points.retain(|point| point.seq > found.proven);
    Ok(Look::Points(points))
}

#[cfg(test)]
mod tests;
