//! The replay guard: a well-signed frame is accepted once, in order and near its own time.
//!
//! Of each nonce a 64-bit hash is kept: only the holder of the secret can sign a frame at all, so nobody gains by
//! making two nonces collide. An idle session holds a few hundred bytes: the window grows with what is in it, and
//! the index exists only when the window is too long to be searched.

use std::collections::VecDeque;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::FrameError;
use crate::time::Timestamp;

/// How long a nonce is remembered.
const WINDOW_SECS: i64 = 180;
/// How many nonces are remembered at most.
const WINDOW_MAX: usize = 4096;
/// The largest difference between a frame's time and ours.
const SKEW_SECS: i64 = 60;
const NONCE_MAX: usize = 32;
/// Up to here the window is searched from end to end.
const SEARCHED_MAX: usize = 64;
/// Slots of the index: a power of two, twice the longest window.
const SLOTS: usize = 2 * WINDOW_MAX;

/// What one direction of a session remembers.
#[derive(Default)]
pub(crate) struct ReplayGuard {
    last_seq: u64,
    window: VecDeque<Seen>,
    index: Option<Index>,
}

#[derive(Clone, Copy)]
struct Seen {
    nonce: u64,
    /// Of the receiver's clock, seconds.
    at: u32,
}

impl ReplayGuard {
    /// Accepts a frame whose signature was good, or says what is wrong with it.
    pub(crate) fn admit(&mut self, seq: u64, nonce: &str, ts: &str, now: Timestamp) -> Result<(), FrameError> {
        if seq <= self.last_seq {
            return Err(FrameError::Sequence);
        }
        if nonce.is_empty() || nonce.len() > NONCE_MAX {
            return Err(FrameError::Nonce);
        }
        let sent = Timestamp::parse(ts).map_err(|_| FrameError::Skew)?;
        if now.since(sent).abs() > SKEW_SECS * 1_000_000 {
            return Err(FrameError::Skew);
        }
        let nonce = hash(nonce);
        let at = u32::try_from(now.micros() / 1_000_000).unwrap_or_default();
        self.forget(at);
        if self.holds(nonce) {
            return Err(FrameError::Nonce);
        }
        self.remember(Seen { nonce, at });
        self.last_seq = seq;
        Ok(())
    }

    fn forget(&mut self, now: u32) {
        while let Some(oldest) = self.window.front()
            && (self.window.len() == WINDOW_MAX || i64::from(now.saturating_sub(oldest.at)) > WINDOW_SECS)
        {
            if let Some(index) = &mut self.index {
                index.remove(oldest.nonce);
            }
            self.window.pop_front();
        }
        if self.index.is_some() && self.window.len() <= SEARCHED_MAX / 2 {
            self.index = None;
            self.window.shrink_to(SEARCHED_MAX);
        }
    }

    fn holds(&self, nonce: u64) -> bool {
        match &self.index {
            Some(index) => index.holds(nonce),
            None => self.window.iter().any(|seen| seen.nonce == nonce),
        }
    }

    fn remember(&mut self, seen: Seen) {
        if self.window.len() == self.window.capacity() {
            self.window.reserve_exact((self.window.len() / 2).max(8));
        }
        self.window.push_back(seen);
        match &mut self.index {
            Some(index) => index.insert(seen.nonce),
            None if self.window.len() > SEARCHED_MAX => {
                let mut index = Index::new();
                self.window.iter().for_each(|seen| index.insert(seen.nonce));
                self.index = Some(index);
            }
            None => {}
        }
    }
}

fn hash(nonce: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(nonce.as_bytes());
    // 0 marks a free slot.
    hasher.finish().max(1)
}

/// An open-addressed set of nonce hashes, never more than half full.
struct Index {
    slots: Vec<u64>,
}

impl Index {
    fn new() -> Self {
        Self { slots: vec![0; SLOTS] }
    }

    fn place(&self, nonce: u64) -> (usize, bool) {
        let mut slot = nonce as usize % SLOTS;
        loop {
            match self.slots[slot] {
                0 => return (slot, false),
                held if held == nonce => return (slot, true),
                _ => slot = (slot + 1) % SLOTS,
            }
        }
    }

    fn holds(&self, nonce: u64) -> bool {
        self.place(nonce).1
    }

    fn insert(&mut self, nonce: u64) {
        let (slot, _) = self.place(nonce);
        self.slots[slot] = nonce;
    }

    /// Takes a hash out and closes the gap, so that no later one becomes unreachable.
    fn remove(&mut self, nonce: u64) {
        let (mut gap, held) = self.place(nonce);
        if !held {
            return;
        }
        self.slots[gap] = 0;
        let mut slot = (gap + 1) % SLOTS;
        while self.slots[slot] != 0 {
            let home = self.slots[slot] as usize % SLOTS;
            if (slot + SLOTS - home) % SLOTS >= (slot + SLOTS - gap) % SLOTS {
                self.slots[gap] = self.slots[slot];
                self.slots[slot] = 0;
                gap = slot;
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_776_340_800);
    const TS: &str = "2026-04-16T12:00:00Z";

    #[test]
    fn sequence_numbers_rise_and_may_have_gaps() {
        let mut guard = ReplayGuard::default();
        assert_eq!(guard.admit(0, "a", TS, NOW), Err(FrameError::Sequence));
        assert_eq!(guard.admit(1, "a", TS, NOW), Ok(()));
        assert_eq!(guard.admit(1, "b", TS, NOW), Err(FrameError::Sequence));
        assert_eq!(guard.admit(9, "b", TS, NOW), Ok(()));
        assert_eq!(guard.admit(8, "c", TS, NOW), Err(FrameError::Sequence));
    }

    #[test]
    fn a_nonce_is_good_once_within_the_window() {
        let mut guard = ReplayGuard::default();
        assert_eq!(guard.admit(1, "", TS, NOW), Err(FrameError::Nonce));
        assert_eq!(guard.admit(1, &"n".repeat(33), TS, NOW), Err(FrameError::Nonce));
        assert_eq!(guard.admit(1, &"n".repeat(32), TS, NOW), Ok(()));
        assert_eq!(guard.admit(2, &"n".repeat(32), TS, NOW), Err(FrameError::Nonce));
        let (later, ts) = (NOW.plus_secs(181), "2026-04-16T12:03:01Z");
        assert_eq!(guard.admit(2, &"n".repeat(32), ts, later), Ok(()));
    }

    #[test]
    fn the_window_holds_the_4096_newest() {
        let mut guard = ReplayGuard::default();
        for seq in 1..=3 * WINDOW_MAX as u64 {
            assert_eq!(guard.admit(seq, &seq.to_string(), TS, NOW), Ok(()));
        }
        assert_eq!(guard.window.len(), WINDOW_MAX);
        let seq = 3 * WINDOW_MAX as u64 + 1;
        for kept in [2 * WINDOW_MAX + 2, 3 * WINDOW_MAX] {
            assert_eq!(guard.admit(seq, &kept.to_string(), TS, NOW), Err(FrameError::Nonce), "{kept}");
        }
        assert_eq!(guard.admit(seq, "1", TS, NOW), Ok(()), "long forgotten");
    }

    #[test]
    fn times_are_aware_and_near() {
        for (ts, expected) in [
            ("2026-04-16T12:01:00Z", Ok(())),
            ("2026-04-16T11:59:00.000000+00:00", Ok(())),
            ("2026-04-16T14:00:00.123456789+02:00", Ok(())),
            ("2026-04-16T12:01:00.000001Z", Err(FrameError::Skew)),
            ("2026-04-16T11:58:59Z", Err(FrameError::Skew)),
            ("2026-04-16T12:00:00", Err(FrameError::Skew)),
            ("", Err(FrameError::Skew)),
        ] {
            assert_eq!(ReplayGuard::default().admit(1, "n", ts, NOW), expected, "{ts}");
        }
    }

    #[test]
    fn an_idle_session_stays_small() {
        let mut guard = ReplayGuard::default();
        for beat in 0..2000_u64 {
            let now = NOW.plus_secs(beat as i64 * 5);
            assert_eq!(guard.admit(beat + 1, &beat.to_string(), &now.to_string(), now), Ok(()));
        }
        assert!(guard.index.is_none());
        assert!(size_of::<ReplayGuard>() + guard.window.capacity() * size_of::<Seen>() < 1024);
    }
}
