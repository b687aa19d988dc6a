//! The value format of low-volume rows: one format byte, then a MessagePack map with named members.

use std::ops::Bound::{Excluded, Included};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Key, Range, Row, Store, StoreError};
use crate::table::Table;

const FORMAT: u8 = 0x01;
/// Rows per page when a whole partition is read.
const PAGE: usize = 500;

/// Renders a record. Cannot fail: records hold no map with keys that MessagePack lacks.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let mut bytes = vec![FORMAT];
    rmp_serde::encode::write_named(&mut bytes, record).expect("a record of plain members always encodes");
    Bytes::from(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => rmp_serde::from_slice(rest).map_err(|_| StoreError::Corrupt { what }),
        Some(_) | None => Err(StoreError::Corrupt { what }),
    }
}

pub(crate) async fn read<T: DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    store.get(key).await?.map(|bytes| decode(&bytes, what)).transpose()
}

/// Every row of a partition in key order.
pub(crate) async fn rows(store: &dyn Store, table: Table, partition: Bytes) -> Result<Vec<Row>, StoreError> {
    pages(store, Range::all(table, partition, PAGE)).await
}

/// The rows from `lower` up to but without `upper`, in key order.
pub(crate) async fn rows_between(
    store: &dyn Store,
    table: Table,
    partition: Bytes,
    lower: &[u8],
    upper: &[u8],
) -> Result<Vec<Row>, StoreError> {
    let bounds = (Bytes::copy_from_slice(lower), Bytes::copy_from_slice(upper));
    let range = Range { lower: Included(bounds.0), upper: Excluded(bounds.1), ..Range::all(table, partition, PAGE) };
    pages(store, range).await
}

async fn pages(store: &dyn Store, mut range: Range) -> Result<Vec<Row>, StoreError> {
    let mut all = Vec::new();
    loop {
        let page = store.scan(range.clone()).await?;
        let Some(last) = page.last().map(|row| row.clustering.clone()) else { return Ok(all) };
        let short = page.len() < PAGE;
        all.extend(page);
        if short {
            return Ok(all);
        }
        range = range.after(&last);
    }
}

/// Every record of a partition in key order.
pub(crate) async fn records<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    partition: Bytes,
    what: &'static str,
) -> Result<Vec<T>, StoreError> {
    rows(store, table, partition).await?.iter().map(|row| decode(&row.value, what)).collect()
}

/// The last 16 bytes of a clustering key or value that is an id.
pub(crate) fn id_bytes(bytes: &[u8], what: &'static str) -> Result<[u8; 16], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt { what })
}
