//! What a recorder does: find a task, load it, give it its place, write it.

use std::num::NonZeroU32;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::id::address::{TaskId, TaskKey};
use domain::task::Task;
use domain::time::Timestamp;

use super::Tasks;
use super::key::{self, Segment};
use crate::store::{Commit, Result, Row, StoreError, Ttl, Write, WriteOp};

/// Rows of one task that are read; each recorder epoch that had the task left one.
pub(super) const WRITERS_MAX: usize = 1_000;

/// Rows with less time left are not written any more: a TTL of 0 would mean for ever.
const TTL_SECS_MIN: i64 = 60;
/// Rows outlive the retention by this. A task that is heard of for the first time when it is older than that is dated
/// to the retention's edge (contract D5), and seen for as long.
const EDGE_SECS: i64 = 3_600;
/// A deletion outlives what other writers still hold of its task.
const DELETION_GRACE_SECS: i64 = 3_600;
/// A segment outlives the last row in it.
const SEGMENT_GRACE_SECS: i64 = 10_800;
/// Format byte of rows that say nothing but that they exist.
const EXISTS: &[u8] = &[0x01];

/// What is known of a task.
#[derive(Clone, Debug)]
pub enum Found {
    /// Never heard of, or long gone.
    Unknown,
    /// It has its id, but no row is there yet or any more: write it with [`Tasks::rows`] under this id.
    Placed(TaskId),
    Known(Box<Task>),
    /// Known, and others wrote of it as well.
    Shared(Box<Task>),
}

impl Tasks {
    /// The id a task was given when it first became durable.
    pub async fn locate(&self, project: ProjectId, key: TaskKey) -> Result<Option<TaskId>> {
        let value = self.store.get(&key::task_at(project, key)).await?;
        value.map(|value| id_value(&value)).transpose()
    }

    /// Everything that was ever heard of a task, by all writers.
    pub async fn load(&self, project: ProjectId, id: TaskId) -> Result<Option<Task>> {
        unite(id, self.values(project, id).await?.iter())
    }

    /// The values of a task's rows, one of each writer.
    pub(super) async fn values(&self, project: ProjectId, id: TaskId) -> Result<Vec<Bytes>> {
        if self.is_alone() {
            return Ok(self.store.get(&key::task(project, id, 0)).await?.into_iter().collect());
        }
        Ok(self.store.scan(key::task_rows(project, id)).await?.into_iter().map(|row| row.value).collect())
    }

    /// Locates and loads.
    pub async fn find(&self, project: ProjectId, key: TaskKey) -> Result<Found> {
        Ok(match self.locate(project, key).await? {
            None => Found::Unknown,
            Some(id) if self.is_alone() => match self.load(project, id).await? {
                None => Found::Placed(id),
                Some(task) => Found::Known(Box::new(task)),
            },
            Some(id) => {
                let rows = self.store.scan(key::task_rows(project, id)).await?;
                let mine = key::task(project, id, self.writer).clustering;
                match unite(id, rows.iter().map(|row| &row.value))? {
                    None => Found::Placed(id),
                    Some(task) if rows.iter().all(|row| row.clustering == mine) => Found::Known(Box::new(task)),
                    Some(task) => Found::Shared(Box::new(task)),
                }
            }
        })
    }

    /// The commit that gives a task its id and writes its rows; [`Committed::Lost`](crate::Committed::Lost)
    /// carries the winner's id ([`taken_by`]). `None` when the task is too old to be kept.
    pub fn first_sight(&self, project: ProjectId, task: &Task, now: Timestamp) -> Option<Commit> {
        let ttl = self.ttl(task.id(), 0, now)?;
        let mut commit = Commit::insert(key::task_at(project, task.key()), task.id().bytes().to_vec());
        for (_, op) in &mut commit.writes {
            if let WriteOp::Put { ttl: kept, .. } = op {
                *kept = Some(ttl);
            }
        }
        Some(commit.following(self.rows(project, task, now)?))
    }

    /// Every row of a task that has its id: all that follows a first sight. Idempotent.
    pub fn rows(&self, project: ProjectId, task: &Task, now: Timestamp) -> Option<Vec<Write>> {
        let mut writes = vec![self.rewrite(project, task, now)?, self.segment(project, task.id(), now)?];
        writes.extend(self.root(project, task, now));
        Some(writes)
    }

    /// The task's own row, whole. `None` when it is about to expire: the report counts as expired.
    pub fn rewrite(&self, project: ProjectId, task: &Task, now: Timestamp) -> Option<Write> {
        let grace = if task.deleted_at().is_some() { DELETION_GRACE_SECS } else { 0 };
        let ttl = self.ttl(task.id(), grace, now)?;
        Some(Write::put(key::task(project, task.id(), self.writer), task.to_bytes()).with_ttl(Some(ttl)))
    }

    /// The task's place in its tree; none for a root. Needed once, when the root is first heard.
    pub fn root(&self, project: ProjectId, task: &Task, now: Timestamp) -> Option<Write> {
        let root = task.root_task_id()?;
        let ttl = self.ttl(task.id(), 0, now)?;
        Some(Write::put(key::task_root(project, &root, task.id()), EXISTS).with_ttl(Some(ttl)))
    }

    /// Says that the partition of an id exists. Needed once per partition.
    pub fn segment(&self, project: ProjectId, id: TaskId, now: Timestamp) -> Option<Write> {
        let segment = Segment::of(id);
        let end = Timestamp::from_millis(segment.end_ms as i64);
        let left = end.plus_secs(self.retention_secs + SEGMENT_GRACE_SECS).since(now) / 1_000_000;
        Some(Write::put(segment.key(project), EXISTS).with_ttl(Some(seconds(left)?)))
    }

    /// What is left of a row's life: retention less age, and its edge.
    pub(super) fn ttl(&self, id: TaskId, grace_secs: i64, now: Timestamp) -> Option<Ttl> {
        seconds(id.received_at().plus_secs(self.retention_secs + EDGE_SECS + grace_secs).since(now) / 1_000_000)
    }
}

fn seconds(left: i64) -> Option<Ttl> {
    if left < TTL_SECS_MIN {
        return None;
    }
    NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX))
}

/// The id that another first sight won with, from the rows of a lost commit.
pub fn taken_by(lost: &[Row]) -> Result<TaskId> {
    lost.first().map_or(Err(StoreError::Corrupt { what: "task_at" }), |row| id_value(&row.value))
}

fn id_value(value: &[u8]) -> Result<TaskId> {
    value.try_into().map(TaskId::from_bytes).map_err(|_| StoreError::Corrupt { what: "task_at" })
}

pub(super) fn decode(id: TaskId, value: &Bytes) -> Result<Task> {
    Task::decode(id, value).map_err(|_| StoreError::Corrupt { what: "task" })
}

/// One task out of the rows of its writers.
pub(super) fn unite<'a>(id: TaskId, values: impl Iterator<Item = &'a Bytes>) -> Result<Option<Task>> {
    let mut united: Option<Task> = None;
    for value in values {
        let task = decode(id, value)?;
        match &mut united {
            Some(united) => united.unite(task),
            None => united = Some(task),
        }
    }
    Ok(united)
}
