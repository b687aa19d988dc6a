//! The body of a report: the event's `data` as JSON text, read leniently and borrowed.
//!
//! A member of an unexpected type is as good as absent: what one agent sends wrong never costs the rest of
//! its report. Of two members with one name the last one counts, as it does in the signature.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of a body that a row is made of, each as its raw JSON text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) task_name: Option<&'a RawValue>,
    pub(super) queue: Option<&'a RawValue>,
    pub(super) worker: Option<&'a RawValue>,
    pub(super) priority: Option<&'a RawValue>,
    pub(super) runtime_ms: Option<&'a RawValue>,
    pub(super) args: Option<&'a RawValue>,
    pub(super) kwargs: Option<&'a RawValue>,
    pub(super) result: Option<&'a RawValue>,
    pub(super) exception: Option<&'a RawValue>,
    pub(super) exception_message: Option<&'a RawValue>,
    pub(super) traceback: Option<&'a RawValue>,
    pub(super) reason: Option<&'a RawValue>,
    pub(super) tags: Option<&'a RawValue>,
    pub(super) eta: Option<&'a RawValue>,
    pub(super) parent_task_id: Option<&'a RawValue>,
    pub(super) root_task_id: Option<&'a RawValue>,
}

impl<'a> Body<'a> {
    /// Reads a body; what is not a JSON object has no members.
    pub(super) fn read(json: &'a str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Every member by its name on the wire.
    pub(super) fn members(&self) -> [(&'static str, Option<&'a RawValue>); 16] {
        [
            ("task_name", self.task_name),
            ("queue", self.queue),
            ("worker", self.worker),
            ("priority", self.priority),
            ("runtime_ms", self.runtime_ms),
            ("args", self.args),
            ("kwargs", self.kwargs),
            ("result", self.result),
            ("exception", self.exception),
            ("exception_message", self.exception_message),
            ("traceback", self.traceback),
            ("reason", self.reason),
            ("tags", self.tags),
            ("eta", self.eta),
            ("parent_task_id", self.parent_task_id),
            ("root_task_id", self.root_task_id),
        ]
    }
}

/// The text of a JSON string; `None` for every other value and for the empty string.
pub(super) fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    unquote(raw?.get()).filter(|text| !text.is_empty())
}

/// The text of one JSON string token.
pub(super) fn unquote(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(token).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A value that is present and not null.
pub(super) fn value(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// A non-negative number of milliseconds, rounded down.
pub(super) fn millis(raw: Option<&RawValue>) -> Option<u32> {
    let token = raw?.get();
    let whole = token.parse().ok();
    whole.or_else(|| token.parse::<f64>().ok().filter(|ms| (0.0..4e9).contains(ms)).map(|ms| ms as u32))
}

enum Member {
    TaskName,
    Queue,
    Worker,
    Priority,
    RuntimeMs,
    Args,
    Kwargs,
    Result,
    Exception,
    ExceptionMessage,
    Traceback,
    Reason,
    Tags,
    Eta,
    ParentTaskId,
    RootTaskId,
    Other,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Member;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Member, E> {
                Ok(match name {
                    "task_name" => Member::TaskName,
                    "queue" => Member::Queue,
                    "worker" => Member::Worker,
                    "priority" => Member::Priority,
                    "runtime_ms" => Member::RuntimeMs,
                    "args" => Member::Args,
                    "kwargs" => Member::Kwargs,
                    "result" => Member::Result,
                    "exception" => Member::Exception,
                    "exception_message" => Member::ExceptionMessage,
                    "traceback" => Member::Traceback,
                    "reason" => Member::Reason,
                    "tags" => Member::Tags,
                    "eta" => Member::Eta,
                    "parent_task_id" => Member::ParentTaskId,
                    "root_task_id" => Member::RootTaskId,
                    _ => Member::Other,
                })
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Body<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
                let mut body = Body::default();
                while let Some(member) = map.next_key::<Member>()? {
                    let place = match member {
                        Member::TaskName => &mut body.task_name,
                        Member::Queue => &mut body.queue,
                        Member::Worker => &mut body.worker,
                        Member::Priority => &mut body.priority,
                        Member::RuntimeMs => &mut body.runtime_ms,
                        Member::Args => &mut body.args,
                        Member::Kwargs => &mut body.kwargs,
                        Member::Result => &mut body.result,
                        Member::Exception => &mut body.exception,
                        Member::ExceptionMessage => &mut body.exception_message,
                        Member::Traceback => &mut body.traceback,
                        Member::Reason => &mut body.reason,
                        Member::Tags => &mut body.tags,
                        Member::Eta => &mut body.eta,
                        Member::ParentTaskId => &mut body.parent_task_id,
                        Member::RootTaskId => &mut body.root_task_id,
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *place = Some(map.next_value::<&'de RawValue>()?);
                }
                Ok(body)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
