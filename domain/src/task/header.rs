//! The 64 bytes in front of every stored task: what a scan needs to decide about a row.
//!
//! Little endian: state u8, priority u8, flags u16, retry_count u32, finished_at i64, runtime_ms u32,
//! reserved u32, name u64, queue u64, worker u64, created_at i64, updated_at i64. Before it stands the
//! format byte 0x01. The flags: bit 0 hidden, bit 1 finished_at is set, bit 2 runtime_ms is set,
//! bit 3 the history is truncated, bits 8 to 10 the engine.

use super::priority::Priority;
use super::state::State;
use crate::engine::Engine;
use crate::time::Timestamp;

/// The only format there is.
pub(super) const FORMAT: u8 = 0x01;
/// Bytes of format and header.
pub(super) const LENGTH: usize = 65;

const HIDDEN: u16 = 1;
const FINISHED: u16 = 1 << 1;
const TIMED: u16 = 1 << 2;
const TRUNCATED: u16 = 1 << 3;
const ENGINE_SHIFT: u16 = 8;

/// Stored bytes that no version of ours wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored task is not readable")]
pub struct BadValue;

/// The derived facts of a row that filters and counters look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub state: State,
    pub priority: Priority,
    pub engine: Engine,
    /// Deleted, and not run again since: no read may show the row.
    pub hidden: bool,
    pub history_truncated: bool,
    pub retry_count: u32,
    pub finished_at: Option<Timestamp>,
    pub runtime_ms: Option<u32>,
    /// First 8 bytes of SHA-256, 0 = none.
    pub(super) name: u64,
    pub(super) queue: u64,
    pub(super) worker: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Header {
    /// Reads the header of a stored value; the reports behind it are not looked at.
    pub fn read(value: &[u8]) -> Result<Self, BadValue> {
        let bytes: &[u8; LENGTH] = value.first_chunk().ok_or(BadValue)?;
        if bytes[0] != FORMAT {
            return Err(BadValue);
        }
        let flags = u16::from_le_bytes(at(bytes, 2));
        let engine = usize::from(flags >> ENGINE_SHIFT & 7);
        let micros = |offset| Timestamp::from_micros(i64::from_le_bytes(at(bytes, offset)));
        Ok(Self {
            state: State::from_tag(bytes[1]).ok_or(BadValue)?,
            priority: Priority::from_tag(bytes[2]).ok_or(BadValue)?,
            engine: Engine::ALL.get(engine).copied().ok_or(BadValue)?,
            hidden: flags & HIDDEN != 0,
            history_truncated: flags & TRUNCATED != 0,
            retry_count: u32::from_le_bytes(at(bytes, 4)),
            finished_at: (flags & FINISHED != 0).then(|| micros(8)),
            runtime_ms: (flags & TIMED != 0).then(|| u32::from_le_bytes(at(bytes, 16))),
            name: u64::from_le_bytes(at(bytes, 24)),
            queue: u64::from_le_bytes(at(bytes, 32)),
            worker: u64::from_le_bytes(at(bytes, 40)),
            created_at: micros(48),
            updated_at: micros(56),
        })
    }

    /// First 8 bytes of the SHA-256 of the task's name, 0 = none but placeholders.
    pub const fn name_hash(&self) -> u64 {
        self.name
    }

    /// First 8 bytes of the SHA-256 of the queue's name, 0 = none.
    pub const fn queue_hash(&self) -> u64 {
        self.queue
    }

    /// Visible, and in a state that does not last.
    pub const fn is_open(&self) -> bool {
        self.open_state().is_some()
    }

    /// The state of a visible task, unless it lasts.
    pub const fn open_state(&self) -> Option<State> {
        if !self.hidden && self.state.is_open() { Some(self.state) } else { None }
    }

    /// First 8 bytes of the SHA-256 of the worker's name, 0 = none.
    pub const fn worker_hash(&self) -> u64 {
        self.worker
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let engine = Engine::ALL.iter().position(|engine| *engine == self.engine).unwrap_or_default() as u16;
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let flags = flag(self.hidden, HIDDEN)
            | flag(self.finished_at.is_some(), FINISHED)
            | flag(self.runtime_ms.is_some(), TIMED)
            | flag(self.history_truncated, TRUNCATED)
            | engine << ENGINE_SHIFT;
        let mut bytes = [0; LENGTH];
        bytes[0] = FORMAT;
        bytes[1] = self.state.tag();
        bytes[2] = self.priority.tag();
        let mut put = |offset: usize, part: &[u8]| bytes[1 + offset..1 + offset + part.len()].copy_from_slice(part);
        put(2, &flags.to_le_bytes());
        put(4, &self.retry_count.to_le_bytes());
        put(8, &self.finished_at.unwrap_or_default().micros().to_le_bytes());
        put(16, &self.runtime_ms.unwrap_or_default().to_le_bytes());
        put(24, &self.name.to_le_bytes());
        put(32, &self.queue.to_le_bytes());
        put(40, &self.worker.to_le_bytes());
        put(48, &self.created_at.micros().to_le_bytes());
        put(56, &self.updated_at.micros().to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// Bytes at an offset of the header, the format byte not counted.
fn at<const N: usize>(bytes: &[u8; LENGTH], offset: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[1 + offset..1 + offset + N]);
    part
}
