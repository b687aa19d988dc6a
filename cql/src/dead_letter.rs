//! Frames that can never be stored, kept aside with the reason: they are acked, so this is all that is left of them.

use bytes::{BufMut, BytesMut};
use domain::id::ProjectId;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record;
use crate::store::{Key, Ttl, Write};
use crate::table::Table;

/// How long they are kept.
const KEPT_SECS: u32 = 7 * 86_400;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// One event, as it came, scrubbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub event: String,
    pub reason: String,
    pub at: Timestamp,
}

/// Keeps an event aside.
pub fn put(project: ProjectId, event: &str, reason: &str, now: Timestamp) -> Write {
    let mut partition = BytesMut::with_capacity(20);
    partition.put_slice(&project.bytes());
    partition.put_u32(u32::try_from(now.micros().div_euclid(MICROS_PER_DAY)).unwrap_or(0));
    let clustering = domain::id::EventId::mint(now).bytes().to_vec();
    let letter = DeadLetter { event: event.to_owned(), reason: reason.to_owned(), at: now };
    Write::put(Key::new(Table::DeadLetter, partition, clustering), record::encode(&letter))
        .with_ttl(Ttl::new(KEPT_SECS))
}
