//! The tasks a recorder is busy with, so that an event does not cost a read.

use std::collections::HashMap;

use domain::id::ProjectId;
use domain::id::address::TaskKey;
use domain::task::Task;
use domain::time::Timestamp;

/// Tasks held at once; a task is about 1 KB.
const TASKS_MAX: usize = 50_000;
/// A finished task leaves this long after its last event.
const FINISHED_IDLE_SECS: i64 = 5;
/// An open task leaves this long after its last event.
const OPEN_IDLE_SECS: i64 = 60;

pub(super) type Key = (ProjectId, TaskKey);

#[derive(Default)]
pub(super) struct Memory {
    tasks: HashMap<Key, Held>,
    swept_at: Timestamp,
}

struct Held {
    task: Task,
    /// Other writers wrote of it as well.
    is_shared: bool,
    touched_at: Timestamp,
}

impl Memory {
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.tasks.contains_key(key)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Task> {
        self.tasks.get(key).map(|held| &held.task)
    }

    /// The task, noted as touched.
    pub(super) fn touch(&mut self, key: &Key, now: Timestamp) -> Option<&mut Task> {
        let held = self.tasks.get_mut(key)?;
        held.touched_at = now;
        Some(&mut held.task)
    }

    pub(super) fn insert(&mut self, key: Key, task: Task, now: Timestamp) {
        self.tasks.insert(key, Held { task, is_shared: false, touched_at: now });
    }

    /// A task of which other writers wrote as well.
    pub(super) fn insert_shared(&mut self, key: Key, task: Task, now: Timestamp) {
        self.tasks.insert(key, Held { task, is_shared: true, touched_at: now });
    }

    pub(super) fn is_shared(&self, key: &Key) -> bool {
        self.tasks.get(key).is_some_and(|held| held.is_shared)
    }

    /// What is in memory may differ from the store: read it again next time.
    pub(super) fn forget(&mut self, key: &Key) {
        self.tasks.remove(key);
    }

    /// Lets go of tasks that have been quiet, once a second or when there are too many.
    pub(super) fn evict(&mut self, now: Timestamp) {
        let crowded = self.tasks.len() > TASKS_MAX;
        if !crowded && now.since(self.swept_at).abs() < 1_000_000 {
            return;
        }
        self.swept_at = now;
        self.tasks.retain(|_, held| {
            let idle = now.since(held.touched_at);
            let finished = held.task.header().state.is_terminal();
            // Who deletes very many tasks brings each of them in, and hardly one is heard of again.
            !held.task.is_hidden() && idle < if finished { FINISHED_IDLE_SECS } else { OPEN_IDLE_SECS } * 1_000_000
        });
        if self.tasks.len() > TASKS_MAX {
            // Everything in it was touched within the minute, so any half is as good as the other.
            let mut spare = self.tasks.len() - TASKS_MAX / 2;
            self.tasks.retain(|_, _| {
                let keep = spare == 0;
                spare = spare.saturating_sub(1);
                keep
            });
        }
    }
}
