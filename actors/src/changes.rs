//! That something changed in a project, for whoever watches it: dashboards fetch again, so no data travels here.
//!
//! Costs nothing while nobody watches. Missing a word is harmless as long as a later one comes, so a slow watcher
//! only hears less often. Beside that it knows whose ledgers grew here, for whoever signs how far they have come; of
//! that no word is missed.
//!
//! ```text
//! ended   who waits for a command to end
//! ```

mod ended;

use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use domain::id::{CommandId, ProjectId};
use tokio::sync::broadcast;

use self::ended::Ended;
pub use self::ended::Listener;

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
    ended: Ended,
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

    /// Listens from now on for the end of a command. Whoever looks at its row after this misses nothing that happens here;
    /// what another node ends is heard once this node reads on.
    pub fn listen(&self, command: CommandId) -> Listener {
        self.0.ended.listen(command)
    }

    /// Says that a command has ended and that its row says so.
    pub fn command_ended(&self, command: CommandId) {
        self.0.ended.tell(command);
    }

    /// Says that any command may have ended meanwhile.
    pub fn commands_may_have_ended(&self) {
        self.0.ended.tell_all();
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

    #[tokio::test]
    async fn who_listens_hears_of_its_own_command_and_leaves_nothing_behind() {
        let (changes, mine, other) =
            (Changes::default(), CommandId::from_bytes([1; 16]), CommandId::from_bytes([2; 16]));
        changes.command_ended(mine);
        let (first, second, stranger) = (changes.listen(mine), changes.listen(mine), changes.listen(other));
        let heard = |listener: &Listener| futures_util::FutureExt::now_or_never(listener.heard()).is_some();
        assert!(!heard(&first), "what was before is in the row");
        let (one, two, none) = (first.heard(), second.heard(), stranger.heard());
        changes.command_ended(mine);
        tokio::join!(one, two);
        assert_eq!(futures_util::FutureExt::now_or_never(none), None);
        let (one, none) = (first.heard(), stranger.heard());
        changes.commands_may_have_ended();
        tokio::join!(one, none);
        drop(first);
        let two = second.heard();
        changes.command_ended(mine);
        two.await;
        drop(second);
        drop(stranger);
        assert!(changes.0.ended.is_empty());
    }
}
