//! Numbers that follow from a seed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// SplitMix64: small, seeded, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which counts as one if it is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    /// No roll when the odds are nil, so that switching one fault off does not reshuffle the others' absence.
    pub fn chance(&mut self, odds: f64) -> bool {
        odds > 0.0 && ((self.roll() >> 11) as f64 / (1_u64 << 53) as f64) < odds
    }

    /// In microseconds, both ends included.
    pub fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let (low, high) = (range.start().as_micros() as u64, range.end().as_micros() as u64);
        if high <= low {
            return *range.start();
        }
        Duration::from_micros(low + self.roll() % (high - low + 1))
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.roll() as u8)
    }
}
