//! That something changed in a project, for whoever watches it: dashboards fetch again, so no data travels here.
//!
//! Costs nothing while nobody watches. Missing a word is harmless as long as a later one comes, so a slow watcher
//! only hears less often.

use std::sync::Arc;

use dashmap::DashMap;
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

/// Watchers of this node by project; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<DashMap<ProjectId, broadcast::Sender<Topic>>>);

impl Changes {
    /// Hears of changes from now on.
    pub fn watch(&self, project: ProjectId) -> broadcast::Receiver<Topic> {
        self.0.entry(project).or_insert_with(|| broadcast::channel(BEHIND_MAX).0).subscribe()
    }

    /// Says that something changed.
    pub fn tell(&self, project: ProjectId, topic: Topic) {
        let unheard = match self.0.get(&project) {
            Some(watchers) => watchers.send(topic).is_err(),
            None => false,
        };
        if unheard {
            self.0.remove_if(&project, |_, watchers| watchers.receiver_count() == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(changes.0.is_empty());
    }
}
