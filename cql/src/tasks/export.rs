//! An export: every matching row in constant memory, as one walk that lasts as long as its reader.
//!
//! The walk is made here and hands over stored tasks as they are; what is costly, decoding and rendering them, is
//! for the caller to do on as many threads as it likes.

use std::sync::Arc;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::task::{Filter, Parts, TaskRow};
use domain::time::Timestamp;
use tokio::sync::mpsc;

use super::Tasks;
use super::walk::{self, Stored, Walk};
use crate::store::Result;

/// Tasks of a chunk.
const ROWS: usize = 500;
/// Tasks of the first, so that the first byte leaves early.
const FIRST_ROWS: usize = 100;
/// Stored bytes after which a chunk is full.
const BYTES: usize = 512 << 10;

/// A walk that owns what it needs, so that it can outlive a request's handler.
pub struct Export {
    tasks: Tasks,
    project: ProjectId,
    filter: Filter,
    now: Timestamp,
}

/// Stored tasks that follow each other in a walk, newest first.
pub struct Chunk {
    project: ProjectId,
    filter: Arc<Filter>,
    tasks: Vec<Stored>,
}

impl Tasks {
    /// Every matching row of a project, newest first.
    pub fn export(&self, project: ProjectId, filter: Filter, now: Timestamp) -> Export {
        Export { tasks: self.clone(), project, filter, now }
    }
}

impl Export {
    /// Sends chunk after chunk, each page of it a fresh view of the store; ends after the last one, after an error,
    /// or when nobody listens any more.
    pub async fn run(self, out: mpsc::Sender<Result<Chunk>>) {
        let filter = Arc::new(self.filter);
        let mut walk = self.tasks.walk(self.project, filter.prepare(), None, usize::MAX, self.now).ahead();
        let mut rows_max = FIRST_ROWS;
        loop {
            let tasks = tokio::select! {
                tasks = next_tasks(&mut walk, rows_max) => tasks,
                () = out.closed() => return,
            };
            let chunk = tasks.map(|tasks| Chunk { project: self.project, filter: Arc::clone(&filter), tasks });
            let is_last = chunk.as_ref().map_or(true, Chunk::is_empty);
            let is_empty = chunk.as_ref().is_ok_and(Chunk::is_empty);
            if (!is_empty && out.send(chunk).await.is_err()) || is_last {
                return;
            }
            rows_max = ROWS;
        }
    }
}

/// None only at the end of the walk.
async fn next_tasks(walk: &mut Walk<'_>, rows_max: usize) -> Result<Vec<Stored>> {
    let (mut tasks, mut bytes) = (Vec::with_capacity(rows_max), 0);
    while tasks.len() < rows_max
        && bytes < BYTES
        && let Some((id, values)) = walk.next_candidate().await?
    {
        bytes += values.iter().map(Bytes::len).sum::<usize>();
        tasks.push((id, values));
    }
    Ok(tasks)
}

impl Chunk {
    /// Stored tasks, admitted or not.
    pub const fn len(&self) -> usize {
        self.tasks.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The rows that the filter admits, with the parts that are wanted. A search for words looks at what a row
    /// always has.
    pub fn rows(&self, parts: Parts) -> impl Iterator<Item = Result<TaskRow>> {
        let filter = self.filter.prepare();
        self.tasks.iter().filter_map(move |(id, values)| {
            let task = walk::admitted(&filter, *id, values).transpose()?;
            let row = task.map(|task| task.row_of(self.project, parts));
            row.map(|row| filter.admits(&row).then_some(row)).transpose()
        })
    }
}
