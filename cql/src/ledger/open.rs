//! `open`: projects with open commands, which a new home must activate.

use std::num::NonZeroU32;

use bytes::Bytes;
use domain::id::ProjectId;
use domain::ledger::Change;

use crate::store::{Key, Range, Result, Store, StoreError, Write, WriteOp};
use crate::table::Table;

/// Over how many partitions projects are spread.
pub const PARTITIONS: u8 = 64;

/// A deleted mark is a short-lived value, so that a later mark of a lower seq cannot hide behind it.
const IDLE_SECONDS: NonZeroU32 = NonZeroU32::new(24 * 3600).expect("not zero");

/// The partition of a project: random bits of its id.
pub const fn partition_of(project: ProjectId) -> u8 {
    project.bytes()[15] % PARTITIONS
}

pub(super) fn mark(project: ProjectId, busy: bool, stamp: i64) -> Write {
    let key = Key::new(
        Table::Open,
        Bytes::copy_from_slice(&[partition_of(project)]),
        Bytes::copy_from_slice(&project.bytes()),
    );
    let ttl = if busy { None } else { Some(IDLE_SECONDS) };
    let value = Bytes::from_static(if busy { &[1] } else { &[0] });
    Write { key, op: WriteOp::Put { value, ttl }, stamp: Some(stamp) }
}

/// The mark of a project that gets its first open command, to be there before the command is: nobody else would know
/// of it after a crash. If the append comes to nothing, the mark stands until the project's next command has ended.
pub fn announce(project: ProjectId, changes: &[(u64, Change)]) -> Option<Write> {
    let (seq, _) = changes.iter().find(|(_, change)| matches!(change, Change::Busy(true)))?;
    Some(mark(project, true, i64::try_from(*seq).unwrap_or(i64::MAX)))
}

/// The projects of one partition that have open commands.
pub async fn projects(store: &dyn Store, partition: u8) -> Result<Vec<ProjectId>> {
    let mut projects = Vec::new();
    let mut range = Range::all(Table::Open, Bytes::copy_from_slice(&[partition]), 1000);
    loop {
        let rows = store.scan(range.clone()).await?;
        for row in rows.iter().filter(|row| row.value.as_ref() == [1]) {
            let id = row.clustering.as_ref().try_into().map_err(|_| StoreError::Corrupt { what: "open key" })?;
            projects.push(ProjectId::from_bytes(id));
        }
        match rows.last() {
            Some(last) if rows.len() == range.limit => range = range.after(&last.clustering),
            Some(_) | None => return Ok(projects),
        }
    }
}
