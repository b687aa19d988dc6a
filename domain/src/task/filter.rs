//! Which tasks a list, an export, a deletion or a bulk retry is about.

use super::header::Header;
use super::priority::PrioritySet;
use super::report::hash64;
use super::row::TaskRow;
use super::state::State;
use crate::engine::Engine;
use crate::id::address::TaskId;
use crate::time::Timestamp;

/// The conditions that a task meets all of; an absent one admits every task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub state: Option<State>,
    /// A union; empty admits all.
    pub priorities: PrioritySet,
    pub engine: Option<Engine>,
    pub name: Option<String>,
    pub name_prefix: Option<String>,
    pub name_contains: Option<String>,
    pub queue: Option<String>,
    pub worker: Option<String>,
    /// Every word must occur in name, queue or worker, or be the task's id.
    pub search: Option<String>,
    /// Inclusive bounds on `received_at`.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether the filter admits every task.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The smallest and the greatest id that a matching task can have; an empty stretch when they are crossed.
    pub fn ids(&self) -> (TaskId, TaskId) {
        (self.since.map_or(TaskId::MIN, TaskId::floor), self.until.map_or(TaskId::MAX, TaskId::ceiling))
    }

    /// The filter with its texts hashed and its words cut, for looking at many rows.
    pub fn prepare(&self) -> Prepared<'_> {
        let hash = |text: &Option<String>| text.as_deref().map(hash64);
        let search = self.search.as_deref().unwrap_or("");
        Prepared {
            filter: self,
            name: hash(&self.name),
            queue: hash(&self.queue),
            worker: hash(&self.worker),
            words: search.split_whitespace().map(|word| (word.to_owned(), word.to_lowercase())).collect(),
        }
    }

    /// The bytes that a cursor is bound to: equal for equal conditions, whatever alias they were written with.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut part = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        if let Some(state) = self.state {
            part(b's', &[state.tag()]);
        }
        if !self.priorities.is_empty() {
            part(b'p', &[self.priorities.bits()]);
        }
        if let Some(engine) = self.engine {
            part(b'e', engine.as_str().as_bytes());
        }
        let texts = [
            (b'n', &self.name),
            (b'P', &self.name_prefix),
            (b'c', &self.name_contains),
            (b'q', &self.queue),
            (b'w', &self.worker),
        ];
        for (tag, text) in texts {
            if let Some(text) = text {
                part(tag, text.as_bytes());
            }
        }
        if let Some(search) = &self.search {
            let words: Vec<&str> = search.split_whitespace().collect();
            part(b'f', words.join(" ").as_bytes());
        }
        for (tag, at) in [(b'<', self.since), (b'>', self.until)] {
            if let Some(at) = at {
                part(tag, &at.micros().to_be_bytes());
            }
        }
        out
    }
}

/// A filter made ready for many rows.
#[derive(Clone, Debug)]
pub struct Prepared<'a> {
    filter: &'a Filter,
    name: Option<u64>,
    queue: Option<u64>,
    worker: Option<u64>,
    /// As written, and in lower case.
    words: Vec<(String, String)>,
}

impl Prepared<'_> {
    /// Whether the row behind a header may be admitted. A hidden row never is.
    pub fn admits_header(&self, header: &Header) -> bool {
        let hash = |wanted: Option<u64>, got: u64| wanted.is_none_or(|wanted| wanted == got);
        let filter = self.filter;
        !header.hidden
            && filter.state.is_none_or(|state| state == header.state)
            && (filter.priorities.is_empty() || filter.priorities.contains(header.priority))
            && filter.engine.is_none_or(|engine| engine == header.engine)
            // A placeholder name has no hash, so a name filter for one is left to the row.
            && (hash(self.name, header.name) || header.name == 0)
            && hash(self.queue, header.queue)
            && hash(self.worker, header.worker)
    }

    /// Bounds of matching ids, see [`Filter::ids`].
    pub fn ids(&self) -> (TaskId, TaskId) {
        self.filter.ids()
    }

    /// The only state that is admitted, if there is one.
    pub const fn state(&self) -> Option<State> {
        self.filter.state
    }

    /// Hash of the only queue that is admitted, if there is one.
    pub const fn queue_hash(&self) -> Option<u64> {
        self.queue
    }

    /// Whether every visible task is admitted.
    pub fn is_everything(&self) -> bool {
        self.filter.is_empty()
    }

    /// Whether a header decides everything, so that no row need be read to count it.
    pub fn is_decided_by_header(&self) -> bool {
        let filter = self.filter;
        let texts = [&filter.name, &filter.name_prefix, &filter.name_contains, &filter.queue, &filter.worker];
        texts.into_iter().all(Option::is_none) && self.words.is_empty()
    }

    /// Whether a row that is not hidden meets every condition.
    pub fn admits(&self, row: &TaskRow) -> bool {
        let filter = self.filter;
        let equal = |wanted: &Option<String>, got: Option<&str>| wanted.is_none() || wanted.as_deref() == got;
        filter.state.is_none_or(|state| state == row.state)
            && (filter.priorities.is_empty() || filter.priorities.contains(row.priority))
            && filter.engine.is_none_or(|engine| engine == row.engine)
            && equal(&filter.name, Some(&row.name))
            && equal(&filter.queue, row.queue.as_deref())
            && equal(&filter.worker, row.worker_name.as_deref())
            && filter.name_prefix.as_deref().is_none_or(|prefix| row.name.starts_with(prefix))
            && filter.name_contains.as_deref().is_none_or(|part| row.name.contains(part))
            && filter.since.is_none_or(|since| row.received_at >= since)
            && filter.until.is_none_or(|until| row.received_at <= until)
            && self.finds_words(row)
    }

    fn finds_words(&self, row: &TaskRow) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let fields = [Some(&row.name), row.queue.as_ref(), row.worker_name.as_ref()];
        let fields = fields.map(|field| field.map(|text| text.to_lowercase()));
        let id = row.id.to_string();
        self.words.iter().all(|(word, lower)| {
            fields.iter().flatten().any(|field| field.contains(lower))
                || word.eq_ignore_ascii_case(&row.task_id)
                || word.eq_ignore_ascii_case(&id)
        })
    }
}
