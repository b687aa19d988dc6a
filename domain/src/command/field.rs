//! One JSON body, read member by member, with every mistake named.
//!
//! Members keep their text ([`RawValue`]), so a number in an override reaches the agent as the caller
//! wrote it, whatever its size.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::id::AgentId;
use crate::time::Timestamp;

/// One mistake in a body, in the shape that reference clients read (contract D27).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    pub loc: Vec<String>,
    pub msg: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// The members of one object that nobody has asked for yet, and the mistakes found so far.
pub struct Fields<'a> {
    members: BTreeMap<String, &'a RawValue>,
    loc: Vec<String>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Reads a whole body; anything but an object is one mistake.
    pub fn parse(body: &'a [u8]) -> Result<Self, Vec<FieldError>> {
        let error = |msg: &str, kind| vec![FieldError { loc: vec!["body".into()], msg: msg.into(), kind }];
        let raw: &RawValue =
            serde_json::from_slice(body).map_err(|e| error(&format!("invalid JSON: {e}"), "json_invalid"))?;
        Self::of(raw, vec!["body".into()]).ok_or_else(|| error("the body must be an object", "dict_type"))
    }

    fn of(raw: &'a RawValue, loc: Vec<String>) -> Option<Self> {
        let members = serde_json::from_str(raw.get()).ok()?;
        Some(Self { members, loc, errors: Vec::new() })
    }

    pub fn fail(&mut self, name: &str, msg: impl Into<String>, kind: &'static str) {
        let mut loc = self.loc.clone();
        if !name.is_empty() {
            loc.push(name.to_owned());
        }
        self.errors.push(FieldError { loc, msg: msg.into(), kind });
    }

    /// Takes a member; `null` counts as absent.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.remove(name).filter(|raw| raw.get() != "null")
    }

    fn missing<T>(&mut self, name: &str, present: bool, value: Option<T>) -> Option<T> {
        if !present {
            self.fail(name, "field required", "missing");
        }
        value
    }

    fn text_of(&mut self, name: &str, raw: &RawValue, min: usize, max: usize) -> Option<String> {
        let Ok(text) = serde_json::from_str::<String>(raw.get()) else {
            self.fail(name, "must be a string", "string_type");
            return None;
        };
        let chars = text.chars().count();
        if chars < min {
            self.fail(name, format!("must have at least {min} characters"), "string_too_short");
            return None;
        }
        if chars > max {
            self.fail(name, format!("must have at most {max} characters"), "string_too_long");
            return None;
        }
        Some(text)
    }

    pub fn optional_text(&mut self, name: &str, min: usize, max: usize) -> Option<String> {
        let raw = self.take(name)?;
        self.text_of(name, raw, min, max)
    }

    pub fn text(&mut self, name: &str, min: usize, max: usize) -> Option<String> {
        let raw = self.take(name);
        let value = raw.and_then(|raw| self.text_of(name, raw, min, max));
        self.missing(name, raw.is_some(), value)
    }

    pub fn optional_integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let raw = self.take(name)?;
        let Some(value) = whole(raw.get()) else {
            self.fail(name, "must be an integer", "int_type");
            return None;
        };
        if value < min {
            self.fail(name, format!("must be at least {min}"), "greater_than_equal");
            return None;
        }
        if value > max {
            self.fail(name, format!("must be at most {max}"), "less_than_equal");
            return None;
        }
        Some(value)
    }

    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let present = self.members.get(name).is_some_and(|raw| raw.get() != "null");
        let value = self.optional_integer(name, min, max);
        self.missing(name, present, value)
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let Some(raw) = self.take(name) else { return false };
        match raw.get() {
            "true" => true,
            "false" => false,
            _ => {
                self.fail(name, "must be true or false", "bool_type");
                false
            }
        }
    }

    pub fn optional_instant(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.optional_text(name, 1, 64)?;
        match Timestamp::parse(&text) {
            Ok(at) => Some(at),
            Err(bad) => {
                self.fail(name, bad.to_string(), "datetime_parsing");
                None
            }
        }
    }

    /// A text in one of a closed set of words; the message of the set's error lists them.
    pub fn optional_word<T>(&mut self, name: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.optional_text(name, 1, 64)?;
        self.word_of(name, &text)
    }

    /// Words of a closed set, as a text with commas or as a list.
    pub fn optional_words<T>(&mut self, name: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let is_list = self.members.get(name).is_some_and(|raw| raw.get().starts_with('['));
        let text =
            if is_list { self.optional_texts(name, 64, 64)?.join(",") } else { self.optional_text(name, 1, 64)? };
        self.word_of(name, &text)
    }

    fn word_of<T>(&mut self, name: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        match text.parse() {
            Ok(word) => Some(word),
            Err(error) => {
                self.fail(name, error.to_string(), "enum");
                None
            }
        }
    }

    pub fn word<T>(&mut self, name: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let present = self.members.get(name).is_some_and(|raw| raw.get() != "null");
        let value = self.optional_word(name);
        self.missing(name, present, value)
    }

    pub fn agent(&mut self) -> Option<AgentId> {
        let text = self.text("agent_id", 1, 64)?;
        match text.parse() {
            Ok(agent) => Some(agent),
            Err(bad) => {
                self.fail("agent_id", format!("{bad}"), "uuid_parsing");
                None
            }
        }
    }

    /// A list of texts; null is absent.
    pub fn optional_texts(&mut self, name: &str, count_max: usize, text_max: usize) -> Option<Vec<String>> {
        let raw = self.take(name)?;
        let Ok(texts) = serde_json::from_str::<Vec<String>>(raw.get()) else {
            self.fail(name, "must be a list of strings", "list_type");
            return None;
        };
        if texts.is_empty() || texts.len() > count_max {
            let kind = if texts.is_empty() { "too_short" } else { "too_long" };
            self.fail(name, format!("must hold 1 to {count_max} items"), kind);
            return None;
        }
        if texts.iter().any(|text| text.is_empty() || text.chars().count() > text_max) {
            self.fail(name, format!("each item must have 1 to {text_max} characters"), "string_too_long");
            return None;
        }
        Some(texts)
    }

    /// A required member that is an object of its own; its mistakes are collected with [`Self::adopt`].
    pub fn object(&mut self, name: &str) -> Option<Fields<'a>> {
        let Some(raw) = self.take(name) else {
            self.fail(name, "field required", "missing");
            return None;
        };
        let mut loc = self.loc.clone();
        loc.push(name.to_owned());
        let inner = Fields::of(raw, loc);
        if inner.is_none() {
            self.fail(name, "must be an object", "dict_type");
        }
        inner
    }

    /// Takes over the mistakes of an inner object; members nobody asked for are mistakes too.
    pub fn adopt(&mut self, mut inner: Fields<'_>) {
        inner.refuse_unknown();
        self.errors.append(&mut inner.errors);
    }

    fn refuse_unknown(&mut self) {
        let names: Vec<String> = std::mem::take(&mut self.members).into_keys().collect();
        for name in names {
            self.fail(&name, "unknown member", "extra_forbidden");
        }
    }

    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// All mistakes of the body, or the value built from it.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        self.refuse_unknown();
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            Some(_) | None => Err(self.errors),
        }
    }
}

/// A whole number as JSON writes it; `2.0` is one.
fn whole(text: &str) -> Option<i64> {
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    number.as_i64().or_else(|| crate::number::whole(number.as_f64()?))
}
