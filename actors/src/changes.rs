//! That something changed in a project, for whoever watches it: dashboards fetch again, so no data travels here.
//!
//! Costs nothing while nobody watches. Missing a word is harmless as long as a later one comes, so a slow watcher
//! only hears less often. Beside that it knows whose ledgers grew here, for whoever signs how far they have come; of
//! that no word is missed.

use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use domain::id::ProjectId;
use tokio::sync::broadcast;

/// Words a slow watcher may be behind before it misses some.
const BEHIND_MAX: usize = 64;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Task,
    Command,
    Agent,
}

impl Topic {
    pub const ALL: [Self; 3] = [Self::Task, Self::Command, Self::Agent];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task.changed",
            Self::Command => "command.changed",
            Self::Agent => "agent.changed",
        }
    }
}

/// Watchers of this node by project, and ledgers that grew; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    watchers: DashMap<ProjectId, broadcast::Sender<Topic>>,
    /// At most every project once.
    grown: DashSet<ProjectId>,
}

impl Changes {
    /// Hears of changes from now on.
    pub fn watch(&self, project: ProjectId) -> broadcast::Receiver<Topic> {
        self.0.watchers.entry(project).or_insert_with(|| broadcast::channel(BEHIND_MAX).0).subscribe()
    }

    /// Says that something changed.
    pub fn tell(&self, project: ProjectId, topic: Topic) {
        let unheard = match self.0.watchers.get(&project) {
            Some(watchers) => watchers.send(topic).is_err(),
            None => false,
        };
        if unheard {
            self.0.watchers.remove_if(&project, |_, watchers| watchers.receiver_count() == 0);
        }
    }

    /// Says that a project's ledger may have entries that it had not before.
    pub fn ledger_grew(&self, project: ProjectId) {
        self.0.grown.insert(project);
    }

    /// Projects whose ledger may have grown since this was asked last.
    pub fn take_grown(&self) -> Vec<ProjectId> {
        let grown: Vec<ProjectId> = self.0.grown.iter().map(|project| *project).collect();
        // Taken out before the ledger is read, so that what grows from now on is told again.
        for project in &grown {
            self.0.grown.remove(project);
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_grew_is_told_once() {
        let (changes, mine) = (Changes::default(), ProjectId::from_bytes([1; 16]));
        changes.ledger_grew(mine);
        changes.ledger_grew(mine);
        assert_eq!(changes.take_grown(), [mine]);
        assert_eq!(changes.take_grown(), []);
        changes.ledger_grew(mine);
        assert_eq!(changes.take_grown(), [mine]);
    }

    #[tokio::test]
    async fn watchers_hear_of_their_own_project_and_leave_nothing_behind() {
        let (changes, mine, other) =
            (Changes::default(), ProjectId::from_bytes([1; 16]), ProjectId::from_bytes([2; 16]));
        let mut watcher = changes.watch(mine);
        changes.tell(other, Topic::Task);
        changes.tell(mine, Topic::Agent);
        assert_eq!(watcher.recv().await, Ok(Topic::Agent));
        drop(watcher);
        changes.tell(mine, Topic::Agent);
        assert!(changes.0.watchers.is_empty());
    }
}
