//! The append, which is the only guarded write of a ledger, and reading entries back.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use domain::id::ProjectId;
use domain::ledger::Sealed;

use super::CHUNK_ENTRIES;
use crate::store::{Commit, Committed, Expect, Guard, Order, Range, Result, Row, Store, StoreError, Write, WriteOp};
use crate::table::Table;

const HASHES: usize = 64;

/// Proof that entries are durable: only an append that is done makes one, so nothing can be dispatched before
/// its entry.
#[derive(Clone, Debug)]
pub struct Receipt {
    first: u64,
    last: u64,
}

impl Receipt {
    pub const fn covers(&self, seq: u64) -> bool {
        self.first <= seq && seq <= self.last
    }
}

/// What became of an append.
#[derive(Debug)]
pub enum Appended {
    Done(Receipt),
    /// Another home appended there first: read on, decide again.
    Lost,
    /// Nobody can say: forget what is in memory and read the truth.
    Unknown,
}

/// Appends entries at exactly their seqs, and writes what follows from them.
///
/// An append that crosses a chunk is done in two; if only the first half succeeds the answer is
/// [`Appended::Unknown`].
pub async fn append(store: &dyn Store, project: ProjectId, entries: &[Sealed], follow: Vec<Write>) -> Result<Appended> {
    append_after(None, store, project, entries, follow).await
}

/// [`append`], and `before` is what must not be missing once the entries are there: it is written first where a crash
/// could part them from what follows.
pub async fn append_after(
    before: Option<Write>,
    store: &dyn Store,
    project: ProjectId,
    entries: &[Sealed],
    follow: Vec<Write>,
) -> Result<Appended> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Err(StoreError::Corrupt { what: "empty append" });
    };
    let receipt = Receipt { first: first.seq, last: last.seq };
    let split = entries.partition_point(|entry| chunk_of(entry.seq) == chunk_of(first.seq));
    let (head, rest) = entries.split_at(split);
    if let Some(before) = before.filter(|_| !(store.is_atomic() && rest.is_empty())) {
        store.write(vec![before]).await?;
    }
    if rest.is_empty() {
        return Ok(match append_chunk(store, project, head, follow).await? {
            Outcome::Done => Appended::Done(receipt),
            Outcome::Lost => Appended::Lost,
            Outcome::Unknown => Appended::Unknown,
        });
    }
    match append_chunk(store, project, head, Vec::new()).await? {
        Outcome::Done => {}
        Outcome::Lost => return Ok(Appended::Lost),
        Outcome::Unknown => return Ok(Appended::Unknown),
    }
    match append_chunk(store, project, rest, follow).await {
        Ok(Outcome::Done) => Ok(Appended::Done(receipt)),
        Ok(Outcome::Lost | Outcome::Unknown) | Err(_) => Ok(Appended::Unknown),
    }
}

enum Outcome {
    Done,
    Lost,
    Unknown,
}

async fn append_chunk(
    store: &dyn Store,
    project: ProjectId,
    entries: &[Sealed],
    follow: Vec<Write>,
) -> Result<Outcome> {
    let rows: Vec<Row> = entries.iter().map(to_row).collect();
    let commit = Commit {
        table: Table::Ledger,
        partition: partition(project, chunk_of(entries[0].seq)),
        guards: rows.iter().map(|row| Guard { clustering: row.clustering.clone(), expect: Expect::Absent }).collect(),
        writes: rows
            .iter()
            .map(|row| (row.clustering.clone(), WriteOp::Put { value: row.value.clone(), ttl: None }))
            .collect(),
        follow: follow.clone(),
    };
    Ok(match store.commit_one(commit).await? {
        Committed::Done => Outcome::Done,
        // An earlier try of this very append was done after all; what follows it may be missing.
        Committed::Lost(found) if found == rows => {
            store.write(follow).await?;
            Outcome::Done
        }
        Committed::Lost(_) => Outcome::Lost,
        Committed::Unknown => Outcome::Unknown,
    })
}

/// Up to `limit` entries from `seq` on, in order. Fewer: the ledger ends there.
pub async fn tail(store: &dyn Store, project: ProjectId, seq: u64, limit: usize) -> Result<Vec<Sealed>> {
    let mut entries: Vec<Sealed> = Vec::new();
    let mut next = seq;
    while entries.len() < limit {
        let page = Range {
            lower: Bound::Included(clustering(next)),
            ..Range::all(Table::Ledger, partition(project, chunk_of(next)), limit - entries.len())
        };
        let rows = store.scan(page).await?;
        let Some(last) = rows.last() else { break };
        next = seq_of(&last.clustering)? + 1;
        for row in &rows {
            entries.push(from_row(row)?);
        }
        // A partition that is not full ends the ledger; the next one starts where a full one ends.
        if entries.len() < limit && !next.is_multiple_of(CHUNK_ENTRIES) {
            break;
        }
    }
    Ok(entries)
}

/// Up to `limit` entries below `seq`, newest first.
pub async fn before(store: &dyn Store, project: ProjectId, seq: u64, limit: usize) -> Result<Vec<Sealed>> {
    let mut entries = Vec::new();
    let mut upper = seq;
    while entries.len() < limit && upper > 1 {
        let page = Range {
            upper: Bound::Excluded(clustering(upper)),
            order: Order::Descending,
            ..Range::all(Table::Ledger, partition(project, chunk_of(upper - 1)), limit - entries.len())
        };
        for row in store.scan(page).await? {
            entries.push(from_row(&row)?);
        }
        upper = chunk_of(upper - 1) * CHUNK_ENTRIES;
    }
    Ok(entries)
}

/// The last entry, searched from `hint` on: any seq that is known to exist, or zero.
pub async fn last(store: &dyn Store, project: ProjectId, hint: u64) -> Result<Option<Sealed>> {
    let mut chunk = chunk_of(hint);
    let mut found = None;
    loop {
        let page = Range { order: Order::Descending, ..Range::all(Table::Ledger, partition(project, chunk), 1) };
        let rows = store.scan(page).await?;
        let Some(row) = rows.first() else { return Ok(found) };
        let entry = from_row(row)?;
        let full = (entry.seq + 1).is_multiple_of(CHUNK_ENTRIES);
        found = Some(entry);
        if !full {
            return Ok(found);
        }
        chunk += 1;
    }
}

pub(super) const fn chunk_of(seq: u64) -> u64 {
    seq / CHUNK_ENTRIES
}

pub(super) fn partition(project: ProjectId, chunk: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(24);
    key.put_slice(&project.bytes());
    key.put_u64(chunk);
    key.freeze()
}

pub(super) fn clustering(seq: u64) -> Bytes {
    Bytes::copy_from_slice(&seq.to_be_bytes())
}

fn seq_of(clustering: &Bytes) -> Result<u64> {
    let bytes = clustering.as_ref().try_into().map_err(|_| StoreError::Corrupt { what: "ledger key" })?;
    Ok(u64::from_be_bytes(bytes))
}

/// A row's value: hash, MAC, entry.
fn to_row(entry: &Sealed) -> Row {
    let mut value = BytesMut::with_capacity(HASHES + entry.bytes.len());
    value.put_slice(&entry.hash);
    value.put_slice(&entry.mac);
    value.put_slice(&entry.bytes);
    Row { clustering: clustering(entry.seq), value: value.freeze() }
}

/// Reads a row as it stands, even one that is too short. Whether it is the right one, the chain says.
fn from_row(row: &Row) -> Result<Sealed> {
    let seq = seq_of(&row.clustering)?;
    let (hashes, bytes) = row.value.split_at_checked(HASHES).unwrap_or((&[0; HASHES], &row.value));
    let (hash, mac) = hashes.split_at(32);
    let corrupt = || StoreError::Corrupt { what: "ledger entry" };
    Ok(Sealed {
        seq,
        bytes: bytes.to_vec(),
        hash: hash.try_into().map_err(|_| corrupt())?,
        mac: mac.try_into().map_err(|_| corrupt())?,
    })
}
