//! What tasks are found by, as far as one recorder knows it: marks to write, and the open tasks it lists.
//!
//! A task that is open is listed before or together with its row; one that is open no more is taken off the list
//! together with its row or after it. So a list names at least the open tasks, whenever it is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cql::tasks::{Slot, Tasks};
use cql::{Store, StoreError, Table, Write};
use domain::id::ProjectId;
use domain::id::address::{Bucket, TaskId};
use domain::task::{Header, Mark, Task};
use domain::time::Timestamp;

/// Slots in memory: 32 for each busy project. They are read again when they are wanted.
const SLOTS_MAX: usize = 20_000;
/// Partitions that are known to be noted.
const NOTED_MAX: usize = 20_000;

/// How a task's row changes in a round.
#[derive(Clone, Copy)]
pub(super) struct Moved {
    pub(super) project: ProjectId,
    pub(super) id: TaskId,
    /// `None`: whatever it is marked with, that is not known here.
    pub(super) before: Option<Header>,
    pub(super) after: Header,
    /// Other writers wrote of it as well.
    pub(super) is_shared: bool,
}

impl Moved {
    pub(super) fn first(project: ProjectId, task: &Task, is_shared: bool) -> Self {
        Self { project, id: task.id(), before: None, after: *task.header(), is_shared }
    }
}

#[derive(Default)]
pub(super) struct Marks {
    slots: HashMap<(ProjectId, Slot), Listed>,
    /// Projects of which is written what has to stand before the first mark.
    begun: HashSet<ProjectId>,
    /// Slots that name tasks which are open no more.
    stale: HashSet<(ProjectId, Slot)>,
    /// Partitions whose segment is durable. Written with each new task, it would be as many values of one row, and
    /// every list would step over those that are not flushed yet.
    noted: HashSet<(ProjectId, Bucket)>,
}

#[derive(Default)]
struct Listed {
    open: BTreeSet<TaskId>,
    /// Taken off the list in this round.
    ended: Vec<TaskId>,
}

impl Marks {
    /// Applies the changes of a round and returns what has to be durable before or together with the rows. After an
    /// error, or when the rows did not become durable, call [`forget`](Self::forget).
    pub(super) async fn apply(
        &mut self,
        tasks: &Tasks,
        recorder: u16,
        moved: &[Moved],
        now: Timestamp,
    ) -> Result<Vec<Write>, StoreError> {
        if self.slots.len() > SLOTS_MAX {
            self.slots.clear();
        }
        let mut writes = Vec::new();
        let mut marked: BTreeMap<(ProjectId, Mark), Vec<TaskId>> = BTreeMap::new();
        let mut touched = HashSet::new();
        for Moved { project, id, before, after, is_shared } in moved {
            if self.begun.insert(*project) {
                writes.extend(tasks.begin_marks(*project, recorder, now).await?);
            }
            let shared = is_shared.then_some(Mark::Shared);
            for mark in Mark::gained(before.as_ref(), after).chain(shared) {
                marked.entry((*project, mark)).or_default().push(*id);
            }
            // Ended in one round, as most tasks under load are: never listed.
            if !after.is_open() && before.is_none_or(|before| !before.is_open()) {
                continue;
            }
            let slot = (*project, Slot::of(*id));
            let listed = match self.slots.entry(slot) {
                std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    let open = tasks.open_in(*project, slot.1, recorder, now).await?.into_iter().collect();
                    place.insert(Listed { open, ended: Vec::new() })
                }
            };
            if after.is_open() && listed.open.insert(*id) {
                touched.insert(slot);
            } else if !after.is_open() && listed.open.remove(id) {
                listed.ended.push(*id);
                self.stale.insert(slot);
            }
        }
        if tasks.is_alone() {
            // Row and list change at once.
            touched.extend(self.stale.drain());
        }
        for slot in touched {
            if let Some(listed) = self.slots.get_mut(&slot) {
                let ended = std::mem::take(&mut listed.ended);
                let still = if tasks.is_alone() { &[][..] } else { &ended[..] };
                writes.push(tasks.put_open(slot.0, slot.1, recorder, listed.open.iter().chain(still)));
            }
        }
        for ((project, mark), ids) in marked {
            writes.extend(tasks.mark(project, mark, &ids, now));
        }
        Ok(writes)
    }

    /// After the rows are durable: takes off the lists what could not be before.
    pub(super) async fn settle(&mut self, tasks: &Tasks, store: &dyn Store, recorder: u16) {
        let stale = std::mem::take(&mut self.stale);
        let put = |slot: &(ProjectId, Slot)| {
            let listed = self.slots.get(slot)?;
            Some(tasks.put_open(slot.0, slot.1, recorder, listed.open.iter()))
        };
        let writes: Vec<Write> = stale.iter().filter_map(put).collect();
        for slot in &stale {
            if let Some(listed) = self.slots.get_mut(slot) {
                listed.ended.clear();
            }
        }
        if writes.is_empty() {
            return;
        }
        if let Err(error) = store.write(writes).await {
            // Nothing is missing: what is listed too much is passed over, and goes with the next change.
            tracing::warn!(error = &error as &dyn std::error::Error, "ended tasks stay listed as open");
            self.stale.extend(stale);
        }
    }

    /// A task that got another id is not open under this one.
    pub(super) fn withdraw(&mut self, project: ProjectId, id: TaskId) {
        let slot = (project, Slot::of(id));
        if let Some(listed) = self.slots.get_mut(&slot)
            && listed.open.remove(&id)
        {
            self.stale.insert(slot);
        }
    }

    /// Takes out of what follows a first sight what is durable already.
    pub(super) fn trim(&self, project: ProjectId, id: TaskId, follow: &mut Vec<Write>) {
        if self.noted.contains(&(project, id.bucket())) {
            follow.retain(|write| write.key.table != Table::Segment);
        }
    }

    /// A first sight is durable with all that follows.
    pub(super) fn note(&mut self, project: ProjectId, id: TaskId) {
        if self.noted.len() > NOTED_MAX {
            self.noted.clear();
        }
        self.noted.insert((project, id.bucket()));
    }

    /// The rows of a round may not have become durable, nor what was to be written with them.
    pub(super) fn forget(&mut self, tasks: &Tasks) {
        self.begun.clear();
        if tasks.is_alone() {
            self.slots.clear();
            self.stale.clear();
        }
        // On a cluster a list in the store names at least what is named here, and here at least what is open.
        for listed in self.slots.values_mut() {
            listed.open.extend(listed.ended.drain(..));
        }
    }
}
