//! What has to be read or written before a draft or an answer can be decided.

use std::sync::Arc;
use std::time::Duration;

use cql::ledger::{commands, projection};
use cql::{Store, StoreError};
use domain::command::chunk::{self, Chunk};
use domain::command::wire::Form;
use domain::command::{Claim, Command, Draft, Request, Support, capability, secrets};
use domain::id::{AgentId, ProjectId};
use domain::ledger::entry::Frozen;
use domain::ledger::{KeyHolder, Prepared};
use futures_util::FutureExt;
use ractor::{ActorRef, RpcReplyPort};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::handle::IssueError;
use super::state::{Input, Issuing, State};
use super::{ProjectActor, ProjectMessage};

/// Between tries to read what an answer needs; about half a minute in all.
const READ_PAUSE_FIRST: Duration = Duration::from_millis(100);
const READ_PAUSE_MAX: Duration = Duration::from_secs(15);

/// A draft whose reads and writes are done.
pub struct Ready {
    issuing: Issuing,
    failed: Option<StoreError>,
}

impl Ready {
    fn with(mut issuing: Issuing, holder: Result<Option<KeyHolder>, StoreError>) -> Self {
        let failed = match holder {
            Ok(holder) => {
                issuing.prepared.holder = holder;
                None
            }
            Err(error) => Some(error),
        };
        Self { issuing, failed }
    }
}

impl ProjectActor {
    /// Makes a draft ready: at once without an idempotency key, or if the store answers at once whose it is.
    pub(super) async fn prepare(
        &self,
        myself: &ActorRef<ProjectMessage>,
        state: &mut State,
        draft: Draft,
        permit: OwnedSemaphorePermit,
        reply: RpcReplyPort<Result<Command, IssueError>>,
    ) {
        let command = state.mint(self.clock.now(), self.clock.random());
        let form = Form::of(&draft, command.issued_at());
        let sealed = form.secrets.as_ref().map(|members| secrets::seal(&self.keys.data, command, members));
        let prepared = Prepared { command, form, sealed, frozen: None, holder: None };
        let issuing = Issuing { draft, prepared, lane: None, told: false, reloads: state.reloads, permit, reply };
        let Some(key) = issuing.draft.idempotency_key.clone() else {
            return self.on_ready(myself, state, Ready { issuing, failed: None }).await;
        };
        let (store, project) = (Arc::clone(&self.store), self.project);
        let mut look_up = Box::pin(async move { projection::key_holder(&*store, project, &key).await });
        if let Some(holder) = (&mut look_up).now_or_never() {
            return self.on_ready(myself, state, Ready::with(issuing, holder)).await;
        }
        let myself = myself.clone();
        tokio::spawn(async move {
            let ready = Ready::with(issuing, look_up.await);
            // A project that is gone drops the reply, and its caller hears that it is unavailable.
            let _ = myself.cast(ProjectMessage::Ready(Box::new(ready)));
        });
    }

    /// Makes the ids of a bulk command durable, now that nothing refuses it.
    pub(super) fn freeze(&self, myself: &ActorRef<ProjectMessage>, mut issuing: Issuing) {
        let (store, project, myself) = (Arc::clone(&self.store), self.project, myself.clone());
        tokio::spawn(async move {
            let chunks = chunk::split(&issuing.draft.resolved.tasks);
            let failed = commands::freeze(&*store, project, issuing.prepared.command, &chunks).await.err();
            issuing.prepared.frozen = Some(frozen(&chunks));
            let _ = myself.cast(ProjectMessage::Ready(Box::new(Ready { issuing, failed })));
        });
    }

    pub(super) async fn on_ready(&self, myself: &ActorRef<ProjectMessage>, state: &mut State, ready: Ready) {
        let Ready { mut issuing, mut failed } = ready;
        if failed.is_none() && issuing.reloads != state.reloads {
            failed = self.look_up_key(&mut issuing).await.err();
        }
        if let Some(error) = failed {
            // Nothing was appended, so a refusal is the truth.
            answer(issuing.reply, Err(IssueError::Store(error)));
            return;
        }
        let form = &issuing.prepared.form;
        let support = capability::support(form.engine, form.action, &issuing.draft.resolved.advertised);
        let needs_no_lane =
            support == Support::Unsupported || issuing.prepared.holder.is_some() || is_unfrozen(&issuing);
        if needs_no_lane || !self.offer_new(myself, state, &issuing).await {
            state.queue.push_back(Input::Issue(Box::new(issuing)));
        } else {
            issuing.told = true;
            state.offered.insert(issuing.prepared.command, Box::new(issuing));
        }
    }

    /// Asks the store whose the draft's key is.
    pub(super) async fn look_up_key(&self, issuing: &mut Issuing) -> Result<(), StoreError> {
        if let (Some(key), None) = (&issuing.draft.idempotency_key, issuing.prepared.holder) {
            issuing.prepared.holder = projection::key_holder(&*self.store, self.project, key).await?;
        }
        Ok(())
    }
}

/// A bulk command whose ids are not durable yet: it is decided once before they are and once after, so that what
/// is refused leaves nothing.
pub(super) fn is_unfrozen(issuing: &Issuing) -> bool {
    matches!(issuing.draft.request, Request::BulkRetry { .. }) && issuing.prepared.frozen.is_none()
}

fn frozen(chunks: &[Chunk]) -> Frozen {
    let mut digest = Sha256::new();
    let mut total = 0;
    for task in chunks.iter().flat_map(|chunk| &chunk.tasks) {
        digest.update(task.task_id.as_bytes());
        digest.update([0]);
        total += 1;
    }
    let chunks = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    Frozen { chunks, total, digest: hex::encode(digest.finalize()) }
}

/// What an answer needs: the frozen ids of its chunk, or the certainty that its command has ended without a late
/// result so far. `None`: the answer is to no command of this agent's. An agent does not repeat its answer, so a
/// read that fails is tried again.
pub(super) async fn find_answered(
    store: &dyn Store,
    project: ProjectId,
    agent: AgentId,
    claim: Claim,
    is_bulk: bool,
) -> Option<(Option<Chunk>, bool)> {
    let mut pause = READ_PAUSE_FIRST;
    loop {
        match read_answered(store, project, agent, claim, is_bulk).await {
            Ok(found) => return found,
            Err(error) if pause > READ_PAUSE_MAX => {
                tracing::warn!(command.id = %claim.command, error = %error, "result dropped: its command cannot be read");
                return None;
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
}

async fn read_answered(
    store: &dyn Store,
    project: ProjectId,
    agent: AgentId,
    claim: Claim,
    is_bulk: bool,
) -> Result<Option<(Option<Chunk>, bool)>, StoreError> {
    if is_bulk {
        let chunk = commands::frozen(store, project, claim.command, claim.chunk).await?;
        return Ok(chunk.map(|chunk| (Some(chunk), false)));
    }
    let row = commands::get(store, project, claim.command).await?;
    let ended = row.is_some_and(|row| row.agent == agent && row.late_status.is_none());
    Ok(ended.then_some((None, true)))
}

/// A caller that went away needs no answer.
pub(super) fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
