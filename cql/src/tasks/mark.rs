//! The recorder's side of what tasks are found by: marks, and lists of open tasks.
//!
//! - A mark row holds the ids of tasks whose rows got what the mark says in one round of one recorder. It is written
//!   once, before or together with the rows, and never changed: ids whose rows have changed since are passed over.
//! - A list holds the ids of tasks that a recorder saw get into an open state, as long as they are in it. It is short, for
//!   it is written whole whenever it changes: tasks that stay are filed, a mark each, removed when they leave the state.
//! - `since` says from which id on a project's tasks are marked: what was stored before is found by walking.
//!
//! ```text
//! mark row    0x01 | ids (16 each)
//! list        0x01 | ids (16 each), and so were slots
//! lister      0x01 slots, 0x02 lists by state
//! since       0x01 | id (16) | retention in seconds (8)
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use domain::id::address::{Bucket, TaskId};
use domain::id::{EventId, ProjectId};
use domain::task::{Filter, Mark, State};
use domain::time::Timestamp;
use futures_util::future::try_join;

use super::Tasks;
use super::key::{self, Zone};
use crate::record;
use crate::store::{Result, StoreError, Ttl, Write};
use crate::table::Table;

const FORMAT: u8 = 0x01;
/// A recorder that lists its open tasks by state.
const BY_STATE: &[u8] = &[0x02];
/// The states of open tasks.
const OPEN: [State; 3] = [State::Received, State::Started, State::Retried];
/// Marks outlive the rows they name.
const GRACE_SECS: i64 = 3_600;

/// From which id on a project's tasks are marked, by rows that were kept for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) id: TaskId,
    retention_secs: i64,
}

impl Since {
    fn encode(self) -> Bytes {
        let mut value = BytesMut::with_capacity(25);
        value.put_u8(FORMAT);
        value.put_slice(&self.id.bytes());
        value.put_i64(self.retention_secs);
        value.freeze()
    }

    fn decode(value: &[u8]) -> Result<Self> {
        let corrupt = StoreError::Corrupt { what: "task marks" };
        let Some((&FORMAT, rest)) = value.split_first() else { return Err(corrupt) };
        match (rest.len(), rest.first_chunk(), rest.last_chunk()) {
            (24, Some(id), Some(retention)) => {
                Ok(Self { id: TaskId::from_bytes(*id), retention_secs: i64::from_be_bytes(*retention) })
            }
            _ => Err(corrupt),
        }
    }
}

impl Tasks {
    /// Marks tasks: to be durable before their rows are, or together with them.
    pub fn mark(&self, project: ProjectId, mark: Mark, ids: &[TaskId], now: Timestamp) -> Vec<Write> {
        let mut zones: BTreeMap<(Bucket, Zone), Vec<TaskId>> = BTreeMap::new();
        for id in ids {
            zones.entry((id.bucket(), Zone::of(*id))).or_default().push(*id);
        }
        let put = |((bucket, zone), ids): ((Bucket, Zone), Vec<TaskId>)| {
            let newest = ids.iter().max()?;
            // Without a row left to find there is nothing to mark.
            let ttl = self.ttl(*newest, GRACE_SECS, now)?;
            let key = key::mark(project, bucket, mark, zone, EventId::mint(now));
            Some(Write::put(key, encode_ids(ids.iter())).with_ttl(Some(ttl)))
        };
        zones.into_iter().filter_map(put).collect()
    }

    /// Files a task that stays in an open state: to be durable before it is taken off the list. `None`: nobody can read
    /// it any more.
    pub fn file(&self, project: ProjectId, state: State, id: TaskId, now: Timestamp) -> Option<Write> {
        let ttl = self.ttl(id, GRACE_SECS, now)?;
        Some(Write::put(key::filed(project, state, id), encode_ids([id].iter())).with_ttl(Some(ttl)))
    }

    /// The reverse, once the row of the task says that it has left the state.
    pub fn take_out(&self, project: ProjectId, state: State, id: TaskId) -> Write {
        Write::delete(key::filed(project, state, id))
    }

    /// What a recorder must write with the first rows that it marks: which ids are marked from now on, unless that
    /// is known, and that it has lists.
    pub async fn begin_marks(&self, project: ProjectId, recorder: u16, now: Timestamp) -> Result<Vec<Write>> {
        // In this order: who sees another's first rows sees what it wrote with them, too.
        let newest = self.newest(project, now).await?;
        let since = self.marked_since(project).await?;
        let mut writes = Vec::new();
        // Marks end by the retention of their time: with a longer one, rows written again outlive them.
        let id = match since {
            Some(since) if since.retention_secs >= self.retention_secs => since.id,
            Some(_) | None => newest.map_or(TaskId::MIN, TaskId::next),
        };
        let begun = Since { id, retention_secs: self.retention_secs };
        if since != Some(begun) {
            writes.push(Write::put(key::marked_since(project), begun.encode()));
        }
        if self.is_alone() {
            let lister = key::lister(project, recorder, self.writer);
            let known = self.store.get(&lister).await?;
            if known.as_deref() != Some(BY_STATE) {
                writes.push(Write::put(lister, BY_STATE));
            }
            if known.is_some_and(|known| known != BY_STATE) {
                // Which state each is in is not known here: the row of whoever is found says it.
                let open = self.open_in_slots(project, recorder).await?;
                writes.extend(OPEN.iter().flat_map(|state| self.mark(project, Mark::State(*state), &open, now)));
                writes.extend(key::slots(project, recorder, self.writer).map(Write::delete));
            }
        }
        Ok(writes)
    }

    /// The open tasks that an earlier version listed.
    async fn open_in_slots(&self, project: ProjectId, recorder: u16) -> Result<Vec<TaskId>> {
        let mut open = Vec::new();
        for slot in key::slots(project, recorder, self.writer) {
            open.extend(self.store.get(&slot).await?.map_or(Ok(Vec::new()), |value| decode_ids(&value))?);
        }
        Ok(open)
    }

    /// All that is listed, by whomever: at least the tasks in this state that are not filed.
    pub(super) async fn all_listed(&self, project: ProjectId, state: State, now: Timestamp) -> Result<Vec<TaskId>> {
        let (store, partition) = (&*self.store, key::open_partition(project));
        let between = |first: &[u8], last: &[u8]| {
            let (first, last) = (first.to_vec(), last.to_vec());
            let partition = partition.clone();
            async move { record::rows_between(store, Table::TaskOpen, partition, &first, &last).await }
        };
        let mut open = Vec::new();
        if self.is_alone() {
            // Lists are written so often that a scan would step over thousands of their former values.
            for lister in between(key::LISTERS.0, key::LISTERS.1).await? {
                let (recorder, _) = key::lister_of(&lister.clustering)?;
                if lister.value != BY_STATE {
                    open.extend(self.open_in_slots(project, recorder).await?);
                }
                open.extend(self.listed(project, state, recorder, now).await?);
            }
        } else {
            let (first, last) = key::all_listed(state);
            let (slots, lists) = try_join(between(key::SLOTS.0, key::SLOTS.1), between(&first, &last)).await?;
            for row in slots.iter().chain(&lists) {
                open.extend(decode_ids(&row.value)?);
            }
        }
        Ok(open)
    }

    pub(super) async fn marked_since(&self, project: ProjectId) -> Result<Option<Since>> {
        let value = self.store.get(&key::marked_since(project)).await?;
        value.map(|value| Since::decode(&value)).transpose()
    }

    /// The tasks that a recorder listed in a state, without those that nobody can read any more.
    pub async fn listed(&self, project: ProjectId, state: State, recorder: u16, now: Timestamp) -> Result<Vec<TaskId>> {
        let value = self.store.get(&key::listed(project, state, recorder, self.writer)).await?;
        let mut ids = value.map_or(Ok(Vec::new()), |value| decode_ids(&value))?;
        ids.retain(|id| self.ttl(*id, 0, now).is_some());
        Ok(ids)
    }

    /// Lists a recorder's tasks of a state.
    pub fn list_open<'a>(
        &self,
        project: ProjectId,
        state: State,
        recorder: u16,
        ids: impl Iterator<Item = &'a TaskId>,
    ) -> Write {
        let ttl: Option<Ttl> = u32::try_from(self.retention_secs + GRACE_SECS).ok().and_then(NonZeroU32::new);
        Write::put(key::listed(project, state, recorder, self.writer), encode_ids(ids)).with_ttl(ttl)
    }

    /// The newest task there is, hidden or not.
    async fn newest(&self, project: ProjectId, now: Timestamp) -> Result<Option<TaskId>> {
        let filter = Filter::default();
        self.walk(project, filter.prepare(), None, 1, now).next_stored().await
    }
}

fn encode_ids<'a>(ids: impl Iterator<Item = &'a TaskId>) -> Bytes {
    let mut value = BytesMut::with_capacity(1 + 16 * ids.size_hint().0);
    value.put_u8(FORMAT);
    for id in ids {
        value.put_slice(&id.bytes());
    }
    value.freeze()
}

pub(super) fn decode_ids(value: &[u8]) -> Result<Vec<TaskId>> {
    let corrupt = || StoreError::Corrupt { what: "marked tasks" };
    let Some((&FORMAT, rest)) = value.split_first() else { return Err(corrupt()) };
    let (ids, []) = rest.as_chunks::<16>() else { return Err(corrupt()) };
    Ok(ids.iter().map(|id| TaskId::from_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_for_ever() {
        let id = |byte| TaskId::from_bytes([byte; 16]);
        let since = Since { id: id(7), retention_secs: 0x0102 };
        assert_eq!(hex::encode(since.encode()), "01070707070707070707070707070707070000000000000102");
        assert_eq!(Since::decode(&since.encode()).unwrap(), since);
        let ids = [id(2), id(1)];
        let value = encode_ids(ids.iter());
        assert_eq!(hex::encode(&value), "010202020202020202020202020202020201010101010101010101010101010101");
        assert_eq!(decode_ids(&value).unwrap(), ids);
        assert_eq!(decode_ids(&[FORMAT]).unwrap(), []);
        assert!(decode_ids(&value[..20]).is_err() && decode_ids(&[]).is_err() && Since::decode(&[1; 9]).is_err());
    }
}
