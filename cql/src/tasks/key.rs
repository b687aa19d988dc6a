//! Keys of the task tables. Big-endian and of fixed width, so that bytes order as what they say does.
//!
//! ```text
//! task       project (16) | layout (1) | bucket (8) | sub (1)   ||  id (16) | writer (8)
//! task_at    project (16) | task key (16)                       ||  claim (8), always 0
//! task_root  project (16) | root key (16)                       ||  id (16)
//! segment    project (16) | day (8)                             ||  end of the bucket in ms (8) | layout (1) | sub (1)
//! task_mark  partition of the task | mark (9)                   ||  complement of the zone (6) | nonce (16)
//! task_open  project (16)                                       ||  0 since which id tasks are marked
//!                                                               ||  1 | recorder (2) | writer (8): has slots here
//!                                                               ||  2 | slot (1) | recorder (2) | writer (8)
//!                                                               ||  3 | state (1) | recorder (2) | writer (8)
//! ```
//!
//! A zone is 128 ms of ids: all marks of a zone are read before the first is used. The nonce of an open state's mark is the
//! task's id, so that who removes it needs no more. Slots are not written any more: 32 for each recorder, of all its open
//! tasks.
//!
//! A segment's clustering key begins with the end of its bucket, not its number: of two overlapping buckets of
//! different layouts a walk from the newest task must open the one first that ends later.

use std::ops::Bound;

use bytes::Bytes;
use domain::id::address::{Bucket, Layout, TaskId, TaskKey};
use domain::id::{EventId, ProjectId};
use domain::task::{Mark, State};
use domain::time::Timestamp;
use sha2::{Digest, Sha256};

use crate::store::{Key, Order, Range, StoreError};
use crate::table::Table;

pub(super) const DAY_MS: u64 = 86_400_000;

fn joined<const N: usize>(parts: [&[u8]; N]) -> Bytes {
    Bytes::from(parts.concat())
}

/// The row of one writer.
pub(super) fn task(project: ProjectId, id: TaskId, writer: u64) -> Key {
    let clustering = joined([&id.bytes(), &writer.to_be_bytes()]);
    Key::new(Table::Task, partition(project, id.bucket()), clustering)
}

/// The partition that holds the tasks of a bucket.
pub(super) fn partition(project: ProjectId, bucket: Bucket) -> Bytes {
    joined([&project.bytes(), &[bucket.layout.bits()], &bucket.bucket.to_be_bytes(), &[bucket.sub]])
}

/// The rows of all writers of one task.
pub(super) fn task_rows(project: ProjectId, id: TaskId) -> Range {
    Range {
        table: Table::Task,
        partition: partition(project, id.bucket()),
        lower: Bound::Included(joined([&id.bytes()])),
        upper: Bound::Included(joined([&id.bytes(), &[0xff; 8]])),
        order: Order::Ascending,
        limit: super::keep::WRITERS_MAX,
    }
}

/// The id in a clustering key of `Task`.
pub(super) fn task_id(clustering: &[u8]) -> Result<TaskId, StoreError> {
    match (clustering.len(), clustering.first_chunk()) {
        (24, Some(id)) => Ok(TaskId::from_bytes(*id)),
        _ => Err(StoreError::Corrupt { what: "task key" }),
    }
}

pub(super) fn task_at(project: ProjectId, key: TaskKey) -> Key {
    Key::new(Table::TaskAt, joined([&project.bytes(), &key.bytes()]), joined([&0_u64.to_be_bytes()]))
}

/// Tasks of every engine of a project may share a root, so its key knows no engine.
pub(super) fn root_partition(project: ProjectId, root_task_id: &str) -> Bytes {
    let hash = Sha256::new().chain_update([0]).chain_update(root_task_id).finalize();
    joined([&project.bytes(), &hash[..16]])
}

pub(super) fn task_root(project: ProjectId, root_task_id: &str, id: TaskId) -> Key {
    Key::new(Table::TaskRoot, root_partition(project, root_task_id), joined([&id.bytes()]))
}

/// A partition of `Task` that exists, and the time it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) bucket: Bucket,
    /// First millisecond, and the one after the last.
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
}

impl Segment {
    pub(super) fn of(id: TaskId) -> Self {
        let bucket = id.bucket();
        let width = bucket.layout.width_ms() as u64;
        Self { bucket, start_ms: bucket.bucket * width, end_ms: (bucket.bucket + 1) * width }
    }

    pub(super) fn key(&self, project: ProjectId) -> Key {
        let clustering = joined([&self.end_ms.to_be_bytes(), &[self.bucket.layout.bits()], &[self.bucket.sub]]);
        // No bucket reaches over midnight: every width divides a day.
        Key::new(Table::Segment, segment_partition(project, self.start_ms / DAY_MS), clustering)
    }

    pub(super) fn read(clustering: &[u8]) -> Result<Self, StoreError> {
        let corrupt = StoreError::Corrupt { what: "segment key" };
        let (Some(end), [layout, sub]) = (clustering.first_chunk(), clustering.get(8..).unwrap_or_default()) else {
            return Err(corrupt);
        };
        let (end_ms, layout) = (u64::from_be_bytes(*end), Layout::from_bits(*layout));
        let width = layout.width_ms() as u64;
        let number = (end_ms / width).checked_sub(1).ok_or(corrupt)?;
        let bucket = Bucket { layout, bucket: number, sub: *sub };
        Ok(Self { bucket, start_ms: number * width, end_ms })
    }
}

pub(super) fn segment_partition(project: ProjectId, day: u64) -> Bytes {
    joined([&project.bytes(), &day.to_be_bytes()])
}

/// What all ids of a few milliseconds have in common; zones order as their ids do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Zone(u64);

impl Zone {
    const BITS: u32 = 7;

    pub(super) fn of(id: TaskId) -> Self {
        Self(millis(id) >> Self::BITS)
    }

    /// Its first millisecond.
    pub(super) const fn start_ms(self) -> u64 {
        self.0 << Self::BITS
    }

    /// The complement: the newest zone comes first, and engines read forward faster than back.
    pub(super) fn bytes(self) -> [u8; 6] {
        let [_, _, bytes @ ..] = (!self.0).to_be_bytes();
        bytes
    }

    /// The zone in a clustering key of `TaskMark`.
    pub(super) fn read(clustering: &[u8]) -> Result<Self, StoreError> {
        match (clustering.len(), clustering.first_chunk::<6>()) {
            (22, Some(zone)) => Ok(Self(zone.iter().fold(0, |number, byte| number << 8 | u64::from(!*byte)))),
            _ => Err(StoreError::Corrupt { what: "task mark key" }),
        }
    }
}

/// The tasks of a bucket that were marked with one thing.
pub(super) fn mark_partition(project: ProjectId, bucket: Bucket, mark: Mark) -> Bytes {
    joined([&partition(project, bucket), &mark.bytes()])
}

pub(super) fn mark(project: ProjectId, bucket: Bucket, mark: Mark, zone: Zone, nonce: EventId) -> Key {
    let clustering = joined([&zone.bytes(), &nonce.bytes()]);
    Key::new(Table::TaskMark, mark_partition(project, bucket, mark), clustering)
}

/// The mark of one task that has been in an open state for long.
pub(super) fn filed(project: ProjectId, state: State, id: TaskId) -> Key {
    mark(project, id.bucket(), Mark::State(state), Zone::of(id), EventId::from_bytes(id.bytes()))
}

const SINCE: u8 = 0;
const LISTER: u8 = 1;
const SLOT: u8 = 2;
const LISTED: u8 = 3;
/// Slots of a recorder.
const SLOTS_COUNT: u8 = 32;

pub(super) fn open_partition(project: ProjectId) -> Bytes {
    joined([&project.bytes()])
}

pub(super) fn marked_since(project: ProjectId) -> Key {
    Key::new(Table::TaskOpen, open_partition(project), joined([&[SINCE]]))
}

/// Says that a recorder lists open tasks.
pub(super) fn lister(project: ProjectId, recorder: u16, writer: u64) -> Key {
    let clustering = joined([&[LISTER], &recorder.to_be_bytes(), &writer.to_be_bytes()]);
    Key::new(Table::TaskOpen, open_partition(project), clustering)
}

/// First and last but one clustering key of the rows above.
pub(super) const LISTERS: (&[u8], &[u8]) = (&[LISTER], &[SLOT]);
/// Of all slots.
pub(super) const SLOTS: (&[u8], &[u8]) = (&[SLOT], &[SLOT + 1]);

/// Recorder and writer in a clustering key of either kind.
pub(super) fn lister_of(clustering: &[u8]) -> Result<(u16, u64), StoreError> {
    match clustering {
        [LISTER, r0, r1, writer @ ..] if writer.len() == 8 => {
            let writer = writer.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            Ok((u16::from_be_bytes([*r0, *r1]), writer))
        }
        _ => Err(StoreError::Corrupt { what: "task open key" }),
    }
}

/// The slots of a recorder, from before open tasks were listed by state.
pub(super) fn slots(project: ProjectId, recorder: u16, writer: u64) -> impl Iterator<Item = Key> {
    (0..SLOTS_COUNT).map(move |slot| {
        let clustering = joined([&[SLOT], &[slot], &recorder.to_be_bytes(), &writer.to_be_bytes()]);
        Key::new(Table::TaskOpen, open_partition(project), clustering)
    })
}

/// The row in which a recorder keeps the ids of tasks that are in an open state.
pub(super) fn listed(project: ProjectId, state: State, recorder: u16, writer: u64) -> Key {
    let clustering = joined([&[LISTED], &[state.tag()], &recorder.to_be_bytes(), &writer.to_be_bytes()]);
    Key::new(Table::TaskOpen, open_partition(project), clustering)
}

/// First and last but one clustering key of these rows of a state.
pub(super) const fn all_listed(state: State) -> ([u8; 2], [u8; 2]) {
    ([LISTED, state.tag()], [LISTED, state.tag() + 1])
}

/// The day of an instant, counted from the Unix epoch.
pub(super) fn day(at: Timestamp) -> u64 {
    at.millis().max(0) as u64 / DAY_MS
}

/// Milliseconds in an id.
pub(super) fn millis(id: TaskId) -> u64 {
    id.received_at().millis().max(0) as u64
}

#[cfg(test)]
mod tests {
    use domain::engine::Engine;

    use super::*;

    #[test]
    fn the_keys_are_for_ever() {
        let project = ProjectId::from_bytes([7; 16]);
        let at = Timestamp::from_micros(1_776_340_800_123_456);
        let key = TaskKey::new(Engine::Celery, "9d2c");
        let hexed = |key: Key| format!("{} {}", hex::encode(key.partition), hex::encode(key.clustering));
        let id = |layout| TaskId::new(at, layout, key);
        for (layout, task_key, segment_key) in [
            (
                Layout::Day,
                "0707070707070707070707070707070700000000000000504f00 019d9629927b7209017fbfd01ee0ac1f0000000000000003",
                "07070707070707070707070707070707000000000000504f 0000019d98bcc0000000",
            ),
            (
                Layout::TwentySeconds,
                "070707070707070707070707070707070300000000054b3d9012 019d9629927b7239017fbfd01ee0ac1f0000000000000003",
                "07070707070707070707070707070707000000000000504f 0000019d9629e0200312",
            ),
        ] {
            let got = hexed(task(project, id(layout), 3));
            let segment = Segment::of(id(layout));
            let got_segment = hexed(segment.key(project));
            assert_eq!((&*got, &*got_segment), (task_key, segment_key));
        }
        assert_eq!(
            hexed(task_at(project, key)),
            "070707070707070707070707070707079017fbfd01ee0ac1f5fb58c9b999fffb 0000000000000000"
        );
        assert_eq!(
            hexed(task_root(project, "root", id(Layout::Day))),
            "070707070707070707070707070707073c06f9a65725af605261f636672c9620 019d9629927b7209017fbfd01ee0ac1f"
        );
    }

    #[test]
    fn the_keys_of_marks_are_for_ever() {
        let project = ProjectId::from_bytes([7; 16]);
        let at = Timestamp::from_micros(1_776_340_800_123_456);
        let id = TaskId::new(at, Layout::Hour, TaskKey::new(Engine::Celery, "9d2c"));
        let hexed = |key: Key| format!("{} {}", hex::encode(key.partition), hex::encode(key.clustering));
        let nonce = EventId::from_bytes([9; 16]);
        let key = mark(project, id.bucket(), Mark::Queue(0x0102), Zone::of(id), nonce);
        assert_eq!(Zone::read(&key.clustering).unwrap(), Zone::of(id));
        assert_eq!(
            hexed(key),
            concat!(
                "07070707070707070707070707070707",
                "01000000000007877400",
                "010000000000000102 fffcc4d3acdb09090909090909090909090909090909"
            )
        );
        let project_hex = "07070707070707070707070707070707";
        assert_eq!(hexed(marked_since(project)), format!("{project_hex} 00"));
        assert_eq!(hexed(lister(project, 3, 9)), format!("{project_hex} 0100030000000000000009"));
        let slots: Vec<Key> = slots(project, 3, 9).collect();
        assert_eq!(slots.len(), 32);
        assert_eq!(hexed(slots[4].clone()), format!("{project_hex} 020400030000000000000009"));
        let listed = listed(project, State::Started, 3, 9);
        let (first, last) = all_listed(State::Started);
        assert!(first[..] <= listed.clustering[..] && listed.clustering[..] < last[..]);
        assert_eq!(hexed(listed), format!("{project_hex} 030100030000000000000009"));
        let filed = filed(project, State::Started, id);
        assert_eq!(Zone::read(&filed.clustering).unwrap(), Zone::of(id));
        assert_eq!(
            hexed(filed),
            concat!(
                "07070707070707070707070707070707",
                "01000000000007877400",
                "020000000000000001 fffcc4d3acdb019d9629927b7219017fbfd01ee0ac1f"
            )
        );
        assert_eq!(lister_of(&lister(project, 3, 9).clustering).unwrap(), (3, 9));
        assert!(lister_of(&[LISTER; 4]).is_err() && Zone::read(&[0; 21]).is_err());
    }

    #[test]
    fn zones_order_newest_first() {
        let id = |ms| TaskId::new(Timestamp::from_millis(ms), Layout::Day, TaskKey::from_bytes([3; 16]));
        let ids: Vec<TaskId> = (0..64).map(|n| id(1_776_340_800_000 + 128 * n)).collect();
        assert!(ids.windows(2).all(|pair| Zone::of(pair[0]) < Zone::of(pair[1])));
        assert!(ids.windows(2).all(|pair| Zone::of(pair[0]).bytes() > Zone::of(pair[1]).bytes()));
    }

    #[test]
    fn a_segment_is_read_back_and_covers_its_ids() {
        let project = ProjectId::from_bytes([7; 16]);
        for layout in Layout::ALL {
            for hour in 0..50 {
                let at = Timestamp::from_micros(1_776_340_800_123_456).plus_secs(hour * 3601);
                let id = TaskId::new(at, layout, TaskKey::from_bytes([hour as u8 * 5; 16]));
                let segment = Segment::of(id);
                let key = segment.key(project);
                assert_eq!(Segment::read(&key.clustering).unwrap(), segment);
                assert!(segment.start_ms <= millis(id) && millis(id) < segment.end_ms);
                assert_eq!(key.partition, segment_partition(project, day(at)));
                assert_eq!(task_id(&task(project, id, 9).clustering).unwrap(), id);
            }
        }
        assert!(Segment::read(&[0; 10]).is_err() && Segment::read(&[0; 3]).is_err() && task_id(&[0; 3]).is_err());
    }
}
