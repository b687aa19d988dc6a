//! Bytes on disk: how a row becomes a key and a value. Never changes within a folder format.
//!
//! ```text
//! key     table tag (1) | length of the partition (2, big-endian) | partition | clustering
//! value   flags (1) | stamp (8, big-endian, if flag 1) | expiry (4, seconds, big-endian, if flag 2) | value
//! ```
//!
//! The length keeps partitions apart when one is a prefix of another, and within a partition keys order by
//! their clustering bytes. Partitions of one table and length order by their bytes, so those that start with
//! project and time lie on disk in time order.

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

use crate::store::{Result, StoreError, Write, WriteOp};
use crate::table::Table;

/// What fjall can hold in a key.
const KEY_MAX: usize = u16::MAX as usize;
/// A stamped delete must outlast every older write that may still arrive; CQL keeps its own for as long.
const STAMPED_DELETE_SECS: u32 = 10 * 86_400;

const STAMPED: u8 = 1;
const EXPIRING: u8 = 2;
const DELETED: u8 = 4;

/// The fjall keyspace of a table. Few, because an idle one holds on to journals; apart where the order of
/// arriving keys differs, because mixing sorted with random keys makes every compaction rewrite both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Space {
    /// Rows of tasks: large, arriving in the order of time.
    Task,
    /// Small rows with random keys, one or two for each task.
    Index,
    /// Everything else.
    Rest,
}

impl Space {
    pub(super) const fn of(table: Table) -> Self {
        match table {
            Table::Task => Self::Task,
            Table::TaskAt | Table::TaskRoot => Self::Index,
            Table::Segment
            | Table::Ledger
            | Table::LedgerHead
            | Table::Command
            | Table::CommandChunk
            | Table::Idem
            | Table::Stat
            | Table::DeadLetter
            | Table::Open
            | Table::Ownership
            | Table::Directory
            | Table::Node
            | Table::Project
            | Table::User
            | Table::Membership
            | Table::MembershipOfUser
            | Table::ApiKey
            | Table::WebSession
            | Table::Agent
            | Table::Secret
            | Table::Worker
            | Table::Queue
            | Table::Setting
            | Table::Unique
            | Table::AgentWorker
            | Table::WebSessionOfUser
            | Table::AgentStatus
            | Table::TaskMark
            | Table::TaskOpen => Self::Rest,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Index => "index",
            Self::Rest => "rest",
        }
    }
}

/// A key longer than the engine holds.
#[derive(Debug, thiserror::Error)]
#[error("key of {0} bytes is too long")]
struct KeyTooLong(usize);

/// Everything before the clustering key: the start of every key of a partition.
pub(super) fn prefix(table: Table, partition: &[u8]) -> Result<BytesMut> {
    let length = u16::try_from(partition.len()).map_err(|_| too_long(partition.len()))?;
    let mut prefix = BytesMut::with_capacity(3 + partition.len() + 32);
    prefix.put_u8(table.tag());
    prefix.put_u16(length);
    prefix.put_slice(partition);
    Ok(prefix)
}

pub(super) fn key(table: Table, partition: &[u8], clustering: &[u8]) -> Result<Bytes> {
    let mut key = prefix(table, partition)?;
    if key.len() + clustering.len() > KEY_MAX {
        return Err(too_long(key.len() + clustering.len()));
    }
    key.put_slice(clustering);
    Ok(key.freeze())
}

fn too_long(length: usize) -> StoreError {
    StoreError::Unavailable(Box::new(KeyTooLong(length)))
}

/// The first key after all that start with `prefix`. There always is one: no table has the tag 255.
pub(super) fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            break;
        }
    }
    next
}

/// Partition and clustering key of a stored key.
pub(super) fn split_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_be_bytes([*key.get(1)?, *key.get(2)?]);
    key.get(3..)?.split_at_checked(length.into())
}

/// What stands before a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stamp: Option<i64>,
    /// Seconds since the Unix epoch.
    pub(super) expires: Option<u32>,
    /// A stamped delete is a row too: an older write must still lose against it.
    pub(super) deleted: bool,
}

impl Header {
    pub(super) fn is_expired(&self, now: u32) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    fn length(flags: u8) -> usize {
        1 + if flags & STAMPED == 0 { 0 } else { 8 } + if flags & EXPIRING == 0 { 0 } else { 4 }
    }

    /// Reads the header and says how long it is.
    pub(super) fn read(stored: &[u8]) -> Result<(Self, usize)> {
        let corrupt = StoreError::Corrupt { what: "row" };
        let flags = match stored.first() {
            Some(flags) if flags & !(STAMPED | EXPIRING | DELETED) == 0 => *flags,
            Some(_) | None => return Err(corrupt),
        };
        let length = Self::length(flags);
        let Some(mut rest) = stored.get(1..length) else { return Err(corrupt) };
        let mut header = Self { stamp: None, expires: None, deleted: flags & DELETED != 0 };
        if let Some((stamp, after)) = rest.split_first_chunk::<8>().filter(|_| flags & STAMPED != 0) {
            header.stamp = Some(i64::from_be_bytes(*stamp));
            rest = after;
        }
        header.expires = rest.first_chunk::<4>().map(|at| u32::from_be_bytes(*at));
        Ok((header, length))
    }

    fn write(&self, value: &[u8]) -> Bytes {
        let flags = self.stamp.map_or(0, |_| STAMPED)
            | self.expires.map_or(0, |_| EXPIRING)
            | if self.deleted { DELETED } else { 0 };
        let mut stored = BytesMut::with_capacity(Self::length(flags) + value.len());
        stored.put_u8(flags);
        if let Some(stamp) = self.stamp {
            stored.put_i64(stamp);
        }
        if let Some(at) = self.expires {
            stored.put_u32(at);
        }
        stored.put_slice(value);
        stored.freeze()
    }
}

/// The value a reader sees, or nothing if the row is deleted or expired.
pub(super) fn live(mut stored: Bytes, now: u32) -> Result<Option<Bytes>> {
    let (header, length) = Header::read(&stored)?;
    // A slice would allocate a count of its holders, for every row of a page.
    stored.advance(length);
    Ok((!header.deleted && !header.is_expired(now)).then_some(stored))
}

/// Whether the stamped row `new` wins over `old`: of equal stamps a delete does, then the greater value.
pub(super) fn supersedes(new: &[u8], old: &[u8]) -> Result<bool> {
    let ((new_header, new_at), (old_header, old_at)) = (Header::read(new)?, Header::read(old)?);
    let rank = |header: Header, value| (header.stamp, header.deleted, value);
    Ok(rank(new_header, new.get(new_at..)) >= rank(old_header, old.get(old_at..)))
}

/// One write, ready for the writer: encoded by its caller, so that the writer only merges.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub(super) space: Space,
    pub(super) key: Bytes,
    /// `None` removes the key.
    pub(super) stored: Option<Bytes>,
    pub(super) stamped: bool,
}

impl Encoded {
    pub(super) fn new(write: &Write, now: u32) -> Result<Self> {
        let key = key(write.key.table, &write.key.partition, &write.key.clustering)?;
        Ok(Self::row(write.key.table, key, &write.op, write.stamp, now))
    }

    pub(super) fn row(table: Table, key: Bytes, op: &WriteOp, stamp: Option<i64>, now: u32) -> Self {
        let stored = match op {
            WriteOp::Put { value, ttl } => {
                let expires = ttl.map(|seconds| now.saturating_add(seconds.get()));
                Some(Header { stamp, expires, deleted: false }.write(value))
            }
            WriteOp::Delete => stamp.map(|_| {
                let expires = Some(now.saturating_add(STAMPED_DELETE_SECS));
                Header { stamp, expires, deleted: true }.write(&[])
            }),
        };
        Self { space: Space::of(table), key, stored, stamped: stamp.is_some() }
    }

    pub(super) fn size(&self) -> usize {
        self.key.len() + self.stored.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    #[test]
    fn the_formats_are_for_ever() {
        let put = Write::put(Key::new(Table::Task, &b"part"[..], &b"cl"[..]), &b"v"[..]);
        let row = Encoded::new(&put, 1000).unwrap();
        assert_eq!(hex::encode(&row.key), "01000470617274636c");
        assert_eq!(hex::encode(row.stored.unwrap()), "0076");

        let row = Encoded::new(&put.clone().with_ttl(std::num::NonZeroU32::new(16)), 1000).unwrap();
        assert_eq!(hex::encode(row.stored.unwrap()), "02000003f876");

        let row = Encoded::new(&put.clone().stamped(-2).with_ttl(std::num::NonZeroU32::new(16)), 1000).unwrap();
        assert_eq!(hex::encode(row.stored.unwrap()), "03fffffffffffffffe000003f876");

        let row = Encoded::new(&Write::delete(put.key.clone()).stamped(7), 1000).unwrap();
        assert_eq!(hex::encode(row.stored.unwrap()), "070000000000000007000d32e8");

        assert!(Encoded::new(&Write::delete(put.key), 1000).unwrap().stored.is_none());
        assert_eq!([Space::Task, Space::Index, Space::Rest].map(Space::name), ["task", "index", "rest"]);
    }

    #[test]
    fn a_partition_that_is_a_prefix_of_another_stays_apart() {
        let short = key(Table::Idem, b"a", b"bc").unwrap();
        let long = key(Table::Idem, b"ab", b"c").unwrap();
        assert_ne!(short, long);
        assert!(!long.starts_with(&prefix(Table::Idem, b"a").unwrap()));
        assert_eq!(split_key(&long), Some((&b"ab"[..], &b"c"[..])));
    }

    #[test]
    fn a_successor_bounds_all_keys_of_its_prefix() {
        assert_eq!(successor(&[1, 0, 2, 0xff, 0xff]), [1, 0, 3]);
        assert_eq!(successor(&[1, 0, 1, 7]), [1, 0, 1, 8]);
    }

    #[test]
    fn unknown_flags_and_short_headers_are_corrupt() {
        for stored in [&[][..], &[8], &[1, 0], &[2, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert!(Header::read(stored).is_err(), "{stored:?}");
        }
    }

    #[test]
    fn a_key_beyond_the_limit_is_refused() {
        assert!(key(Table::Queue, b"p", &vec![0; 70_000]).is_err());
        assert!(prefix(Table::Queue, &vec![0; 70_000]).is_err());
    }
}
