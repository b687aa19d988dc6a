//! What a retry at a later time says of the task it made: no event of any engine tells an eta (contract M38).

use serde::Deserialize;
use serde_json::json;

use super::action::Action;
use super::record::Command;
use super::status::Status;
use crate::id::EventId;
use crate::id::address::TaskKey;
use crate::task::{Report, Sighting};
use crate::time::Timestamp;

/// Longest engine task id that is kept, in characters.
const TASK_ID_CHARS_MAX: usize = 200;

#[derive(Deserialize)]
struct Asked {
    /// POSIX seconds.
    eta: Option<f64>,
    task_name: Option<String>,
    priority: Option<String>,
}

#[derive(Deserialize)]
struct Answered {
    new_task_id: Option<String>,
    /// Of engines that run the same task again.
    task_id: Option<String>,
}

/// Our own report of the task that a succeeded retry put off; `None` for any other command. A repetition has the
/// same id, so it changes nothing.
pub fn scheduled(command: &Command) -> Option<Sighting> {
    if command.action != Action::RetryTask || command.status != Status::Succeeded {
        return None;
    }
    let asked: Asked = serde_json::from_str(&command.payload).ok()?;
    let answered: Answered = serde_json::from_str(command.result.as_deref()?).ok()?;
    let micros = (asked.eta? * 1e6).round();
    let task_id = answered.new_task_id.or(answered.task_id)?;
    let fits = (1..=TASK_ID_CHARS_MAX).contains(&task_id.chars().count()) && !task_id.contains('\0');
    let (engine, at) = (command.engine.filter(|_| fits && micros.is_finite())?, command.completed_at?);
    let data = json!({
        "task_name": asked.task_name, "priority": asked.priority, "eta": Timestamp::from_micros(micros as i64),
    });
    let report = Report::scheduled(EventId::from_bytes(command.id.bytes()), at, &data.to_string());
    Some(Sighting { engine, key: TaskKey::new(engine, &task_id), task_id, report })
}
