//! The store seam: four operations that every engine answers alike (DESIGN section 9).
//!
//! - [`Store::get`] and [`Store::scan`] read one row, or one page of one partition in either direction.
//! - [`Store::write`] makes idempotent puts and deletes durable, in no particular order.
//! - [`Store::commit`] is the only guarded write: guards and writes of one [`Commit`] name one partition
//!   and happen together or not at all; `follow` is written after a commit that is done (embedded: in the
//!   same atomic batch).
//!
//! A caller that gets [`Committed::Unknown`] knows nothing: it must read the truth before it goes on.

use std::num::NonZeroU32;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;

use crate::table::Table;

/// The address of one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub table: Table,
    pub partition: Bytes,
    pub clustering: Bytes,
}

impl Key {
    pub fn new(table: Table, partition: impl Into<Bytes>, clustering: impl Into<Bytes>) -> Self {
        Self { table, partition: partition.into(), clustering: clustering.into() }
    }
}

/// One row of a known partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub clustering: Bytes,
    pub value: Bytes,
}

/// Direction of a scan, by the bytes of the clustering key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// One page of one partition.
#[derive(Clone, Debug)]
pub struct Range {
    pub table: Table,
    pub partition: Bytes,
    /// Lower and upper bound by clustering bytes, whatever the order.
    pub lower: Bound<Bytes>,
    pub upper: Bound<Bytes>,
    pub order: Order,
    /// At most this many rows; a shorter page is the last one.
    pub limit: usize,
}

impl Range {
    /// The whole partition, ascending.
    pub fn all(table: Table, partition: impl Into<Bytes>, limit: usize) -> Self {
        Self {
            table,
            partition: partition.into(),
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
            order: Order::Ascending,
            limit,
        }
    }

    /// Whether no clustering key can lie between the bounds: then a scan answers no rows, it is not an error.
    pub fn is_empty(&self) -> bool {
        match (&self.lower, &self.upper) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
                lower >= upper
            }
        }
    }

    /// The rest of this range after the last row of a page.
    pub fn after(mut self, last: &Bytes) -> Self {
        match self.order {
            Order::Ascending => self.lower = Bound::Excluded(last.clone()),
            Order::Descending => self.upper = Bound::Excluded(last.clone()),
        }
        self
    }
}

/// Seconds a row lives. Never zero: on CQL zero means for ever.
pub type Ttl = NonZeroU32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// Puts the whole value. With a `ttl` the row is gone for every reader when it has passed, on every engine;
    /// without one it stays.
    Put {
        value: Bytes,
        ttl: Option<Ttl>,
    },
    Delete,
}

/// One idempotent write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub op: WriteOp,
    /// Where several homes may write one row, the larger stamp wins, in whatever order the writes arrive; of
    /// equal stamps a delete wins, then the greater value. `None` is the time of writing. A row is written
    /// either always with stamps or never, and rows of conditional tables never.
    pub stamp: Option<i64>,
}

impl Write {
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, op: WriteOp::Put { value: value.into(), ttl: None }, stamp: None }
    }

    pub fn delete(key: Key) -> Self {
        Self { key, op: WriteOp::Delete, stamp: None }
    }

    /// Whether every engine can run this write: a conditional table has only conditional ones.
    pub fn is_portable(&self) -> bool {
        !self.key.table.is_conditional()
    }

    pub fn stamped(mut self, stamp: i64) -> Self {
        self.stamp = Some(stamp);
        self
    }

    pub fn with_ttl(mut self, seconds: Option<Ttl>) -> Self {
        if let WriteOp::Put { ttl, .. } = &mut self.op {
            *ttl = seconds;
        }
        self
    }
}

/// What a guarded row must be for the commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Value(Bytes),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub clustering: Bytes,
    pub expect: Expect,
}

/// Guards and writes of one partition, and what follows once they are done.
#[derive(Clone, Debug)]
pub struct Commit {
    pub table: Table,
    pub partition: Bytes,
    /// Without a guard, on a table that is not conditional, the commit is an unconditional write.
    pub guards: Vec<Guard>,
    /// (clustering, op), each row once. A guarded row must also be written, one that must be absent by a put.
    pub writes: Vec<(Bytes, WriteOp)>,
    /// Written after the commit is done; may lag behind it, so it must be rebuildable from the writes.
    pub follow: Vec<Write>,
}

impl Commit {
    /// Inserts one row where there is none.
    pub fn insert(key: Key, value: impl Into<Bytes>) -> Self {
        let clustering = key.clustering.clone();
        Self {
            table: key.table,
            partition: key.partition,
            guards: vec![Guard { clustering: clustering.clone(), expect: Expect::Absent }],
            writes: vec![(clustering, WriteOp::Put { value: value.into(), ttl: None })],
            follow: Vec::new(),
        }
    }

    /// Replaces one row that still holds `from`.
    pub fn replace(key: Key, from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        let mut commit = Self::insert(key, to);
        commit.guards[0].expect = Expect::Value(from.into());
        commit
    }

    /// Deletes one row that still holds `from`.
    pub fn remove(key: Key, from: impl Into<Bytes>) -> Self {
        let mut commit = Self::replace(key, from, Bytes::new());
        commit.writes[0].1 = WriteOp::Delete;
        commit
    }

    /// Plain writes that share the fate and the sync of the commits beside them.
    pub fn unguarded(follow: Vec<Write>) -> Self {
        Self { table: Table::Stat, partition: Bytes::new(), guards: Vec::new(), writes: Vec::new(), follow }
    }

    pub fn following(mut self, follow: Vec<Write>) -> Self {
        self.follow = follow;
        self
    }

    /// Whether every engine can run this commit; all of them assert it in debug builds.
    pub fn is_portable(&self) -> bool {
        let written = |guard: &Guard| {
            self.writes.iter().any(|(row, op)| {
                *row == guard.clustering && !(guard.expect == Expect::Absent && *op == WriteOp::Delete)
            })
        };
        self.guards.is_empty() != self.table.is_conditional()
            && self.guards.iter().all(written)
            && self.follow.iter().all(Write::is_portable)
    }
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable, with everything that follows.
    Done,
    /// Nothing was written: a guard did not hold. The guarded rows that exist, as they are.
    Lost(Vec<Row>),
    /// Nobody can say; the rows may appear later.
    Unknown,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operation did not happen or may not have; trying again later can help.
    #[error("store unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk is full: nothing was written.
    #[error("store is out of space")]
    Full,
    /// The engine cannot go on in this process; restart it.
    #[error("store must be reopened")]
    Poisoned,
    /// Bytes that no version of ours wrote.
    #[error("stored {what} is not readable")]
    Corrupt { what: &'static str },
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One keyed, ordered, durable store. Every engine passes one contract suite unchanged.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>>;

    /// One page of one partition, a snapshot of its own.
    async fn scan(&self, range: Range) -> Result<Vec<Row>>;

    /// Durable when `Ok`. After an error some of the writes may have happened. A call names a row once, unless
    /// by stamps: there is no order within it.
    async fn write(&self, writes: Vec<Write>) -> Result<()>;

    /// Independent commits, one outcome each in the same order; the embedded engine shares one sync among them.
    ///
    /// An error means that this commit did not happen and will not; doubt has its own word,
    /// [`Committed::Unknown`]. Only after [`StoreError::Poisoned`] nothing at all is known.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed>>;

    /// A single commit.
    async fn commit_one(&self, commit: Commit) -> Result<Committed> {
        self.commit(vec![commit]).await.pop().unwrap_or(Ok(Committed::Unknown))
    }

    /// What an acknowledgement means here.
    fn durability(&self) -> Durability;

    /// Whether a commit and what follows it are there together or not at all, also after a crash.
    fn is_atomic(&self) -> bool {
        false
    }

    /// Stands for all rows of accounts (users, sessions, keys, projects, members, agents and their names) as they are:
    /// another number for every write of one, from before a reader can see it. `None` while one is under way, and where
    /// others may write too.
    fn accounts_version(&self) -> Option<u64> {
        None
    }
}

/// What `Ok` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before the answer.
    Synced,
    /// In memory on a quorum of machines, on disk within seconds.
    Replicated,
    /// Gone with the process: the memory engine.
    None,
}

impl Durability {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Replicated => "replicated",
            Self::None => "none",
        }
    }
}
