//! A task's id is its address: the id alone yields partition, row, shard and time (DESIGN R3).
//!
//! `id` is a ULID of 128 bits, big-endian:
//!
//! ```text
//! ms of received_at (48) | microseconds within (10, 0..=999) | layout (2) | first 68 bits of the task key
//! ```
//!
//! Ids order as `received_at` does, and are fixed in the first durable commit for life.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::ProjectId;
use crate::engine::Engine;
use crate::time::Timestamp;

/// The key of a task within its project: first 16 bytes of SHA-256(engine, 0x00, engine's task id).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey([u8; 16]);

impl TaskKey {
    pub fn new(engine: Engine, task_id: &str) -> Self {
        let hash = Sha256::new().chain_update(engine.as_str()).chain_update([0]).chain_update(task_id).finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self(key)
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskKey({})", hex::encode(self.0))
    }
}

/// How tasks of a stretch of time are spread over partitions: (bucket width, fan-out).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// 1 day x 1; the only one the embedded store uses.
    Day,
    /// 1 hour x 1.
    Hour,
    /// 5 minutes x 4.
    FiveMinutes,
    /// 20 seconds x 32.
    TwentySeconds,
}

impl Layout {
    pub const ALL: [Self; 4] = [Self::Day, Self::Hour, Self::FiveMinutes, Self::TwentySeconds];

    pub const fn bits(self) -> u8 {
        self as u8
    }

    pub const fn from_bits(bits: u8) -> Self {
        Self::ALL[(bits & 3) as usize]
    }

    pub const fn width_ms(self) -> i64 {
        match self {
            Self::Day => 86_400_000,
            Self::Hour => 3_600_000,
            Self::FiveMinutes => 300_000,
            Self::TwentySeconds => 20_000,
        }
    }

    /// Number of leading task key bits that choose the partition within a bucket.
    const fn sub_bits(self) -> u8 {
        match self {
            Self::Day | Self::Hour => 0,
            Self::FiveMinutes => 2,
            Self::TwentySeconds => 5,
        }
    }

    pub const fn fan_out(self) -> u8 {
        1 << self.sub_bits()
    }
}

/// The partition a task's row lies in, within its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    pub layout: Layout,
    /// floor(ms / width) from the Unix epoch.
    pub bucket: u64,
    pub sub: u8,
}

/// A task's id, stable for life (contract D10). Text: 26 upper-case Crockford characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

/// A text that is not a ULID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a task id")]
pub struct BadTaskId;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const KEY_BITS: u32 = 68;
const KEY_MASK: u128 = (1 << KEY_BITS) - 1;

impl TaskId {
    pub const MIN: Self = Self(0);
    pub const MAX: Self = Self(u128::MAX);

    pub fn new(received_at: Timestamp, layout: Layout, key: TaskKey) -> Self {
        let micros = received_at.micros().max(0);
        let (millis, within) = ((micros / 1000) as u128, (micros % 1000) as u128);
        let key = u128::from_be_bytes(key.bytes()) >> (128 - KEY_BITS);
        Self(millis << 80 | within << 70 | u128::from(layout.bits()) << KEY_BITS | key)
    }

    /// The smallest id of an instant: every task received at or after it has a greater or equal one.
    pub fn floor(at: Timestamp) -> Self {
        Self::new(at, Layout::Day, TaskKey::from_bytes([0; 16]))
    }

    /// The greatest id of an instant.
    pub fn ceiling(at: Timestamp) -> Self {
        Self::new(at, Layout::TwentySeconds, TaskKey::from_bytes([0xff; 16]))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The smallest greater id.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub const fn received_at(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> 80) as i64).plus_micros((self.0 >> 70 & 0x3ff) as i64)
    }

    pub const fn layout(self) -> Layout {
        Layout::from_bits((self.0 >> KEY_BITS) as u8)
    }

    /// The leading 68 bits of the task key, at the top of 128.
    const fn key_head(self) -> u128 {
        (self.0 & KEY_MASK) << (128 - KEY_BITS)
    }

    pub const fn bucket(self) -> Bucket {
        let layout = self.layout();
        let sub = if layout.sub_bits() == 0 { 0 } else { (self.key_head() >> (128 - layout.sub_bits() as u32)) as u8 };
        Bucket { layout, bucket: (self.0 >> 80) as u64 / layout.width_ms() as u64, sub }
    }

    pub fn shard(self, project: ProjectId) -> Shard {
        Shard::of(project, (self.key_head() >> 120) as u8)
    }

    /// Whether this id can belong to a task with that key.
    pub const fn matches(self, key: TaskKey) -> bool {
        u128::from_be_bytes(key.bytes()) >> (128 - KEY_BITS) == self.0 & KEY_MASK
    }
}

/// One of 1 024 shares of all tasks; a recorder records a shard's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    pub const COUNT: u16 = 1024;

    pub fn of_key(project: ProjectId, key: TaskKey) -> Self {
        Self::of(project, key.bytes()[0])
    }

    pub const fn index(self) -> u16 {
        self.0
    }

    fn of(project: ProjectId, first_key_byte: u8) -> Self {
        let hash = Sha256::new().chain_update(project.bytes()).chain_update([first_key_byte >> 5]).finalize();
        let mut head = [0; 8];
        head.copy_from_slice(&hash[..8]);
        Self((u64::from_be_bytes(head) % u64::from(Self::COUNT)) as u16)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 26];
        for (place, character) in text.iter_mut().enumerate() {
            *character = ALPHABET[(self.0 >> (5 * (25 - place))) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

/// Accepts upper-case Crockford characters only: one text per id.
impl FromStr for TaskId {
    type Err = BadTaskId;
    fn from_str(text: &str) -> Result<Self, BadTaskId> {
        let bytes = text.as_bytes();
        if bytes.len() != 26 || bytes[0] > b'7' {
            return Err(BadTaskId);
        }
        bytes
            .iter()
            .try_fold(0_u128, |id, byte| {
                let digit = ALPHABET.iter().position(|character| character == byte).ok_or(BadTaskId)?;
                Ok(id << 5 | digit as u128)
            })
            .map(Self)
    }
}

impl serde::Serialize for TaskId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);

    #[test]
    fn the_formats_are_for_ever() {
        let key = TaskKey::new(Engine::Celery, "9d2c");
        assert_eq!(hex::encode(key.bytes()), "9017fbfd01ee0ac1f5fb58c9b999fffb");
        let at = Timestamp::from_micros(1_776_340_800_123_456);
        let id = TaskId::new(at, Layout::TwentySeconds, key);
        assert_eq!(id.to_string(), "01KPB2K4KVE8WG2ZXZT0FE1B0Z");
        assert_eq!(Shard::of_key(PROJECT, key).index(), 794);
    }

    #[test]
    fn an_id_alone_yields_time_partition_and_shard() {
        let at = Timestamp::from_micros(1_776_340_800_123_999);
        for layout in Layout::ALL {
            for task in 0..50 {
                let key = TaskKey::new(Engine::Rq, &format!("task-{task}"));
                let id = TaskId::new(at, layout, key);
                assert_eq!(id.received_at(), at);
                assert_eq!(id.layout(), layout);
                assert!(id.matches(key));
                assert_eq!(id.shard(PROJECT), Shard::of_key(PROJECT, key));
                let bucket = id.bucket();
                assert_eq!(bucket.bucket as i64, at.millis() / layout.width_ms());
                assert!(bucket.sub < layout.fan_out());
                assert_eq!(id.to_string().parse(), Ok(id));
                assert!(TaskId::floor(at) <= id && id <= TaskId::ceiling(at));
            }
        }
    }

    #[test]
    fn ids_order_as_received_at_does() {
        let early =
            TaskId::new(Timestamp::from_micros(1_000_999), Layout::TwentySeconds, TaskKey::from_bytes([0xff; 16]));
        let late = TaskId::new(Timestamp::from_micros(1_001_000), Layout::Day, TaskKey::from_bytes([0; 16]));
        assert!(early < late && early.to_string() < late.to_string() && early.bytes() < late.bytes());
    }

    #[test]
    fn one_text_per_id() {
        for bad in
            ["", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01kpb25dkv", "01KPB2K4KVE8WG2ZXZT0FE1B0U", "01KPB2K4KVE8WG2ZXZT0FE1B0"]
        {
            assert_eq!(bad.parse::<TaskId>(), Err(BadTaskId), "{bad}");
        }
        assert_eq!(TaskId::MAX.to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    }
}
