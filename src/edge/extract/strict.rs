//! JSON as strictly as its text allows: no member twice, no NUL in a string, no bottomless nesting.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::edge::error::Problem;

/// Deeper than any honest request and far from the end of the stack.
const DEPTH_MAX: usize = 64;

/// Parses a whole text, or says where it is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Problem::new("json_invalid", &["body"], "The body is not valid UTF-8"))?;
    let found = RefCell::new(None);
    let path = RefCell::new(Vec::new());
    let mut json = serde_json::Deserializer::from_str(text);
    let value = Node { found: &found, path: &path, depth: 0 }.deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value));
    value.map_err(|error| {
        found.into_inner().unwrap_or_else(|| {
            let msg = format!("JSON decode error at line {}, column {}", error.line(), error.column());
            Problem::new("json_invalid", &["body"], msg)
        })
    })
}

/// One value to come. What it finds wrong is put aside, because serde's errors carry only text.
#[derive(Clone, Copy)]
struct Node<'a> {
    found: &'a RefCell<Option<Problem>>,
    path: &'a RefCell<Vec<Value>>,
    depth: usize,
}

impl Node<'_> {
    fn refuse<E: Error>(&self, kind: &'static str, msg: &str) -> E {
        let mut loc = vec![Value::from("body")];
        loc.extend(self.path.borrow().iter().cloned());
        *self.found.borrow_mut() = Some(Problem { loc, msg: msg.to_owned(), kind });
        E::custom(msg)
    }

    fn deeper<E: Error>(&self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.refuse("json_depth", "The body is nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1, ..*self })
    }

    fn string<E: Error>(&self, text: String) -> Result<String, E> {
        if text.contains('\0') {
            return Err(self.refuse("string_nul", "Strings may not contain NUL"));
        }
        Ok(text)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| self.refuse("json_invalid", "number out of range"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.string(text.to_owned()).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let node = self.deeper()?;
        let mut list = Vec::new();
        loop {
            self.path.borrow_mut().push(Value::from(list.len()));
            let item = items.next_element_seed(node)?;
            self.path.borrow_mut().pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let node = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let key = self.string(key)?;
            self.path.borrow_mut().push(Value::from(key.as_str()));
            if object.contains_key(&key) {
                return Err(self.refuse("duplicate_key", "The member is given twice"));
            }
            let value = members.next_value_seed(node)?;
            self.path.borrow_mut().pop();
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> (&'static str, Vec<Value>) {
        parse(text).map_err(|problem| (problem.kind, problem.loc)).expect_err("refused")
    }

    #[test]
    fn each_vice_is_named_with_its_place() {
        assert_eq!(refused(br#"{"a":1,"a":2}"#), ("duplicate_key", vec!["body".into(), "a".into()]));
        let nested = refused(br#"{"a":[0,{"b":"x\u0000"}]}"#);
        assert_eq!(nested, ("string_nul", vec!["body".into(), "a".into(), 1.into(), "b".into()]));
        assert_eq!(refused(b"{\"a\":\"\xff\"}").0, "json_invalid");
        assert_eq!(refused(b"{\"a\":1}x").0, "json_invalid");
        assert_eq!(refused(br#"{"a":"\ud800"}"#).0, "json_invalid");
        assert_eq!(refused(b"{\"a\":1e999}").0, "json_invalid");
        assert_eq!(refused(b"").0, "json_invalid");
        assert_eq!(refused("[".repeat(10_000).as_bytes()).0, "json_depth");
    }

    #[test]
    fn honest_json_is_read_as_it_stands() {
        let text = r#"{"a":[1,-2,3.5,null,true,"é\n"],"b":{}}"#;
        assert_eq!(parse(text.as_bytes()).ok(), serde_json::from_str(text).ok());
    }
}
