//! Who is connected to this node: sessions by agent.
//!
//! **Owns** the node's table of live sessions. **Invariant** one session per (agent, worker id): a newer one
//! displaces the older. An agent actor that restarts finds its sessions here.

use std::sync::Arc;

use dashmap::DashMap;
use domain::id::{AgentId, ProjectId, SessionId};
use domain::wire::CloseCode;

use crate::session::SessionHandle;

/// At most this many worker processes per agent (WIRE section 5, close code 4429).
pub const SESSIONS_PER_AGENT_MAX: usize = 64;

/// Live sessions of this node; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<DashMap<AgentId, Vec<SessionHandle>>>);

/// What became of a session's arrival.
#[derive(Debug)]
pub enum Arrival {
    /// Connected; the session it displaced, if any, is to be closed with 4002.
    Connected(Option<SessionHandle>),
    /// The agent has its 64 sessions already.
    Full,
}

impl Directory {
    /// Registers a session, displacing one with the same worker id.
    pub fn up(&self, handle: SessionHandle) -> Arrival {
        let mut sessions = self.0.entry(handle.facts.agent).or_default();
        let same = sessions.iter().position(|old| old.facts.worker_id == handle.facts.worker_id);
        let displaced = match same {
            Some(place) => Some(std::mem::replace(&mut sessions[place], handle)),
            None if sessions.len() >= SESSIONS_PER_AGENT_MAX => return Arrival::Full,
            None => {
                sessions.push(handle);
                None
            }
        };
        Arrival::Connected(displaced)
    }

    /// Removes a session; true if it was still the registered one.
    pub fn down(&self, agent: AgentId, session: SessionId) -> bool {
        let Some(mut sessions) = self.0.get_mut(&agent) else { return false };
        let before = sessions.len();
        sessions.retain(|handle| handle.id() != session);
        let (removed, empty) = (sessions.len() < before, sessions.is_empty());
        drop(sessions);
        if empty {
            self.0.remove_if(&agent, |_, sessions| sessions.is_empty());
        }
        removed
    }

    /// The live sessions of an agent, oldest slot first.
    pub fn sessions_of(&self, agent: AgentId) -> Vec<SessionHandle> {
        self.0.get(&agent).map(|sessions| sessions.clone()).unwrap_or_default()
    }

    pub fn is_connected(&self, agent: AgentId) -> bool {
        self.0.contains_key(&agent)
    }

    /// Closes every session of an agent.
    pub fn close_agent(&self, agent: AgentId, code: CloseCode) {
        for handle in self.sessions_of(agent) {
            handle.close(code);
        }
    }

    /// Closes every session of a project.
    pub fn close_project(&self, project: ProjectId, code: CloseCode) {
        for sessions in self.0.iter() {
            for handle in sessions.value().iter().filter(|handle| handle.facts.project == project) {
                handle.close(code);
            }
        }
    }

    /// Closes every session of this node.
    pub fn close_all(&self, code: CloseCode) {
        for sessions in self.0.iter() {
            for handle in sessions.value() {
                handle.close(code);
            }
        }
    }

    pub fn session_count(&self) -> usize {
        self.0.iter().map(|sessions| sessions.len()).sum()
    }

    pub fn agent_count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use domain::time::Timestamp;

    use super::*;
    use crate::session::SessionFacts;

    fn handle(agent: u8, session: u8, worker: Option<&str>) -> SessionHandle {
        let facts = SessionFacts {
            session: SessionId::from_bytes([session; 16]),
            project: ProjectId::NIL,
            agent: AgentId::from_bytes([agent; 16]),
            worker_id: worker.map(str::to_owned),
            worker_role: None,
            engines: Vec::new(),
            capabilities: Default::default(),
            said_hello: true,
            connected_at: Timestamp::EPOCH,
        };
        SessionHandle::new(facts).0
    }

    #[test]
    fn a_second_session_of_a_worker_displaces_the_first() {
        let directory = Directory::default();
        let agent = AgentId::from_bytes([1; 16]);
        assert!(matches!(directory.up(handle(1, 1, Some("w"))), Arrival::Connected(None)));
        assert!(matches!(directory.up(handle(1, 2, None)), Arrival::Connected(None)));
        let Arrival::Connected(Some(old)) = directory.up(handle(1, 3, Some("w"))) else { panic!("not displaced") };
        assert_eq!(old.id(), SessionId::from_bytes([1; 16]));
        assert!(!directory.down(agent, old.id()), "a displaced session's end must not remove its successor");
        assert_eq!(directory.session_count(), 2);
        assert!(directory.down(agent, SessionId::from_bytes([3; 16])));
        assert!(directory.down(agent, SessionId::from_bytes([2; 16])));
        assert!(!directory.is_connected(agent));
    }

    #[test]
    fn an_agent_has_at_most_64_sessions() {
        let directory = Directory::default();
        for n in 0..SESSIONS_PER_AGENT_MAX {
            assert!(matches!(directory.up(handle(1, 1, Some(&n.to_string()))), Arrival::Connected(None)));
        }
        assert!(matches!(directory.up(handle(1, 1, Some("one more"))), Arrival::Full));
        assert!(matches!(directory.up(handle(1, 1, Some("7"))), Arrival::Connected(Some(_))), "a reconnect still fits");
    }
}
