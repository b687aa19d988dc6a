//! Event batches, item by item: one bad item does not spoil the others.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::lenient::{Text, anything_else_is_none, skip_list};

/// Events of one frame. It is acked as a whole, whatever its items look like.
#[derive(Debug)]
pub struct EventBatch<'a> {
    /// The frame's id: what an ack names.
    pub id: Cow<'a, str>,
    pub events: Vec<EventItem<'a>>,
    /// Items that are no objects; one if there is no list of events at all.
    pub malformed: usize,
}

/// One thing that happened, as the agent tells it. Every member may be missing.
#[derive(Debug, Default)]
pub struct EventItem<'a> {
    pub id: Option<Cow<'a, str>>,
    pub kind: Option<Cow<'a, str>>,
    pub engine: Option<Cow<'a, str>>,
    pub task_id: Option<Cow<'a, str>>,
    pub occurred_at: Option<Cow<'a, str>>,
    pub data: Option<&'a RawValue>,
}

impl<'a> EventBatch<'a> {
    pub(super) fn read(id: Cow<'a, str>, json: &'a str) -> Self {
        let List { events, malformed } =
            serde_json::from_str(json).unwrap_or(List { events: Vec::new(), malformed: 1 });
        Self { id, events, malformed }
    }

    /// Items in the frame.
    pub fn received(&self) -> usize {
        self.events.len() + self.malformed
    }
}

struct List<'a> {
    events: Vec<EventItem<'a>>,
    malformed: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = List<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List<'de>, A::Error> {
        let mut list = List { events: Vec::new(), malformed: 1 };
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Events => {
                    list = map.next_value::<Items<'de>>()?.0.unwrap_or(List { events: Vec::new(), malformed: 1 });
                }
                Key::Id | Key::Kind | Key::Engine | Key::TaskId | Key::OccurredAt | Key::Data | Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(list)
    }
}

struct Items<'a>(Option<List<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor).map(Self)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Option<List<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List { events: Vec::new(), malformed: 0 };
        while let Some(Item(item)) = seq.next_element()? {
            match item {
                Some(event) => list.events.push(event),
                None => list.malformed += 1,
            }
        }
        Ok(Some(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    anything_else_is_none!();
}

struct Item<'a>(Option<EventItem<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor).map(Self)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Option<EventItem<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut event = EventItem::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Id => event.id = map.next_value::<Text<'de>>()?.0,
                Key::Kind => event.kind = map.next_value::<Text<'de>>()?.0,
                Key::Engine => event.engine = map.next_value::<Text<'de>>()?.0,
                Key::TaskId => event.task_id = map.next_value::<Text<'de>>()?.0,
                Key::OccurredAt => event.occurred_at = map.next_value::<Text<'de>>()?.0,
                Key::Data => event.data = Some(map.next_value::<&'de RawValue>()?),
                Key::Events | Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(event))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_list(seq)
    }

    anything_else_is_none!();
}

/// Keys of a batch's payload and of its items.
enum Key {
    Events,
    Id,
    Kind,
    Engine,
    TaskId,
    OccurredAt,
    Data,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "events" => Key::Events,
            "id" => Key::Id,
            "kind" => Key::Kind,
            "engine" => Key::Engine,
            "task_id" => Key::TaskId,
            "occurred_at" => Key::OccurredAt,
            "data" => Key::Data,
            _ => Key::Other,
        })
    }
}

/// The members of an object whose values are strings, in wire order.
#[derive(Default)]
pub(super) struct Texts<'a>(pub(super) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor).map(|texts| Self(texts.unwrap_or_default()))
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Option<Vec<(Cow<'de, str>, Cow<'de, str>)>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some((Text(key), Text(value))) = map.next_entry()? {
            if let (Some(key), Some(value)) = (key, value) {
                texts.push((key, value));
            }
        }
        Ok(Some(texts))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_list(seq)
    }

    anything_else_is_none!();
}
