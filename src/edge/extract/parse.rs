//! Parsers of single values. Each says in a sentence what it wanted.
//!
//! A query parameter arrives as a text; numbers and booleans are then read out of it.

use std::ops::RangeInclusive;
use std::str::FromStr;

use domain::time::Timestamp;
use serde_json::Value;

use crate::edge::error::Problem;

/// Reads one value, or says what is wrong with it (the place is filled in by the caller).
pub trait Parse<T> {
    fn parse(&self, value: &Value) -> Result<T, Problem>;
}

impl<T, F: Fn(&Value) -> Result<T, Problem>> Parse<T> for F {
    fn parse(&self, value: &Value) -> Result<T, Problem> {
        self(value)
    }
}

pub fn wrong(kind: &'static str, msg: impl Into<String>) -> Problem {
    Problem::new(kind, &[], msg)
}

/// A string with a number of characters in a range.
pub fn text(length: RangeInclusive<usize>) -> impl Fn(&Value) -> Result<String, Problem> {
    move |value| {
        let Value::String(text) = value else {
            return Err(wrong("string_type", "Input should be a valid string"));
        };
        let count = text.chars().count();
        if count < *length.start() {
            return Err(wrong(
                "string_too_short",
                format!("String should have at least {} characters", length.start()),
            ));
        }
        if count > *length.end() {
            return Err(wrong("string_too_long", format!("String should have at most {} characters", length.end())));
        }
        Ok(text.clone())
    }
}

/// As [`text`], and more than white space.
pub fn name(length: RangeInclusive<usize>) -> impl Fn(&Value) -> Result<String, Problem> {
    let text = text(length);
    move |value| {
        let text = text(value)?;
        if text.trim().is_empty() { Err(wrong("string_blank", "String should not be blank")) } else { Ok(text) }
    }
}

/// A whole number in a range; also as the text of a query parameter.
pub fn integer(range: RangeInclusive<i64>) -> impl Fn(&Value) -> Result<i64, Problem> {
    move |value| {
        let number = match value {
            Value::Number(number) => number.as_i64().or_else(|| domain::number::whole(number.as_f64()?)),
            Value::String(text) if is_integer(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let number = number.ok_or_else(|| wrong("int_parsing", "Input should be a valid integer"))?;
        if number < *range.start() {
            let msg = format!("Input should be greater than or equal to {}", range.start());
            return Err(wrong("greater_than_equal", msg));
        }
        if number > *range.end() {
            return Err(wrong("less_than_equal", format!("Input should be less than or equal to {}", range.end())));
        }
        Ok(number)
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// A boolean; in a query the words that clients write for one, in any case.
pub fn boolean(value: &Value) -> Result<bool, Problem> {
    let read = match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    };
    read.ok_or_else(|| wrong("bool_parsing", "Input should be true or false"))
}

/// Anything with a text form of its own: ids, roles, engines.
pub fn form<T: FromStr>(msg: &'static str) -> impl Fn(&Value) -> Result<T, Problem> {
    move |value| value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| wrong("value_error", msg))
}

/// A typed id.
pub fn id<T: FromStr>(value: &Value) -> Result<T, Problem> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| wrong("uuid_parsing", "Input should be a valid UUID"))
}

/// An RFC 3339 instant with an offset.
pub fn timestamp(value: &Value) -> Result<Timestamp, Problem> {
    // A plus sign that nobody escaped arrives in a query as a space.
    let parsed =
        value.as_str().and_then(|text| Timestamp::parse(&text.replace(' ', "+")).ok().or(Timestamp::parse(text).ok()));
    parsed.ok_or_else(|| wrong("datetime_parsing", "Input should be an RFC 3339 timestamp with an offset"))
}

/// A list with a number of items in a range.
pub fn list<T>(length: RangeInclusive<usize>, item: impl Parse<T>) -> impl Fn(&Value) -> Result<Vec<T>, Problem> {
    move |value| {
        let Value::Array(items) = value else { return Err(wrong("list_type", "Input should be a valid list")) };
        if items.len() < *length.start() {
            return Err(wrong("too_short", format!("List should have at least {} items", length.start())));
        }
        if items.len() > *length.end() {
            return Err(wrong("too_long", format!("List should have at most {} items", length.end())));
        }
        let parsed = |(n, value): (usize, &Value)| {
            item.parse(value).map_err(|mut problem| {
                problem.loc.insert(0, Value::from(n));
                problem
            })
        };
        items.iter().enumerate().map(parsed).collect()
    }
}

/// A comma-separated text, each part with a parser.
pub fn commas<T>(item: impl Parse<T>) -> impl Fn(&Value) -> Result<Vec<T>, Problem> {
    move |value| {
        let Value::String(text) = value else { return Err(wrong("string_type", "Input should be a valid string")) };
        text.split(',').map(|part| item.parse(&Value::from(part.trim()))).collect()
    }
}

/// Columns, comma-separated: in the order of the text, each where it is named first, for an object has a member once.
pub fn columns<T: PartialEq>(column: impl Parse<T>) -> impl Fn(&Value) -> Result<Vec<T>, Problem> {
    let listed = commas(column);
    move |value| {
        let mut columns: Vec<T> = Vec::new();
        for column in listed(value)? {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        Ok(columns)
    }
}

/// A JSON object as it is.
pub fn object(value: &Value) -> Result<serde_json::Map<String, Value>, Problem> {
    value.as_object().cloned().ok_or_else(|| wrong("dict_type", "Input should be a valid object"))
}

/// A JSON array as it is.
pub fn array(value: &Value) -> Result<Vec<Value>, Problem> {
    value.as_array().cloned().ok_or_else(|| wrong("list_type", "Input should be a valid list"))
}
