//! The task tables: where a task lies, its rows, trees and segments, and the plans that read them.
//!
//! ```text
//! key      keys of the six tables
//! keep     the recorder's side: locate, load, first sight, rewrite
//! mark     and what tasks are found by: marks, lists of open tasks
//! walk     tasks by id, newest first, as far as a filter admits them
//! rows     ... by reading all rows, over all partitions of a project
//! marked   ... by reading those that marks name
//! segments which partitions there are
//! read     list, count, detail, events, selection
//! export   the same walk in chunks, as long as it takes
//! tree     every task of one root
//! ```
//!
//! A task's row is written whole by its one writer; several writers may have had it, so readers unite rows of
//! equal id before they look at them. Hidden tasks are invisible in every read.

mod export;
mod keep;
mod key;
mod mark;
mod marked;
mod read;
mod rows;
mod segments;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use domain::id::ProjectId;
use domain::time::Timestamp;

pub use self::export::{Chunk, Export};
pub use self::keep::{Found, taken_by};
pub use self::read::{EventPage, TaskPage};
pub use self::tree::{TREE_NODES_MAX, Tree};
pub use self::walk::Walk;
use crate::store::Store;

/// The task tables of one store, as one writer sees them. A clone is cheap.
#[derive(Clone)]
pub struct Tasks {
    store: Arc<dyn Store>,
    writer: u64,
    retention_secs: i64,
}

impl Tasks {
    /// `writer` 0 says that there is no other: the embedded store. A cluster's writers are its recorder epochs.
    pub fn new(store: Arc<dyn Store>, writer: u64, retention_secs: i64) -> Self {
        Self { store, writer, retention_secs }
    }

    /// Whether nobody else writes rows of tasks.
    pub const fn is_alone(&self) -> bool {
        self.writer == 0
    }

    pub const fn retention_secs(&self) -> i64 {
        self.retention_secs
    }

    /// Whether the project has, or lately had, any task.
    pub async fn is_empty(&self, project: ProjectId, now: Timestamp) -> crate::store::Result<bool> {
        let filter = domain::task::Filter::default();
        Ok(self.walk(project, filter.prepare(), None, 1, now).next_row().await?.is_none())
    }
}
