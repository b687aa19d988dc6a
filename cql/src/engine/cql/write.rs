//! Writes without a condition: unlogged batches, each within one partition of one table.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use scylla::errors::ExecutionError;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::MaybeUnset;

use super::statements::{Shape, partition};
use super::{Cql, unavailable};
use crate::store::{Result, Ttl, Write, WriteOp};
use crate::table::Table;

/// Bytes of values and keys in one batch; servers warn and refuse above their own limits.
const BATCH_BYTES: usize = 40 << 10;
/// Batches of one call under way at once. More gain nothing but latency.
const AT_ONCE: usize = 64;

/// Values of one statement, whatever its shape.
pub(super) type Values = Box<dyn SerializeRow + Send + Sync>;

/// A time to live, or none: never zero, which means for ever.
pub(super) fn ttl(seconds: Option<Ttl>) -> MaybeUnset<i32> {
    seconds.map_or(MaybeUnset::Unset, |seconds| MaybeUnset::Set(i32::try_from(seconds.get()).unwrap_or(i32::MAX)))
}

impl Cql {
    /// Writes everything, partition by partition; in no order, so a call names a row once.
    pub(super) async fn write_all(&self, writes: Vec<Write>) -> Result<()> {
        let mut partitions: BTreeMap<(Table, Bytes), Vec<Write>> = BTreeMap::new();
        for write in writes {
            partitions.entry((write.key.table, write.key.partition.clone())).or_default().push(write);
        }
        let batches = partitions.into_iter().flat_map(|((table, part), writes)| {
            let part = partition(table, &part);
            batches(writes).into_iter().map(move |batch| (table, part.clone(), batch))
        });
        stream::iter(batches)
            .map(|(table, part, batch)| self.write_batch(table, part, batch))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    async fn write_batch(&self, table: Table, part: Bytes, writes: Vec<Write>) -> Result<()> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(writes.len());
        for write in writes {
            let (shape, row) = plain(&part, write);
            batch.append_statement(self.statements.get(table, shape).await.map_err(unavailable)?);
            values.push(row);
        }
        self.session.batch(&batch, values).await.map(drop).map_err(|error: ExecutionError| unavailable(error))
    }
}

/// Statement and values of a write without a condition.
fn plain(part: &Bytes, write: Write) -> (Shape, Values) {
    let (part, row) = (part.clone(), write.key.clustering);
    match (write.op, write.stamp) {
        (WriteOp::Put { value, ttl: lives }, None) => (Shape::Put, Box::new((ttl(lives), value, part, row))),
        (WriteOp::Put { value, ttl: lives }, Some(stamp)) => {
            (Shape::PutStamped, Box::new((stamp, ttl(lives), value, part, row)))
        }
        (WriteOp::Delete, None) => (Shape::Delete, Box::new((part, row))),
        (WriteOp::Delete, Some(stamp)) => (Shape::DeleteStamped, Box::new((stamp, part, row))),
    }
}

/// Cuts writes of one partition into batches of bounded size, at least one write each.
fn batches(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = size(&write);
        match batches.last_mut() {
            Some(batch) if bytes + size <= BATCH_BYTES => {
                bytes += size;
                batch.push(write);
            }
            Some(_) | None => {
                bytes = size;
                batches.push(vec![write]);
            }
        }
    }
    batches
}

fn size(write: &Write) -> usize {
    let value = match &write.op {
        WriteOp::Put { value, .. } => value.len(),
        WriteOp::Delete => 0,
    };
    write.key.partition.len() + write.key.clustering.len() + value + 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    #[test]
    fn a_batch_stays_below_its_limit_and_keeps_the_order() {
        let write = |n: u8, bytes| Write::put(Key::new(Table::Task, vec![1; 24], vec![n]), vec![0; bytes]);
        let sizes = [700, 39_000, 100_000, 1, 2, 20_000, 20_000, 20_000];
        let writes: Vec<_> = sizes.into_iter().enumerate().map(|(n, bytes)| write(n as u8, bytes)).collect();
        let cut = batches(writes.clone());
        assert_eq!(cut.concat(), writes);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 4, 1]);
        assert!(batches(Vec::new()).is_empty());
    }
}
