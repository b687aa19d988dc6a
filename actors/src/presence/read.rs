//! What is known of a project's machinery: the stored rows, and over them the newer facts of this node's sessions.
//! Reading writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use cql::StoreError;
use cql::fleet::{ProcessRow, QueueRow, WorkerRow, process, queue, worker};
use domain::engine::Engine;
use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use uuid::Uuid;

use super::fact::{Fact, unite_queue, unite_worker};
use super::view::{self, AgentPresence, QueueView, WorkerView};
use super::{Facts, Presence};

/// A session on another node counts while its row is this young.
const SESSION_SILENCE_SECS: i64 = 50;

impl Presence {
    /// Every process of the project and whether it is online, by agent.
    pub async fn processes(&self, project: ProjectId) -> Result<Vec<(ProcessRow, bool)>, StoreError> {
        let stored = process::of_project(&*self.0.config.store, project).await?;
        Ok(self.live(project, stored, None))
    }

    /// The agents of a project that ever connected.
    pub async fn agents(&self, project: ProjectId) -> Result<BTreeMap<AgentId, AgentPresence>, StoreError> {
        let mut by_agent: BTreeMap<AgentId, Vec<(ProcessRow, bool)>> = BTreeMap::new();
        for (row, online) in self.processes(project).await? {
            by_agent.entry(row.agent).or_default().push((row, online));
        }
        let now = self.0.config.clock.now();
        Ok(by_agent.into_iter().map(|(agent, processes)| (agent, AgentPresence::of(processes, now))).collect())
    }

    /// One agent, [`AgentPresence::never`] if it never connected.
    ///
    /// Costs no read while it is online here and no other node shares the store: its processes that are online are
    /// then all in memory, and they alone say what it can do.
    pub async fn agent(&self, project: ProjectId, agent: AgentId) -> Result<AgentPresence, StoreError> {
        let now = self.0.config.clock.now();
        if self.0.config.alone {
            let here = self.live(project, Vec::new(), Some(agent));
            if here.iter().any(|(_, online)| *online) {
                return Ok(AgentPresence::of(here, now));
            }
        }
        let stored = process::of_agent(&*self.0.config.store, project, agent).await?;
        Ok(AgentPresence::of(self.live(project, stored, Some(agent)), now))
    }

    /// The workers of a project by engine and name.
    pub async fn workers(&self, project: ProjectId) -> Result<Vec<WorkerView>, StoreError> {
        let processes = self.processes(project).await?;
        let online: BTreeSet<Uuid> = processes.iter().filter(|(_, online)| *online).map(|(row, _)| row.id).collect();
        let mut rows: BTreeMap<_, WorkerRow> = BTreeMap::new();
        for row in worker::of_project(&*self.0.config.store, project).await? {
            rows.insert((row.engine, row.agent, row.name.clone()), row);
        }
        self.with(project, |facts| {
            for (slot, fact) in &facts.workers {
                overlay(&mut rows, slot, fact.row(), |row| row.last_heartbeat, unite_worker);
            }
        });
        Ok(view::unite_workers(rows.into_values().collect(), &online, self.0.config.clock.now()))
    }

    /// The queues of a project by engine and name.
    pub async fn queues(&self, project: ProjectId) -> Result<Vec<QueueView>, StoreError> {
        let mut rows: BTreeMap<_, QueueRow> = BTreeMap::new();
        for row in queue::of_project(&*self.0.config.store, project).await? {
            rows.insert((row.engine, row.agent, row.name.clone()), row);
        }
        self.with(project, |facts| {
            for (slot, fact) in &facts.queues {
                overlay(&mut rows, slot, fact.row(), |row| row.last_seen_at, unite_queue);
            }
        });
        Ok(view::unite_queues(rows.into_values().collect()))
    }

    /// What one agent reported of one queue.
    pub async fn queue_of(
        &self,
        project: ProjectId,
        engine: Engine,
        agent: AgentId,
        name: &str,
    ) -> Result<Option<QueueRow>, StoreError> {
        let slot = (engine, agent, name.to_owned());
        let stored = queue::get(&*self.0.config.store, project, engine, agent, name).await?;
        let mut rows: BTreeMap<_, QueueRow> = stored.into_iter().map(|row| (slot.clone(), row)).collect();
        self.with(project, |facts| {
            if let Some(fact) = facts.queues.get(&slot) {
                overlay(&mut rows, &slot, fact.row(), |row| row.last_seen_at, unite_queue);
            }
        });
        Ok(rows.remove(&slot))
    }

    /// Stored processes under this node's own, of one agent or all, and whether each is online.
    fn live(&self, project: ProjectId, stored: Vec<ProcessRow>, agent: Option<AgentId>) -> Vec<(ProcessRow, bool)> {
        let now = self.0.config.clock.now();
        let slot = |row: &ProcessRow| (row.agent, row.worker_id.clone());
        let mut rows: BTreeMap<_, ProcessRow> = stored.into_iter().map(|row| (slot(&row), row)).collect();
        self.with(project, |facts| {
            let first = agent.map_or(Bound::Unbounded, |agent| Bound::Included((agent, None)));
            let own = facts.processes.range((first, Bound::Unbounded)).map(|(_, fact)| fact.row());
            for row in own.take_while(|row| agent.is_none_or(|agent| row.agent == agent)) {
                // Another node may have greeted the process after it left this one.
                let newer = |stored: &ProcessRow| stored.last_connect_at > row.last_connect_at;
                if !rows.get(&slot(row)).is_some_and(newer) {
                    rows.insert(slot(row), row.clone());
                }
            }
            rows.into_values().map(|row| (self.is_online(facts, &row, now), row)).map(|(on, row)| (row, on)).collect()
        })
    }

    fn is_online(&self, facts: &Facts, row: &ProcessRow, now: Timestamp) -> bool {
        if !row.online {
            return false;
        }
        if row.node == self.0.config.node || self.0.config.alone {
            let own = facts.processes.get(&(row.agent, row.worker_id.clone())).map(Fact::row);
            return own.is_some_and(|own| own.session == row.session && own.online);
        }
        now.since(row.last_seen_at) < SESSION_SILENCE_SECS * 1_000_000
    }
}

/// Unites a fact in memory with the stored row; what was heard last counts.
fn overlay<K: Ord + Clone, T: Clone>(
    rows: &mut BTreeMap<K, T>,
    slot: &K,
    fact: &T,
    heard: impl Fn(&T) -> Timestamp,
    unite: impl Fn(T, T) -> T,
) {
    let row = match rows.remove(slot) {
        Some(stored) if heard(&stored) > heard(fact) => unite(fact.clone(), stored),
        Some(stored) => unite(stored, fact.clone()),
        None => fact.clone(),
    };
    rows.insert(slot.clone(), row);
}
