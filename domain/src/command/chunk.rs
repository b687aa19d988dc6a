//! Frozen ids of a bulk command, cut to what one frame may hold (contract D19).
//!
//! An agent dies on a frame above 1 MiB, and works through a chunk before it reads on, so chunks are small:
//! at most 250 ids and 64 KiB.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use serde_json::value::RawValue;

use super::wire::overlay;
use crate::task::Priority;

pub const IDS_MAX: usize = 250;
pub const BYTES_MAX: usize = 64 * 1024;

/// Room for the frame around the ids: envelope, signature, member names.
const ENVELOPE_BYTES: usize = 1024;

/// A task as the filter found it; later changes of the row do not change the command.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FrozenTask {
    pub task_id: String,
    pub name: Option<String>,
    pub priority: Option<String>,
}

impl FrozenTask {
    pub fn new(task_id: impl Into<String>, name: Option<String>, priority: Option<Priority>) -> Self {
        Self { task_id: task_id.into(), name, priority: priority.map(|priority| priority.to_string()) }
    }

    /// Bytes in the frame: the id in `task_ids` and as key of two maps, at worst escaped to six per byte.
    fn bytes(&self) -> usize {
        let text = |text: &str| serde_json::to_string(text).map_or(text.len() * 6, |json| json.len()) + 1;
        let (id, name) = (text(&self.task_id), self.name.as_deref().map(text));
        id + name.map_or(0, |name| id + name) + self.priority.as_deref().map_or(0, |label| id + text(label))
    }
}

/// One frame's worth of a bulk command.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chunk {
    pub tasks: Vec<FrozenTask>,
}

/// Cuts a set into chunks, in order; a repeated id is kept once.
pub fn split(tasks: &[FrozenTask]) -> Vec<Chunk> {
    let mut seen = HashSet::new();
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut room = 0;
    for task in tasks.iter().filter(|task| seen.insert(task.task_id.as_str())) {
        let bytes = task.bytes();
        match chunks.last_mut() {
            Some(chunk) if chunk.tasks.len() < IDS_MAX && bytes <= room => {
                chunk.tasks.push(task.clone());
                room -= bytes;
            }
            Some(_) | None => {
                chunks.push(Chunk { tasks: vec![task.clone()] });
                room = (BYTES_MAX - ENVELOPE_BYTES).saturating_sub(bytes);
            }
        }
    }
    chunks
}

/// What became of each id of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChunkIds {
    /// Old id to new id.
    pub succeeded: BTreeMap<String, String>,
    /// Id to the agent's words.
    pub failed: BTreeMap<String, String>,
    pub skipped: Vec<String>,
}

/// A bulk command's result with what became of each id; `unanswered` are the ids of chunks without an outcome.
pub fn result_with_ids(result: Option<&str>, answered: &[ChunkIds], unanswered: &[Chunk]) -> String {
    let mut all = ChunkIds::default();
    for ids in answered {
        all.succeeded.extend(ids.succeeded.clone());
        all.failed.extend(ids.failed.clone());
        all.skipped.extend(ids.skipped.iter().cloned());
    }
    let rest = unanswered.iter().flat_map(|chunk| &chunk.tasks).map(|task| task.task_id.clone());
    all.skipped.extend(rest);
    let ids = json!({ "new_task_ids": all.succeeded, "failures": all.failed, "skipped_ids": all.skipped });
    overlay(result.unwrap_or("{}"), &ids.to_string())
}

/// The parts of an agent's bulk result that speak of single ids; engines name them differently (WIRE 6.3).
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct BulkResult<'a> {
    #[serde(borrow)]
    new_task_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    failures: Option<&'a RawValue>,
    #[serde(borrow)]
    errors: Option<&'a RawValue>,
    succeeded: Option<u64>,
    retried: Option<u64>,
}

impl Chunk {
    /// Reads what became of each id. An id the answer does not speak of was skipped, unless the answer counts
    /// every id as done.
    pub fn outcome(&self, success: bool, result: Option<&str>, error: Option<&str>) -> ChunkIds {
        let mut ids = ChunkIds::default();
        if !success {
            let why = error.unwrap_or("failed");
            ids.failed = self.tasks.iter().map(|task| (task.task_id.clone(), why.to_owned())).collect();
            return ids;
        }
        let said: BulkResult<'_> = result.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let map = |raw: Option<&RawValue>| -> BTreeMap<String, serde_json::Value> {
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        };
        // RQ runs the job itself again, and lists those it did.
        let list = |raw: Option<&RawValue>| -> HashSet<String> {
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        };
        let (new_ids, same_ids) = (map(said.new_task_ids), list(said.new_task_ids));
        let mut failures = map(said.failures);
        failures.extend(map(said.errors));
        let all_done = said.succeeded.or(said.retried).is_some_and(|count| count >= self.tasks.len() as u64);
        for task in &self.tasks {
            let id = task.task_id.clone();
            match (new_ids.get(&id), failures.get(&id)) {
                (Some(new), _) => {
                    ids.succeeded.insert(id, plain(new));
                }
                (None, Some(why)) => {
                    ids.failed.insert(id, plain(why));
                }
                (None, None) if all_done || same_ids.contains(&id) => {
                    ids.succeeded.insert(id.clone(), id);
                }
                (None, None) => ids.skipped.push(id),
            }
        }
        ids
    }
}

/// A text as it is, anything else as JSON.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tasks(count: usize) -> Vec<FrozenTask> {
        (0..count).map(|n| FrozenTask::new(format!("t{n}"), Some("a.b".into()), Some(Priority::Normal))).collect()
    }

    #[test]
    fn chunks_hold_at_most_250_ids_and_every_id_once() {
        let mut twice = tasks(501);
        twice.extend(tasks(10));
        let sizes: Vec<_> = split(&twice).iter().map(|chunk| chunk.tasks.len()).collect();
        assert_eq!(sizes, [250, 250, 1]);
        assert!(split(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_chunk_outgrows_a_frame(names in prop::collection::vec("\\PC{1,200}", 1..300)) {
            let tasks: Vec<_> =
                names.iter().map(|name| FrozenTask::new(name.clone(), Some(name.repeat(2)), None)).collect();
            let chunks = split(&tasks);
            for chunk in &chunks {
                let parameters = crate::command::wire::chunk_parameters(None, chunk);
                prop_assert!(parameters.len() <= BYTES_MAX, "{}", parameters.len());
            }
            let kept: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.tasks).map(|task| &task.task_id).collect();
            let mut seen = HashSet::new();
            let wanted: Vec<_> = names.iter().filter(|name| seen.insert(name.as_str())).collect();
            prop_assert_eq!(kept, wanted);
        }
    }

    #[test]
    fn each_id_gets_the_outcome_the_agent_reported() {
        let chunk = Chunk { tasks: tasks(3) };
        let celery = r#"{"succeeded":1,"failed":1,"new_task_ids":{"t0":"n0"},"failures":{"t1":"boom"}}"#;
        let ids = chunk.outcome(true, Some(celery), None);
        assert_eq!(ids.succeeded.get("t0").map(String::as_str), Some("n0"));
        assert_eq!(ids.failed.get("t1").map(String::as_str), Some("boom"));
        assert_eq!(ids.skipped, ["t2"]);
        let rq = r#"{"retried":3,"skipped":0,"errors":[],"new_task_ids":null}"#;
        assert_eq!(chunk.outcome(true, Some(rq), None).succeeded.len(), 3);
        assert_eq!(chunk.outcome(false, None, Some("no broker")).failed["t2"], "no broker");
    }

    #[test]
    fn an_id_that_keeps_its_name_is_not_skipped_because_another_was() {
        let chunk = Chunk { tasks: tasks(3) };
        let rq = r#"{"retried":1,"skipped":1,"errors":{"t0":"still running"},"new_task_ids":["t2"]}"#;
        let ids = chunk.outcome(true, Some(rq), None);
        assert_eq!(ids.succeeded, BTreeMap::from([("t2".to_owned(), "t2".to_owned())]));
        assert_eq!(ids.failed["t0"], "still running");
        assert_eq!(ids.skipped, ["t1"]);
    }
}
