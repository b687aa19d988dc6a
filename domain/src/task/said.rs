//! What the body of a report says: where its members stand, and the few that decide something.
//!
//! Read once, and only when it is first asked for: most readers of a task want few members of few reports.

use std::borrow::Cow;

use super::body::{self, Body, MEMBERS, Member};
use super::priority::Priority;

/// A stretch of a report's packed bytes; length 0 is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    /// The place of a part of `whole`.
    pub(super) fn of(part: &str, whole: &[u8]) -> Self {
        // Both come from one buffer, so the difference of the addresses is the offset.
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self { start: start as u32, length: part.len() as u32 }
    }

    pub(super) const fn is_absent(self) -> bool {
        self.length == 0
    }

    /// In bytes.
    pub(super) const fn length(self) -> usize {
        self.length as usize
    }

    pub(super) fn text(self, packed: &[u8]) -> Option<&str> {
        if self.is_absent() {
            return None;
        }
        let bytes = packed.get(self.start as usize..(self.start + self.length) as usize)?;
        std::str::from_utf8(bytes).ok()
    }
}

/// The members of one body.
#[derive(Clone, Debug)]
pub(super) struct Said {
    members: [Span; MEMBERS],
    /// A name that is no placeholder.
    pub(super) has_name: bool,
    pub(super) has_queue: bool,
    pub(super) priority: Option<Priority>,
    pub(super) runtime_ms: Option<u32>,
}

impl Said {
    /// Reads a body that is a part of `packed`; an absent one says nothing.
    pub(super) fn read(body: Option<&str>, packed: &[u8]) -> Self {
        let body = body.map(Body::read).unwrap_or_default();
        let text = |member| token(body.get(member)).and_then(body::unquote);
        let mut members = [Span::default(); MEMBERS];
        for (member, raw) in body.members() {
            members[member as usize] = Span::of(raw, packed);
        }
        Self {
            members,
            has_name: text(Member::TaskName).is_some_and(|name| !is_placeholder(&name)),
            has_queue: text(Member::Queue).is_some(),
            priority: body::text(body.get(Member::Priority)).and_then(|word| word.parse().ok()),
            runtime_ms: body::millis(body.get(Member::RuntimeMs)),
        }
    }

    /// A member's JSON text.
    pub(super) fn member<'a>(&self, member: Member, packed: &'a [u8]) -> Option<&'a str> {
        self.members[member as usize].text(packed)
    }

    /// The text of a member that is a string, and not the empty one.
    pub(super) fn text<'a>(&self, member: Member, packed: &'a [u8]) -> Option<Cow<'a, str>> {
        token(self.member(member, packed)).and_then(body::unquote)
    }
}

/// The token of a string that is not empty.
pub(super) fn token(raw: Option<&str>) -> Option<&str> {
    raw.filter(|token| token.len() > 2 && token.starts_with('"'))
}

/// Whether an agent that does not know a task's name filled in one of its own.
pub(super) fn is_placeholder(name: &str) -> bool {
    name == "unknown" || name.starts_with("<unknown")
}
