//! Tasks: reports in, row out.
//!
//! A task is the set of reports heard about it, and its row a pure function of that set: unions commute and
//! repeats vanish, so order, duplicates, re-sends and several writers cannot show (DESIGN section 2).
//!
//! ```text
//! report     one thing that was said, packed once            kind, state, priority   the vocabulary
//! body       an event's data, read leniently                 pack      the MessagePack of stored values
//! said       what of it a report has been asked for          scan      a JSON object cut into its members
//! group      R1: which reports are one physical event        limit     how large a task may grow
//! derive     R2: what follows from the groups                exception `Type: message` of six engines
//! stored     the stored value: record, unite, encode         header    what a scan reads of it
//! row        what a reader sees: rows and events             filter    which rows a reader wants
//! mark       what a task can be found by
//! ```

mod body;
mod derive;
mod exception;
mod filter;
mod group;
mod header;
mod kind;
mod limit;
mod mark;
mod pack;
mod priority;
mod report;
mod row;
mod said;
mod scan;
mod state;
mod stored;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod traces;

pub use filter::{Filter, Prepared};
pub use header::{BadValue, Header};
pub use kind::Kind;
pub use mark::Mark;
pub use priority::{Priority, PrioritySet, UnknownPriority};
pub(crate) use report::hash64;
pub use report::{EventFields, Report, Reporter, Sighting, TASK_ID_CHARS_MAX, Unstorable};
pub use row::{Parts, TaskEvent, TaskRow};
pub use state::{State, UnknownState};
pub use stored::{Recorded, Task};
