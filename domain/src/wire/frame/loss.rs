//! What an agent admits to have lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::wire::FrameError;

/// The largest count that survives a reader of doubles.
const COUNT_MAX: u64 = (1 << 53) - 1;
const ID_MAX: usize = 64;

/// Cumulative counts of one buffer file. The groups by reason and by kind overlap: never add them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryLoss {
    pub buffer_id: String,
    pub runtime_id: String,
    #[serde(default)]
    pub capacity_evicted_frames: u64,
    #[serde(default)]
    pub content_rejected_frames: u64,
    #[serde(default)]
    pub event_records: u64,
    #[serde(default)]
    pub command_results: u64,
    #[serde(default)]
    pub other_frames: u64,
    #[serde(default)]
    pub unclassified_frames: u64,
    /// By engine; starts again with a new `runtime_id`.
    #[serde(default)]
    pub adapter_events: BTreeMap<String, u64>,
}

impl TelemetryLoss {
    /// Reads a loss strictly: a shape we cannot read ends the session instead of hiding a loss.
    pub(super) fn read(json: Option<&RawValue>) -> Result<Option<Self>, FrameError> {
        let Some(json) = json else { return Ok(None) };
        let loss: Self = serde_json::from_str(json.get()).map_err(|_| FrameError::TelemetryLoss)?;
        let ids = [&loss.buffer_id, &loss.runtime_id];
        let counts = [
            loss.capacity_evicted_frames,
            loss.content_rejected_frames,
            loss.event_records,
            loss.command_results,
            loss.other_frames,
            loss.unclassified_frames,
        ];
        let sound = ids.iter().all(|id| (1..=ID_MAX).contains(&id.chars().count()))
            && counts.iter().chain(loss.adapter_events.values()).all(|count| *count <= COUNT_MAX);
        if sound { Ok(Some(loss)) } else { Err(FrameError::TelemetryLoss) }
    }
}
