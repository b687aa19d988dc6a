//! Typed and strict ways into a request: what does not fit is named, all of it at once.
//!
//! ```text
//! fields   members of an object, taken one by one with a parser each
//! parse    the parsers
//! strict   JSON without duplicate members, NUL bytes or bottomless nesting
//! body     Body<T>: a JSON body
//! query    Query<T>: query parameters
//! path     path parameters
//! ```

pub mod body;
pub mod fields;
pub mod parse;
pub mod path;
pub mod query;
mod strict;

pub use body::{Body, JsonBytes};
pub use fields::{Fields, FromFields};
pub use query::Query;
