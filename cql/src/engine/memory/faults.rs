//! Which operation fails, and how: by odds from a seed, or by name.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::dice::Dice;

/// A fault by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A `get` or `scan` fails.
    ReadFailed,
    /// A `write` fails after some of its rows were written.
    WriteFailed,
    /// A `write` is acknowledged, but other handles see it only after the delay.
    WriteDelayed,
    /// A `commit` fails, and nothing was written.
    CommitFailed,
    /// A commit answers `Unknown` and has happened, if its guards held. What follows it was not written.
    UnknownApplied,
    /// A commit answers `Unknown` and happens after the delay, if its guards hold then.
    UnknownLater,
    /// A commit answers `Unknown` and never happens.
    UnknownNever,
}

/// Odds of each fault, from 0.0 to 1.0, and the times they take. The default is a store without faults.
#[derive(Clone, Debug)]
pub struct Faults {
    pub read_failed: f64,
    pub write_failed: f64,
    pub write_delayed: f64,
    pub commit_failed: f64,
    /// Of an `Unknown` answer; whether it has happened, will happen or never happens is drawn evenly.
    pub commit_unknown: f64,
    /// How long a delayed write stays hidden from other handles, and a later commit from all.
    pub delay: RangeInclusive<Duration>,
    /// How long every operation takes.
    pub latency: RangeInclusive<Duration>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            read_failed: 0.0,
            write_failed: 0.0,
            write_delayed: 0.0,
            commit_failed: 0.0,
            commit_unknown: 0.0,
            delay: Duration::from_millis(5)..=Duration::from_millis(500),
            latency: Duration::ZERO..=Duration::ZERO,
        }
    }
}

/// Faults that have happened, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    pub read_failed: u64,
    pub write_failed: u64,
    pub write_delayed: u64,
    pub commit_failed: u64,
    pub unknown_applied: u64,
    pub unknown_later: u64,
    pub unknown_never: u64,
}

impl Injected {
    fn count(&mut self, fault: Fault) {
        *match fault {
            Fault::ReadFailed => &mut self.read_failed,
            Fault::WriteFailed => &mut self.write_failed,
            Fault::WriteDelayed => &mut self.write_delayed,
            Fault::CommitFailed => &mut self.commit_failed,
            Fault::UnknownApplied => &mut self.unknown_applied,
            Fault::UnknownLater => &mut self.unknown_later,
            Fault::UnknownNever => &mut self.unknown_never,
        } += 1;
    }
}

/// What will become of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    Failed,
    UnknownApplied,
    UnknownLater,
    UnknownNever,
}

pub(super) struct Injector {
    pub(super) faults: Faults,
    pub(super) injected: Injected,
    named: VecDeque<Fault>,
    dice: Dice,
}

impl Injector {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self { faults, injected: Injected::default(), named: VecDeque::new(), dice: Dice::new(seed) }
    }

    pub(super) fn queue(&mut self, fault: Fault) {
        self.named.push_back(fault);
    }

    /// Whether `fault` happens now: by name first, else by its odds.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let named = self.named.iter().position(|waiting| *waiting == fault);
        let struck = match named {
            Some(place) => self.named.remove(place).is_some(),
            None => {
                let odds = self.odds(fault);
                self.dice.chance(odds)
            }
        };
        if struck {
            self.injected.count(fault);
        }
        struck
    }

    pub(super) fn fate(&mut self) -> Fate {
        for (fault, fate) in [
            (Fault::CommitFailed, Fate::Failed),
            (Fault::UnknownApplied, Fate::UnknownApplied),
            (Fault::UnknownLater, Fate::UnknownLater),
            (Fault::UnknownNever, Fate::UnknownNever),
        ] {
            if self.strikes(fault) {
                return fate;
            }
        }
        Fate::Answered
    }

    pub(super) fn delay(&mut self) -> Duration {
        let range = self.faults.delay.clone();
        self.dice.duration(&range)
    }

    pub(super) fn latency(&mut self) -> Duration {
        let range = self.faults.latency.clone();
        self.dice.duration(&range)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.dice.below(bound)
    }

    fn odds(&self, fault: Fault) -> f64 {
        let faults = &self.faults;
        match fault {
            Fault::ReadFailed => faults.read_failed,
            Fault::WriteFailed => faults.write_failed,
            Fault::WriteDelayed => faults.write_delayed,
            Fault::CommitFailed => faults.commit_failed,
            Fault::UnknownApplied | Fault::UnknownLater | Fault::UnknownNever => faults.commit_unknown / 3.0,
        }
    }
}
