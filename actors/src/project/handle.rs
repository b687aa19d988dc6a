//! The way to a project's actor: admission in front of its unbounded mailbox.

use std::sync::Arc;
use std::time::Duration;

use domain::command::{Claim, Command, Draft};
use domain::id::{AgentId, CommandId, SessionId};
use domain::ledger::decide::Answer;
use domain::ledger::{Limited, Proposal, Refusal};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{ProjectActor, ProjectMessage};

/// Commands and notes that may wait at once; one more is refused.
pub const REQUESTS_MAX: u32 = 1024;

/// Acks and results that may wait at once; one more waits in its session.
const HEARD_MAX: usize = 256;

const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// What an agent said about a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Ack,
    /// Its texts are scrubbed by now.
    Result(Answer),
}

/// Why no command was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("too many requests wait for this project")]
    Saturated,
    /// The project is restarting or slow; whether the command was issued is not known.
    #[error("the project is not available")]
    Unavailable,
    #[error("the store did not answer")]
    Store(#[source] cql::StoreError),
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("too many requests wait for this project")]
    Saturated,
    #[error("the project is not available")]
    Unavailable,
    #[error("the store did not answer")]
    Store(#[source] cql::StoreError),
}

/// A project that runs on this node; cheap to clone.
#[derive(Clone, Debug)]
pub struct ProjectHandle {
    actor: ActorRef<ProjectMessage>,
    requests: Arc<Semaphore>,
    heard: Arc<Semaphore>,
}

impl ProjectActor {
    /// Starts the project under a supervisor; it is ready when its ledger is folded.
    pub async fn start(self, supervisor: ActorCell) -> Result<(ProjectHandle, JoinHandle<()>), SpawnErr> {
        let (actor, task) = Self::spawn_linked(None, self, (), supervisor).await?;
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX as usize));
        Ok((ProjectHandle { actor, requests, heard: Arc::new(Semaphore::new(HEARD_MAX)) }, task))
    }
}

impl ProjectHandle {
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Issues a command; durable when `Ok`.
    pub async fn issue(&self, draft: Draft) -> Result<Command, IssueError> {
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| IssueError::Saturated)?;
        let draft = Box::new(draft);
        let called = self.actor.call(|reply| ProjectMessage::Issue { draft, permit, reply }, Some(CALL_TIMEOUT)).await;
        match called {
            Ok(CallResult::Success(answer)) => answer,
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(IssueError::Unavailable),
        }
    }

    /// Appends an entry that is about no command; durable when `Ok`, which holds its seq.
    pub async fn note(&self, proposal: Proposal) -> Result<u64, NoteError> {
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| NoteError::Saturated)?;
        let proposal = Box::new(proposal);
        let called =
            self.actor.call(|reply| ProjectMessage::Note { proposal, permit, reply }, Some(CALL_TIMEOUT)).await;
        match called {
            Ok(CallResult::Success(answer)) => answer,
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(NoteError::Unavailable),
        }
    }

    /// Passes on what a session heard about a command. `frame_id` finds the command of an agent that did not echo
    /// the claim. A frame about no command of ours is dropped.
    pub async fn heard(
        &self,
        agent: AgentId,
        session: SessionId,
        frame_id: &str,
        claim: Option<&str>,
        heard: Heard,
    ) -> bool {
        let Some(claim) = claim_of(frame_id, claim) else { return false };
        let Ok(permit) = Arc::clone(&self.heard).acquire_owned().await else { return false };
        self.actor.cast(ProjectMessage::Heard { agent, session, claim, heard, permit }).is_ok()
    }

    /// A session of the agent stands in the directory from now on.
    pub fn session_up(&self, agent: AgentId, session: SessionId) -> bool {
        self.actor.cast(ProjectMessage::SessionUp { agent, session }).is_ok()
    }

    /// A session has left the directory.
    pub fn session_down(&self, agent: AgentId, session: SessionId) -> bool {
        self.actor.cast(ProjectMessage::SessionDown { agent, session }).is_ok()
    }

    /// Whether anything waits or is being answered.
    pub fn is_idle(&self) -> bool {
        self.requests.available_permits() == REQUESTS_MAX as usize && self.heard.available_permits() == HEARD_MAX
    }
}

fn claim_of(frame_id: &str, claim: Option<&str>) -> Option<Claim> {
    claim.and_then(|text| text.parse().ok()).or_else(|| {
        let command: CommandId = frame_id.parse().ok()?;
        Some(Claim { command, chunk: 0, attempt: domain::command::Attempt::NONE })
    })
}
