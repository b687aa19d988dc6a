//! The body of a report: the event's `data` as JSON text, read leniently and borrowed.
//!
//! A member of an unexpected type is as good as absent: what one agent sends wrong never costs the rest of
//! its report. Of two members with one name the last one counts, as it does in the signature.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::scan;

macro_rules! members {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// A member of a body that rows are made of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Member { $($variant),+ }

        /// How many there are.
        pub(super) const MEMBERS: usize = [$($name),+].len();

        impl Member {
            const ALL: [Self; MEMBERS] = [$(Self::$variant),+];

            /// Its name on the wire.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

members! {
    TaskName "task_name", Queue "queue", Worker "worker", Priority "priority", RuntimeMs "runtime_ms", Args "args",
    Kwargs "kwargs", Result "result", Exception "exception", ExceptionMessage "exception_message",
    Traceback "traceback", Reason "reason", Tags "tags", Eta "eta", ParentTaskId "parent_task_id",
    RootTaskId "root_task_id",
}

/// The members of a body, each as its JSON text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Body<'a>([Option<&'a str>; MEMBERS]);

impl<'a> Body<'a> {
    /// Reads a body; what is not a JSON object has no members.
    pub(super) fn read(json: &'a str) -> Self {
        let mut body = Self::default();
        let take = |name: &str, value| {
            if let Some(member) = Member::named(name) {
                body.0[member as usize] = Some(value);
            }
        };
        match scan::members(json, take) {
            Some(()) => body,
            None => serde_json::from_str(json).unwrap_or_default(),
        }
    }

    pub(super) const fn get(&self, member: Member) -> Option<&'a str> {
        self.0[member as usize]
    }

    /// Every member there is.
    pub(super) fn members(&self) -> impl Iterator<Item = (Member, &'a str)> {
        Member::ALL.into_iter().filter_map(|member| Some((member, self.get(member)?)))
    }
}

/// The text of a JSON string; `None` for every other value and for the empty string.
pub(super) fn text(raw: Option<&str>) -> Option<Cow<'_, str>> {
    unquote(raw?).filter(|text| !text.is_empty())
}

/// The text of one JSON string token.
pub(super) fn unquote(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(token).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A value that is present and not null.
pub(super) fn value(raw: Option<&str>) -> Option<&str> {
    raw.filter(|raw| *raw != "null")
}

/// A non-negative number of milliseconds, rounded down.
pub(super) fn millis(raw: Option<&str>) -> Option<u32> {
    let token = raw?;
    let whole = token.parse().ok();
    whole.or_else(|| token.parse::<f64>().ok().filter(|ms| (0.0..4e9).contains(ms)).map(|ms| ms as u32))
}

/// The name of a member, if it is one of ours.
struct Name(Option<Member>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(Member::named(name)))
            }
        }
        deserializer.deserialize_identifier(Text)
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
                while let Some(Name(member)) = map.next_key()? {
                    match member {
                        Some(member) => body.0[member as usize] = Some(map.next_value::<&'de RawValue>()?.get()),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(body)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
