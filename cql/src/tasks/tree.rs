//! Every task of one root, the first 500 by time (contract D11, M52 to M57).

use std::collections::HashSet;
use std::ops::Bound;

use bytes::Bytes;
use domain::engine::Engine;
use domain::id::ProjectId;
use domain::id::address::{TaskId, TaskKey};
use domain::task::{Parts, TaskRow};
use futures_util::future::try_join_all;

use super::{Tasks, key};
use crate::store::{Order, Range, Result, StoreError};
use crate::table::Table;

/// Nodes of a tree that are shown.
pub const TREE_NODES_MAX: usize = 500;
/// Rows read at once.
const READS_MAX: usize = 32;
/// Rows that one thread reads and derives; half of a large tree on a machine of two cores.
const SHARE: usize = 128;

/// What of a row costs something to derive and is in a tree.
const SHOWN: Parts = Parts::RELATIVES;

/// A tree, in the order of `received_at`, then id.
#[derive(Clone, Debug)]
pub struct Tree {
    pub root_task_id: String,
    /// Whether there are more tasks than are shown.
    pub truncated: bool,
    /// Without arguments, result, exception, eta and tags: no node shows them.
    pub nodes: Vec<TaskRow>,
}

impl Tasks {
    /// The tree that a task belongs to; `None` when the task is unknown.
    pub async fn tree(&self, project: ProjectId, engine: Engine, task_id: &str) -> Result<Option<Tree>> {
        let Some(task) = self.get(project, engine, task_id).await? else { return Ok(None) };
        let asked = task.row_of(project, SHOWN);
        let root = asked.root_task_id.clone().unwrap_or_else(|| asked.task_id.clone());
        let mut nodes = self.roots(project, &root).await?;
        // Rows of trees follow those of tasks; whoever asks is a member whatever has been written of it.
        if !nodes.iter().any(|node| node.id == asked.id) {
            nodes.push(asked);
        }
        self.members(project, &root, &mut nodes).await?;
        nodes.sort_by_key(|node| node.id);
        let truncated = nodes.len() > TREE_NODES_MAX;
        nodes.truncate(TREE_NODES_MAX);
        Ok(Some(Tree { root_task_id: root, truncated, nodes }))
    }

    /// The tasks that are the root, one for each engine that has one.
    async fn roots(&self, project: ProjectId, root: &str) -> Result<Vec<TaskRow>> {
        let at = try_join_all(Engine::ALL.map(|engine| self.locate(project, TaskKey::new(engine, root)))).await?;
        let ids: Vec<TaskId> = at.into_iter().flatten().collect();
        self.visible(project, root, &ids).await
    }

    /// Members in time order, until more than a tree shows are found.
    async fn members(&self, project: ProjectId, root: &str, nodes: &mut Vec<TaskRow>) -> Result<()> {
        let mut range = Range {
            table: Table::TaskRoot,
            partition: key::root_partition(project, root),
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
            order: Order::Ascending,
            limit: TREE_NODES_MAX + 1,
        };
        let mut known: HashSet<TaskId> = nodes.iter().map(|node| node.id).collect();
        let mut found = 0;
        loop {
            let page = self.store.scan(range.clone()).await?;
            let ids = page.iter().map(|row| member_id(&row.clustering)).collect::<Result<Vec<TaskId>>>()?;
            for row in self.members_of(project, root, &ids).await? {
                found += 1;
                if known.insert(row.id) {
                    nodes.push(row);
                }
            }
            match page.last() {
                Some(last) if page.len() >= range.limit && found <= TREE_NODES_MAX => {
                    range = range.after(&last.clustering);
                }
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// The visible ones of a page of members; large ones are read on all cores.
    async fn members_of(&self, project: ProjectId, root: &str, ids: &[TaskId]) -> Result<Vec<TaskRow>> {
        let (here, elsewhere) = ids.split_at(ids.len().min(SHARE));
        let spawn = |share: &[TaskId]| {
            let (tasks, root, share) = (self.clone(), root.to_owned(), share.to_vec());
            tokio::spawn(async move { tasks.share_of(project, &root, &share).await })
        };
        let shares: Vec<_> = elsewhere.chunks(SHARE).map(spawn).collect();
        let mut rows = self.share_of(project, root, here).await?;
        for share in shares {
            rows.extend(share.await.map_err(|error| StoreError::Unavailable(Box::new(error)))??);
        }
        Ok(rows)
    }

    async fn share_of(&self, project: ProjectId, root: &str, ids: &[TaskId]) -> Result<Vec<TaskRow>> {
        let mut rows = Vec::with_capacity(ids.len());
        for some in ids.chunks(READS_MAX) {
            rows.extend(self.visible(project, root, some).await?);
        }
        Ok(rows)
    }

    async fn visible(&self, project: ProjectId, root: &str, ids: &[TaskId]) -> Result<Vec<TaskRow>> {
        let tasks = try_join_all(ids.iter().map(|id| self.get_by_id(project, *id))).await?;
        let rows = tasks.into_iter().flatten().map(|task| task.row_of(project, SHOWN));
        // A root that was heard later can replace the one a row was filed under.
        let belongs = |row: &TaskRow| row.task_id == root || row.root_task_id.as_deref() == Some(root);
        Ok(rows.filter(belongs).collect())
    }
}

fn member_id(clustering: &Bytes) -> Result<TaskId> {
    let bytes = clustering.as_ref().try_into().map_err(|_| StoreError::Corrupt { what: "task_root key" })?;
    Ok(TaskId::from_bytes(bytes))
}
