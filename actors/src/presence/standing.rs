//! What a command asks of an agent: whether it is online, and what it says it can do.
//!
//! A small part of an [`AgentPresence`](super::AgentPresence), and asked for with every command, so it copies no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cql::StoreError;
use cql::fleet::{Capabilities, ProcessRow};
use domain::id::{AgentId, ProjectId};

use super::{OnlineState, Presence};

/// An agent as commands see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: OnlineState,
    /// Over the processes that are online (or, if none is, of the newest one), sorted.
    pub engines: Vec<String>,
    pub capabilities: Capabilities,
}

impl Presence {
    /// What [`Presence::agent`] says of the same, at the price of a look while the agent is online here.
    pub async fn standing(&self, project: ProjectId, agent: AgentId) -> Result<Standing, StoreError> {
        if let Some(standing) = self.online_here(project, agent, standing_of) {
            return Ok(standing);
        }
        let presence = self.agent(project, agent).await?;
        let capabilities = Arc::new(presence.capabilities);
        Ok(Standing { state: presence.state, engines: presence.engines, capabilities })
    }

    /// Whether an agent is online.
    pub async fn state(&self, project: ProjectId, agent: AgentId) -> Result<OnlineState, StoreError> {
        match self.online_here(project, agent, |_| OnlineState::Online) {
            Some(state) => Ok(state),
            None => Ok(self.agent(project, agent).await?.state),
        }
    }

    /// Looks at an agent's processes that are online, if some are and no other node may have more.
    fn online_here<T>(&self, project: ProjectId, agent: AgentId, look: impl FnOnce(&[&ProcessRow]) -> T) -> Option<T> {
        if !self.0.config.alone {
            return None;
        }
        let facts = self.0.projects.get(&project)?;
        let own = facts.processes.range((agent, None)..).map(|(_, fact)| fact.row());
        let online: Vec<&ProcessRow> = own.take_while(|row| row.agent == agent).filter(|row| row.online).collect();
        (!online.is_empty()).then(|| look(&online))
    }
}

fn standing_of(online: &[&ProcessRow]) -> Standing {
    let engines: BTreeSet<&String> = online.iter().flat_map(|row| &row.engines).collect();
    Standing {
        state: OnlineState::Online,
        engines: engines.into_iter().cloned().collect(),
        capabilities: united(online),
    }
}

/// Processes of one version list the same and share one copy; what differs is united.
fn united(online: &[&ProcessRow]) -> Capabilities {
    let mut lists = online.iter().map(|row| &row.capabilities);
    let Some(first) = lists.next() else { return Capabilities::default() };
    if lists.all(|list| list == first) {
        return Arc::clone(first);
    }
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for (engine, actions) in online.iter().flat_map(|row| row.capabilities.iter()) {
        all.entry(engine.clone()).or_default().extend(actions.iter().cloned());
    }
    Arc::new(all.into_iter().map(|(engine, actions)| (engine, actions.into_iter().collect())).collect())
}
