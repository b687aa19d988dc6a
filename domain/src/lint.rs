//! What is unwise about how workers are configured, as far as their engine tells. Pure: settings in, findings out.

use serde_json::{Map, Value};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Tasks are lost, or others can run code here.
    Error,
    Warning,
    Info,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One thing that is unwise, and the setting that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A word for programs; never changes its meaning.
    pub rule: &'static str,
    pub severity: Severity,
    /// The engine's name of the setting.
    pub setting: &'static str,
    /// A sentence for people.
    pub message: &'static str,
}

/// A Celery worker's settings, as its `inspect conf` tells them; a setting that was not told is not judged.
struct Conf<'a>(&'a Map<String, Value>);

impl Conf<'_> {
    fn is(&self, name: &str, value: bool) -> bool {
        self.0.get(name).and_then(Value::as_bool) == Some(value)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    /// Told, and set to nothing.
    fn is_unset(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Value::is_null)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The content types a worker takes, by their short names.
    fn accepted(&self) -> Option<Vec<&str>> {
        Some(self.0.get("accept_content")?.as_array()?.iter().map(short_name).collect())
    }

    fn accepts(&self, serializer: &str) -> bool {
        let accepted = self.accepted();
        let named = |kind: &str| serializer.ends_with(kind) || (kind == "serialize" && serializer == "pickle");
        accepted.is_none_or(|accepted| accepted.into_iter().any(named))
    }
}

/// `json` for `application/json`, `serialize` for `application/x-python-serialize`.
fn short_name(kind: &Value) -> &str {
    let kind = kind.as_str().unwrap_or_default();
    kind.rsplit(['/', '-']).next().unwrap_or(kind)
}

/// Judges one Celery worker's settings, what matters most first.
pub fn celery(conf: &Map<String, Value>) -> Vec<Finding> {
    let conf = Conf(conf);
    let mut findings = Vec::new();
    let mut find = |holds: bool, rule, severity, setting, message| {
        if holds {
            findings.push(Finding { rule, severity, setting, message });
        }
    };
    let takes_pickle =
        conf.accepted().is_some_and(|kinds| kinds.iter().any(|kind| matches!(*kind, "pickle" | "serialize")));
    find(
        takes_pickle,
        "pickle_accepted",
        Severity::Error,
        "accept_content",
        "Whoever can write to the broker can run any code in this worker, because it unpickles messages.",
    );
    find(
        conf.text("task_serializer").is_some_and(|serializer| !conf.accepts(serializer)),
        "own_tasks_refused",
        Severity::Error,
        "task_serializer",
        "The worker refuses tasks that it sends itself: accept_content does not hold its task_serializer.",
    );
    let (soft, hard) = (conf.number("task_soft_time_limit"), conf.number("task_time_limit"));
    find(
        soft.zip(hard).is_some_and(|(soft, hard)| soft >= hard),
        "soft_limit_never_reached",
        Severity::Warning,
        "task_soft_time_limit",
        "The soft time limit is not below the hard one, so tasks are killed without a warning.",
    );
    let late = conf.is("task_acks_late", true);
    find(
        late && conf.is("task_reject_on_worker_lost", false),
        "lost_with_its_process",
        Severity::Warning,
        "task_reject_on_worker_lost",
        "A task whose process is killed is acknowledged and lost, although task_acks_late is on.",
    );
    let prefetch = conf.number("worker_prefetch_multiplier");
    find(
        prefetch == Some(0.0),
        "prefetch_without_limit",
        Severity::Warning,
        "worker_prefetch_multiplier",
        "The worker takes as many messages as there are, so others stay idle and its memory grows.",
    );
    find(
        late && prefetch.is_some_and(|prefetch| prefetch > 1.0),
        "prefetch_behind_long_tasks",
        Severity::Info,
        "worker_prefetch_multiplier",
        "Messages wait behind long tasks of this worker while others are idle; 1 is usual with task_acks_late.",
    );
    find(
        conf.number("broker_heartbeat") == Some(0.0),
        "no_heartbeat",
        Severity::Warning,
        "broker_heartbeat",
        "A connection that broke silently is not noticed, because heartbeats to the broker are off.",
    );
    find(
        conf.is("enable_utc", false),
        "local_times",
        Severity::Warning,
        "enable_utc",
        "Times of messages are local, so an eta means another moment on a machine in another zone.",
    );
    find(
        conf.is("task_acks_late", false),
        "lost_with_its_worker",
        Severity::Info,
        "task_acks_late",
        "A task that runs when its worker dies is lost, because it was acknowledged before it ran.",
    );
    find(
        conf.is_unset("task_time_limit") && conf.is_unset("task_soft_time_limit"),
        "no_time_limit",
        Severity::Info,
        "task_time_limit",
        "A task that hangs holds its place for ever, because there is no time limit.",
    );
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Settings that make tasks of one queue behave differently when its workers disagree on them.
pub const SHARED: [&str; 5] =
    ["task_acks_late", "task_reject_on_worker_lost", "task_time_limit", "task_soft_time_limit", "timezone"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(conf: Value) -> Vec<&'static str> {
        celery(conf.as_object().unwrap()).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn celerys_defaults_are_only_remarked_upon() {
        let defaults = json!({
            "task_serializer": "json", "result_serializer": "json", "accept_content": ["json"], "task_acks_late": false,
            "task_reject_on_worker_lost": null, "worker_prefetch_multiplier": 4, "task_time_limit": null,
            "task_soft_time_limit": null, "broker_heartbeat": 120, "enable_utc": true,
        });
        assert_eq!(rules(defaults), ["lost_with_its_worker", "no_time_limit"]);
    }

    #[test]
    fn each_rule_has_its_setting() {
        for (conf, rule) in [
            (json!({"accept_content": ["json", "pickle"]}), "pickle_accepted"),
            (json!({"accept_content": ["application/x-python-serialize"]}), "pickle_accepted"),
            (json!({"accept_content": ["json"], "task_serializer": "yaml"}), "own_tasks_refused"),
            (json!({"task_soft_time_limit": 60, "task_time_limit": 60}), "soft_limit_never_reached"),
            (json!({"task_acks_late": true, "task_reject_on_worker_lost": false}), "lost_with_its_process"),
            (json!({"worker_prefetch_multiplier": 0}), "prefetch_without_limit"),
            (json!({"task_acks_late": true, "worker_prefetch_multiplier": 4}), "prefetch_behind_long_tasks"),
            (json!({"broker_heartbeat": 0}), "no_heartbeat"),
            (json!({"enable_utc": false}), "local_times"),
        ] {
            assert_eq!(rules(conf), [rule]);
        }
    }

    #[test]
    fn what_was_not_told_is_not_judged() {
        assert_eq!(rules(json!({})), Vec::<&str>::new());
        let odd = json!({"accept_content": "json", "task_time_limit": "x", "task_acks_late": 1, "task_serializer": 5});
        assert_eq!(rules(odd), Vec::<&str>::new());
        assert_eq!(
            rules(json!({"accept_content": ["application/json"], "task_serializer": "json"})),
            Vec::<&str>::new()
        );
    }
}
