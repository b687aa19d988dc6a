//! What sealing and verifying need for the length of one call, kept once per thread instead of once per session.

use std::cell::RefCell;

use super::canonical::Canonicaliser;
use crate::time::Timestamp;

#[derive(Default)]
pub(super) struct Scratch {
    pub(super) canonicaliser: Canonicaliser,
    pub(super) signed: Vec<u8>,
    pub(super) stamp: Stamp,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's scratch. `work` must not seal or verify itself.
pub(super) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}

/// The text of the last `ts`, good for a whole millisecond.
#[derive(Default)]
pub(super) struct Stamp {
    millis: i64,
    text: String,
}

impl Stamp {
    /// RFC 3339 with six digits and an offset.
    pub(super) fn text(&mut self, now: Timestamp) -> &str {
        use std::fmt::Write;
        if self.millis != now.millis() || self.text.is_empty() {
            self.millis = now.millis();
            self.text.clear();
            write!(self.text, "{}", Timestamp::from_millis(self.millis)).expect("a string takes any text");
        }
        &self.text
    }
}
