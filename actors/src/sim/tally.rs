//! How often each fault was injected, and each thing worth knowing happened.

use std::collections::BTreeMap;

use cql::engine::memory::Injected;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(super) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    pub(super) fn add(&mut self, what: &str, times: u64) {
        *self.0.entry(what.to_owned()).or_default() += times;
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }

    pub(super) fn add_store(&mut self, injected: Injected) {
        let Injected {
            read_failed,
            write_failed,
            write_delayed,
            commit_failed,
            unknown_applied,
            unknown_later,
            unknown_never,
        } = injected;
        for (what, times) in [
            ("store: read failed", read_failed),
            ("store: write failed", write_failed),
            ("store: write seen late", write_delayed),
            ("store: commit failed", commit_failed),
            ("store: unknown, applied", unknown_applied),
            ("store: unknown, applied later", unknown_later),
            ("store: unknown, never applied", unknown_never),
        ] {
            self.add(what, times);
        }
    }

    /// One line each.
    pub(super) fn lines(&self) -> String {
        self.0.iter().map(|(what, times)| format!("  {times:>9}  {what}\n")).collect()
    }
}
