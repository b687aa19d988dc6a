//! What tasks are found by, as far as one recorder knows it: marks to write, and the open tasks it lists.
//!
//! A task in an open state is listed under it, before or together with its row; one that has left it is taken off the
//! list together with its row or after it. So a list names at least the tasks in its state, whenever it is read. A list is
//! written whole, so it must not grow: of a long one the oldest are filed, each in a row of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cql::tasks::Tasks;
use cql::{Store, StoreError, Table, Write};
use domain::id::ProjectId;
use domain::id::address::{Bucket, TaskId};
use domain::task::{Header, Mark, State, Task};
use domain::time::Timestamp;

/// Lists in memory: three for each busy project. They are read again when they are wanted.
const LISTS_MAX: usize = 5_000;
/// Ids of a list that is short enough, besides one for each task of the round: a long round writes it for many. Few
/// under test, so that short stories reach it.
const LISTED_MAX: usize = if cfg!(test) { 2 } else { 64 };
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

type List = (ProjectId, State);

#[derive(Default)]
pub(super) struct Marks {
    lists: HashMap<List, Listed>,
    /// Lists that may name more here than in the store.
    unwritten: HashSet<List>,
    /// Projects of which is written what has to stand before the first mark.
    begun: HashSet<ProjectId>,
    /// Lists that name tasks which are not in their state, or filed.
    stale: HashSet<List>,
    /// What removes tasks that were filed and have left their state.
    taken_out: Vec<Write>,
    /// Partitions whose segment is durable. Written with each new task, it would be as many values of one row, and
    /// every list would step over those that are not flushed yet.
    noted: HashSet<(ProjectId, Bucket)>,
}

#[derive(Default)]
struct Listed {
    ids: BTreeSet<TaskId>,
    /// Taken off the list in this round, to be put back if its rows do not become durable.
    off: Vec<TaskId>,
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
        if self.lists.len() > LISTS_MAX {
            self.lists.retain(|list, _| self.unwritten.contains(list));
        }
        let mut writes = Vec::new();
        let mut marked: BTreeMap<(ProjectId, Mark), Vec<TaskId>> = BTreeMap::new();
        for Moved { project, id, before, after, is_shared } in moved {
            if self.begun.insert(*project) {
                writes.extend(tasks.begin_marks(*project, recorder, now).await?);
            }
            let shared = is_shared.then_some(Mark::Shared);
            for mark in Mark::gained(before.as_ref(), after).chain(shared) {
                marked.entry((*project, mark)).or_default().push(*id);
            }
            // Ended in one round, as most tasks under load are: never listed.
            let (was, is) = (before.as_ref().and_then(Header::open_state), after.open_state());
            if was == is {
                continue;
            }
            if let Some(state) = was {
                let listed = self.list(tasks, recorder, (*project, state), now).await?;
                if listed.ids.remove(id) {
                    listed.off.push(*id);
                    self.stale.insert((*project, state));
                } else {
                    self.taken_out.push(tasks.take_out(*project, state, *id));
                }
            }
            if let Some(state) = is {
                self.list(tasks, recorder, (*project, state), now).await?.ids.insert(*id);
                self.unwritten.insert((*project, state));
            }
        }
        writes.extend(self.file(tasks, LISTED_MAX + moved.len(), now));
        if tasks.is_alone() {
            // Row and list change at once.
            self.unwritten.extend(self.stale.drain());
            writes.append(&mut self.taken_out);
        }
        for list in &self.unwritten {
            if let Some(listed) = self.lists.get_mut(list) {
                if tasks.is_alone() {
                    listed.off.clear();
                }
                writes.push(tasks.list_open(list.0, list.1, recorder, listed.ids.iter().chain(&listed.off)));
            }
        }
        for ((project, mark), ids) in marked {
            writes.extend(tasks.mark(project, mark, &ids, now));
        }
        Ok(writes)
    }

    async fn list(
        &mut self,
        tasks: &Tasks,
        recorder: u16,
        list: List,
        now: Timestamp,
    ) -> Result<&mut Listed, StoreError> {
        match self.lists.entry(list) {
            std::collections::hash_map::Entry::Occupied(held) => Ok(held.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let ids = tasks.listed(list.0, list.1, recorder, now).await?.into_iter().collect();
                Ok(place.insert(Listed { ids, off: Vec::new() }))
            }
        }
    }

    /// Halves lists that have become too long.
    fn file(&mut self, tasks: &Tasks, max: usize, now: Timestamp) -> Vec<Write> {
        let mut writes = Vec::new();
        for list in &self.unwritten {
            let Some(listed) = self.lists.get_mut(list).filter(|listed| listed.ids.len() > max) else { continue };
            while listed.ids.len() > max / 2
                && let Some(oldest) = listed.ids.pop_first()
            {
                writes.extend(tasks.file(list.0, list.1, oldest, now));
                listed.off.push(oldest);
                self.stale.insert(*list);
            }
        }
        writes
    }

    /// After the rows are durable: takes off the lists what could not be before.
    pub(super) async fn settle(&mut self, tasks: &Tasks, store: &dyn Store, recorder: u16) {
        self.unwritten.clear();
        let stale = std::mem::take(&mut self.stale);
        let put = |list: &List| {
            let listed = self.lists.get(list)?;
            Some(tasks.list_open(list.0, list.1, recorder, listed.ids.iter()))
        };
        let mut writes: Vec<Write> = stale.iter().filter_map(put).collect();
        writes.append(&mut self.taken_out);
        for list in &stale {
            if let Some(listed) = self.lists.get_mut(list) {
                listed.off.clear();
            }
        }
        if writes.is_empty() {
            return;
        }
        if let Err(error) = store.write(writes).await {
            // Nothing is missing: what is named too much is passed over. It goes with the next change of its list; what was
            // filed, with its rows.
            tracing::warn!(error = &error as &dyn std::error::Error, "ended tasks stay listed as open");
            self.stale.extend(stale);
        }
    }

    /// A task that got another id is not open under this one.
    pub(super) fn withdraw(&mut self, project: ProjectId, id: TaskId) {
        for (list, listed) in self.lists.iter_mut().filter(|(list, _)| list.0 == project) {
            if listed.ids.remove(&id) {
                self.stale.insert(*list);
            }
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
        self.taken_out.clear();
        if tasks.is_alone() {
            self.lists.clear();
            self.stale.clear();
            self.unwritten.clear();
        }
        // On a cluster here is named at least what is in the state, and in the store too, but for what is unwritten.
        for listed in self.lists.values_mut() {
            listed.ids.extend(listed.off.drain(..));
        }
    }
}
