//! Credentials of agents, found by the hash of their token (WIRE section 1.1).

use bytes::Bytes;
use domain::id::{AgentId, ProjectId, UserId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::unique::{self, Claim, Claimed, Kind};
use super::{AccountError, ONLY, project};
use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

/// An agent as an administrator minted it. What it said about itself is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub id: AgentId,
    pub project: ProjectId,
    pub name: String,
    #[serde(with = "serde_bytes")]
    pub token_hash: [u8; 32],
    pub created_at: Timestamp,
    pub created_by: Option<UserId>,
    /// Kept after revocation: commands and audit entries still name the agent.
    pub revoked_at: Option<Timestamp>,
}

/// What an agent's token says at a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCredential {
    pub agent: AgentId,
    pub name: String,
    pub project: ProjectId,
    pub project_slug: String,
    pub revoked: bool,
    pub project_archived: bool,
}

const WHAT: &str = "agent";

fn key(project: ProjectId, id: AgentId) -> Key {
    Key::new(Table::Agent, project.bytes().to_vec(), id.bytes().to_vec())
}

fn secret_key(hash: &[u8; 32]) -> Key {
    let mut partition = vec![b'a'];
    partition.extend_from_slice(hash);
    Key::new(Table::Secret, partition, ONLY)
}

/// Stores a new agent under a name that no other living agent of the project has.
pub async fn create(store: &dyn Store, agent: &Agent) -> Result<(), AccountError> {
    let scope = agent.project.bytes();
    let mine = Claim { owner: agent.id.bytes(), at: agent.created_at };
    let mut whose = agent.id.bytes().to_vec();
    whose.extend_from_slice(&agent.project.bytes());
    let puts = vec![
        Write::put(key(agent.project, agent.id), record::encode(agent)),
        Write::put(secret_key(&agent.token_hash), whose),
    ];
    match unique::claim(store, Kind::AgentName, scope, &agent.name, mine, puts.clone()).await? {
        Claimed::Mine => Ok(()),
        Claimed::Held(other) => {
            let holder = get(store, agent.project, AgentId::from_bytes(other.owner)).await?;
            let free = match holder {
                Some(holder) => holder.revoked_at.is_some(),
                None => other.is_due(agent.created_at),
            };
            if !free {
                return Err(AccountError::Taken("name"));
            }
            match unique::take_over(store, Kind::AgentName, scope, &agent.name, (other, mine), puts).await? {
                Claimed::Mine => Ok(()),
                Claimed::Held(_) => Err(AccountError::Taken("name")),
            }
        }
    }
}

/// An agent of this project, revoked or not.
pub async fn get(store: &dyn Store, project: ProjectId, id: AgentId) -> Result<Option<Agent>, StoreError> {
    record::read(store, &key(project, id), WHAT).await
}

/// The agents of a project that are not revoked, oldest first.
pub async fn of_project(store: &dyn Store, project: ProjectId) -> Result<Vec<Agent>, StoreError> {
    let mut agents: Vec<Agent> =
        record::records(store, Table::Agent, Bytes::copy_from_slice(&project.bytes()), WHAT).await?;
    agents.retain(|agent| agent.revoked_at.is_none());
    Ok(agents)
}

/// Ends an agent's credential: the row stays, the token finds nothing any more, the name is free.
pub async fn revoke(store: &dyn Store, agent: &Agent, now: Timestamp) -> Result<(), StoreError> {
    let revoked = Agent { revoked_at: Some(now), ..agent.clone() };
    let row = Write::put(key(agent.project, agent.id), record::encode(&revoked));
    store.write(vec![row, Write::delete(secret_key(&agent.token_hash))]).await?;
    unique::release(store, Kind::AgentName, agent.project.bytes(), &agent.name, agent.id.bytes()).await
}

/// Whose token this is. `None` means no agent ever had it, or it was revoked and forgotten.
pub async fn agent_by_token(store: &dyn Store, token_hash: &[u8; 32]) -> Result<Option<AgentCredential>, StoreError> {
    let Some(whose) = store.get(&secret_key(token_hash)).await? else { return Ok(None) };
    let Some((agent, project)) = whose.split_first_chunk::<16>() else {
        return Err(StoreError::Corrupt { what: "agent secret" });
    };
    let project = ProjectId::from_bytes(record::id_bytes(project, "agent secret")?);
    let Some(agent) = get(store, project, AgentId::from_bytes(*agent)).await? else { return Ok(None) };
    let Some(project) = project::get(store, project).await? else { return Ok(None) };
    Ok(Some(AgentCredential {
        agent: agent.id,
        name: agent.name,
        project: project.id,
        project_slug: project.slug,
        revoked: agent.revoked_at.is_some(),
        project_archived: !project.is_active,
    }))
}
