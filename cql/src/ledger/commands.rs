//! Commands: list, detail, and the frozen ids of bulk commands.
//!
//! A command's id is its issue time, so the list is in id order and a command's day follows from its id. The
//! days that have commands stand in a partition of their own, under a day that never comes.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use domain::command::chunk::{self, ChunkIds};
use domain::command::{Chunk, Command, Status};
use domain::id::{CommandId, ProjectId};

use crate::store::{Key, Order, Range, Result, Store, StoreError, Write};
use crate::table::Table;

const VERSION: u8 = 1;
const DAY_SECS: i64 = 86_400;

/// The partition that lists days.
const DAYS: u32 = u32::MAX;

/// Chunk numbers with this bit are outcomes, those without it frozen ids.
const OUTCOME: u32 = 1 << 31;

const CORRUPT: StoreError = StoreError::Corrupt { what: "command" };

/// Commands newest first, and after which one to go on.
#[derive(Debug)]
pub struct CommandPage {
    pub items: Vec<Command>,
    pub next: Option<CommandId>,
}

/// A page of commands below `after`, newest first. `next` is set only if another page has something.
pub async fn list(
    store: &dyn Store,
    project: ProjectId,
    status: Option<Status>,
    after: Option<CommandId>,
    limit: usize,
) -> Result<CommandPage> {
    let mut items: Vec<Command> = Vec::new();
    let mut days = Range { order: Order::Descending, ..Range::all(Table::Command, partition(project, DAYS), 100) };
    if let Some(after) = after {
        days.upper = Bound::Included(Bytes::copy_from_slice(&day_of(after).to_be_bytes()));
    }
    loop {
        let page = store.scan(days.clone()).await?;
        for row in &page {
            let day = u32::from_be_bytes(row.clustering.as_ref().try_into().map_err(|_| CORRUPT)?);
            list_day(store, project, day, status, after, limit + 1, &mut items).await?;
            if items.len() > limit {
                items.truncate(limit);
                let next = items.last().map(|command| command.id);
                return Ok(CommandPage { items, next });
            }
        }
        match page.last() {
            Some(last) if page.len() == days.limit => days = days.after(&last.clustering),
            Some(_) | None => return Ok(CommandPage { items, next: None }),
        }
    }
}

async fn list_day(
    store: &dyn Store,
    project: ProjectId,
    day: u32,
    status: Option<Status>,
    after: Option<CommandId>,
    wanted: usize,
    items: &mut Vec<Command>,
) -> Result<()> {
    let mut range = Range { order: Order::Descending, ..Range::all(Table::Command, partition(project, day), 500) };
    if let Some(after) = after {
        range.upper = Bound::Excluded(Bytes::copy_from_slice(&after.bytes()));
    }
    while items.len() < wanted {
        range.limit = if status.is_some() { 500 } else { (wanted - items.len()).min(500) };
        let page = store.scan(range.clone()).await?;
        for row in &page {
            if items.len() < wanted && status.is_none_or(|status| row.value.get(1) == Some(&tag(status))) {
                items.push(read(&row.value)?);
            }
        }
        match page.last() {
            Some(last) if page.len() == range.limit => range = range.after(&last.clustering),
            Some(_) | None => return Ok(()),
        }
    }
    Ok(())
}

/// One command of the project.
pub async fn get(store: &dyn Store, project: ProjectId, command: CommandId) -> Result<Option<Command>> {
    store.get(&key(project, command)).await?.map(|value| read(&value)).transpose()
}

/// How far a command is, without reading the rest of its row.
pub async fn status(store: &dyn Store, project: ProjectId, command: CommandId) -> Result<Option<Status>> {
    let Some(value) = store.get(&key(project, command)).await? else { return Ok(None) };
    let [VERSION, said, ..] = value[..] else { return Err(CORRUPT) };
    Status::ALL.into_iter().find(|status| tag(*status) == said).map(Some).ok_or(CORRUPT)
}

/// One command with everything there is to say of it: the result of a bulk command that has ended lists its ids.
pub async fn detail(store: &dyn Store, project: ProjectId, id: CommandId) -> Result<Option<Command>> {
    let Some(mut command) = get(store, project, id).await? else { return Ok(None) };
    let Some(chunks) = command.chunks.filter(|_| command.status.is_terminal()) else { return Ok(Some(command)) };
    let answered: BTreeMap<u32, ChunkIds> = chunk_ids(store, project, id).await?.into_iter().collect();
    let mut unanswered = Vec::new();
    for n in (0..chunks).filter(|n| !answered.contains_key(n)) {
        unanswered.extend(frozen(store, project, id, n).await?);
    }
    let answered: Vec<ChunkIds> = answered.into_values().collect();
    command.result = Some(chunk::result_with_ids(command.result.as_deref(), &answered, &unanswered));
    Ok(Some(command))
}

/// What became of each id of a bulk command, chunk by chunk, as far as it is known.
pub async fn chunk_ids(store: &dyn Store, project: ProjectId, command: CommandId) -> Result<Vec<(u32, ChunkIds)>> {
    let all = Range {
        lower: Bound::Included(Bytes::copy_from_slice(&OUTCOME.to_be_bytes())),
        ..Range::all(Table::CommandChunk, chunk_partition(project, command), 1000)
    };
    let rows = store.scan(all).await?;
    rows.iter()
        .map(|row| {
            let n = u32::from_be_bytes(row.clustering.as_ref().try_into().map_err(|_| CORRUPT)?);
            Ok((n & !OUTCOME, rmp_serde::from_slice(&row.value).map_err(|_| CORRUPT)?))
        })
        .collect()
}

/// Makes the frozen ids of a bulk command durable, before its entry is.
pub async fn freeze(store: &dyn Store, project: ProjectId, command: CommandId, chunks: &[Chunk]) -> Result<()> {
    let partition = chunk_partition(project, command);
    let mut writes = Vec::with_capacity(chunks.len());
    for (n, chunk) in (0_u32..).zip(chunks) {
        let value = rmp_serde::to_vec_named(chunk).map_err(|_| CORRUPT)?;
        let key = Key::new(Table::CommandChunk, partition.clone(), Bytes::copy_from_slice(&n.to_be_bytes()));
        writes.push(Write::put(key, value));
    }
    store.write(writes).await
}

/// Takes the frozen ids of a bulk command back that was not issued after all.
pub async fn thaw(store: &dyn Store, project: ProjectId, command: CommandId, chunks: u32) -> Result<()> {
    let partition = chunk_partition(project, command);
    let key = |n: u32| Key::new(Table::CommandChunk, partition.clone(), Bytes::copy_from_slice(&n.to_be_bytes()));
    store.write((0..chunks).map(|n| Write::delete(key(n))).collect()).await
}

/// The frozen ids of one chunk.
pub async fn frozen(store: &dyn Store, project: ProjectId, command: CommandId, n: u32) -> Result<Option<Chunk>> {
    let clustering = Bytes::copy_from_slice(&n.to_be_bytes());
    let key = Key::new(Table::CommandChunk, chunk_partition(project, command), clustering);
    let value = store.get(&key).await?;
    value.map(|value| rmp_serde::from_slice(&value).map_err(|_| CORRUPT)).transpose()
}

pub(super) fn put_chunk_ids(project: ProjectId, command: CommandId, n: u32, ids: &ChunkIds) -> Result<Write> {
    let clustering = Bytes::copy_from_slice(&(n | OUTCOME).to_be_bytes());
    let key = Key::new(Table::CommandChunk, chunk_partition(project, command), clustering);
    Ok(Write::put(key, rmp_serde::to_vec_named(ids).map_err(|_| CORRUPT)?))
}

pub(super) fn put(project: ProjectId, command: &Command) -> Result<Write> {
    // The status stands in front, so that a filtered list need not read the rest.
    let mut value = vec![VERSION, tag(command.status)];
    rmp_serde::encode::write_named(&mut value, command).map_err(|_| CORRUPT)?;
    Ok(Write::put(key(project, command.id), value))
}

pub(super) fn read(value: &[u8]) -> Result<Command> {
    match value {
        [VERSION, _, body @ ..] => rmp_serde::from_slice(body).map_err(|_| CORRUPT),
        _ => Err(CORRUPT),
    }
}

const fn tag(status: Status) -> u8 {
    match status {
        Status::Issued => 0,
        Status::Dispatched => 1,
        Status::Succeeded => 2,
        Status::Failed => 3,
        Status::TimedOut => 4,
    }
}

pub(super) fn day_of(command: CommandId) -> u32 {
    u32::try_from(command.issued_at().micros().div_euclid(DAY_SECS * 1_000_000)).unwrap_or(0)
}

pub(super) fn day_marker(project: ProjectId, day: u32) -> Write {
    let clustering = Bytes::copy_from_slice(&day.to_be_bytes());
    Write::put(Key::new(Table::Command, partition(project, DAYS), clustering), Bytes::from_static(&[VERSION]))
}

pub(super) fn key(project: ProjectId, command: CommandId) -> Key {
    Key::new(Table::Command, partition(project, day_of(command)), Bytes::copy_from_slice(&command.bytes()))
}

fn partition(project: ProjectId, day: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(20);
    key.put_slice(&project.bytes());
    key.put_u32(day);
    key.freeze()
}

fn chunk_partition(project: ProjectId, command: CommandId) -> Bytes {
    let mut key = BytesMut::with_capacity(32);
    key.put_slice(&project.bytes());
    key.put_slice(&command.bytes());
    key.freeze()
}
