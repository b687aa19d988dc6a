//! The rows that follow from entries: command, idem, chunk outcomes, open.
//!
//! Each is stamped with the seq of its entry, so an older home cannot overwrite a newer row, and writing one
//! again does nothing.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use domain::command::Command;
use domain::id::{CommandId, ProjectId};
use domain::ledger::{Change, KeyHolder};

use super::commands;
use super::open;
use crate::store::{Key, Result, Store, StoreError, Write};
use crate::table::Table;

/// How long an idempotency key is kept: seven days, of which the contract asks for one.
const KEY_SECONDS: NonZeroU32 = NonZeroU32::new(7 * 24 * 3600).expect("not zero");

/// Turns changes into writes; remembers which days it has marked, and what it could not write.
#[derive(Debug, Default)]
pub struct Projector {
    days: HashSet<u32>,
    owed: BTreeMap<Key, Write>,
}

impl Projector {
    /// Keeps writes for which there is no space, to be among those of the next changes.
    pub fn owe(&mut self, writes: Vec<Write>) {
        self.owed.extend(writes.into_iter().map(|write| (write.key.clone(), write)));
    }

    /// The writes of changes, each with the seq of its entry, and those that are owed. Of several to one row the
    /// last is kept.
    pub async fn writes(
        &mut self,
        store: &dyn Store,
        project: ProjectId,
        changes: &[(u64, Change)],
    ) -> Result<Vec<Write>> {
        let mut rows = std::mem::take(&mut self.owed);
        for (seq, change) in changes {
            let stamp = i64::try_from(*seq).unwrap_or(i64::MAX);
            let write = match change {
                Change::Command(command) => {
                    let day = commands::day_of(command.id);
                    if self.days.insert(day) {
                        let marker = commands::day_marker(project, day).stamped(stamp);
                        rows.insert(marker.key.clone(), marker);
                    }
                    commands::put(project, command)?.stamped(stamp)
                }
                Change::Late { command, status, result } => {
                    let pending = rows.get(&commands::key(project, *command)).cloned();
                    let Some(mut row) = latest(store, project, *command, pending).await? else { continue };
                    if row.late_status.is_some() || !row.status.is_terminal() {
                        continue;
                    }
                    row.late_status = Some(*status);
                    row.late_result.clone_from(result);
                    commands::put(project, &row)?.stamped(stamp)
                }
                Change::Key { key, holder } => {
                    Write::put(idem_key(project, key), holder_bytes(holder)).with_ttl(Some(KEY_SECONDS)).stamped(stamp)
                }
                Change::Chunk { command, chunk, ids } => {
                    commands::put_chunk_ids(project, *command, *chunk, ids)?.stamped(stamp)
                }
                Change::Busy(busy) => open::mark(project, *busy, stamp),
            };
            rows.insert(write.key.clone(), write);
        }
        Ok(rows.into_values().collect())
    }
}

/// The row of a command: as an earlier change of the same batch has it, or as it is stored.
async fn latest(
    store: &dyn Store,
    project: ProjectId,
    command: CommandId,
    pending: Option<Write>,
) -> Result<Option<Command>> {
    match pending.map(|write| write.op) {
        Some(crate::store::WriteOp::Put { value, .. }) => commands::read(&value).map(Some),
        Some(crate::store::WriteOp::Delete) | None => commands::get(store, project, command).await,
    }
}

fn idem_key(project: ProjectId, key: &str) -> Key {
    let mut partition = BytesMut::with_capacity(16 + key.len());
    partition.put_slice(&project.bytes());
    partition.put_slice(key.as_bytes());
    Key::new(Table::Idem, partition.freeze(), Bytes::new())
}

fn holder_bytes(holder: &KeyHolder) -> Bytes {
    let mut value = BytesMut::with_capacity(48);
    value.put_slice(&holder.command.bytes());
    value.put_slice(&holder.request_hash);
    value.freeze()
}

/// Whose an idempotency key is, as far as the projection knows.
pub async fn key_holder(store: &dyn Store, project: ProjectId, key: &str) -> Result<Option<KeyHolder>> {
    let Some(value) = store.get(&idem_key(project, key)).await? else { return Ok(None) };
    let corrupt = || StoreError::Corrupt { what: "idempotency key" };
    let (command, hash) = value.split_at_checked(16).ok_or_else(corrupt)?;
    Ok(Some(KeyHolder {
        command: CommandId::from_bytes(command.try_into().map_err(|_| corrupt())?),
        request_hash: hash.try_into().map_err(|_| corrupt())?,
    }))
}
