//! The frames an agent has sent and not seen acked.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What one ack settled.
pub(crate) struct Settled {
    pub(crate) events: u32,
    pub(crate) latency: Duration,
}

struct Sent {
    at: Instant,
    events: u32,
    acked: bool,
}

/// Frames are numbered from 0; acks may come in any order and more than once.
pub(crate) struct Window {
    limit: usize,
    first: u64,
    sent: VecDeque<Sent>,
    open: usize,
}

impl Window {
    /// At most `limit` frames wait for an ack.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, first: 0, sent: VecDeque::new(), open: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open >= self.limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Notes a frame and gives its number.
    pub(crate) fn send(&mut self, at: Instant, events: u32) -> u64 {
        self.sent.push_back(Sent { at, events, acked: false });
        self.open += 1;
        self.first + self.sent.len() as u64 - 1
    }

    /// Settles a frame, unless it was settled before.
    pub(crate) fn ack(&mut self, number: u64, now: Instant) -> Option<Settled> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let sent = self.sent.get_mut(place).filter(|sent| !sent.acked)?;
        sent.acked = true;
        let settled = Settled { events: sent.events, latency: now.duration_since(sent.at) };
        self.open -= 1;
        while self.sent.front().is_some_and(|sent| sent.acked) {
            self.sent.pop_front();
            self.first += 1;
        }
        Some(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_settle_each_frame_once_in_any_order() {
        let (start, mut window) = (Instant::now(), Window::new(256));
        assert_eq!((0..3).map(|events| window.send(start, events)).collect::<Vec<_>>(), [0, 1, 2]);
        let later = start + Duration::from_millis(5);
        assert!(window.ack(2, later).is_some_and(|settled| settled.events == 2));
        assert!(window.ack(2, later).is_none() && window.ack(7, later).is_none());
        assert!(window.ack(0, later).is_some_and(|settled| settled.latency == Duration::from_millis(5)));
        assert!(window.ack(0, later).is_none() && !window.is_empty());
        assert!(window.ack(1, later).is_some() && window.is_empty());
        assert_eq!(window.send(start, 1), 3);
    }

    #[test]
    fn an_agent_waits_behind_256_frames() {
        let mut window = Window::new(256);
        (0..256).for_each(|_| assert!(!window.is_full() && window.send(Instant::now(), 1) < 256));
        assert!(window.is_full());
        assert!(window.ack(255, Instant::now()).is_some() && !window.is_full());
    }
}
