//! How a commit becomes acks: each event carries a ticket, each session has a sink.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// A frame whose events are durable, or never will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The frame's id.
    pub id: Box<str>,
    pub received: u32,
    /// Events that were new.
    pub accepted: u32,
}

/// What one event's fate is counted for.
#[derive(Clone, Debug)]
pub(crate) enum Ticket {
    /// The only event of its frame: what every real agent sends.
    Whole(Box<str>),
    /// One of several.
    Part(Arc<Tally>),
}

impl Ticket {
    /// The event is settled; the frame's ack, if it was the last.
    pub(crate) fn settle(self, accepted: bool) -> Option<Ack> {
        match self {
            Self::Whole(id) => Some(Ack { id, received: 1, accepted: u32::from(accepted) }),
            Self::Part(tally) => tally.settle(accepted),
        }
    }
}

/// A frame with several events, which may go to several recorders.
#[derive(Debug)]
pub(crate) struct Tally {
    id: Box<str>,
    received: u32,
    open: AtomicU32,
    accepted: AtomicU32,
}

impl Tally {
    /// `open` of the frame's `received` events are on their way to recorders.
    pub(crate) fn new(id: Box<str>, received: u32, open: u32) -> Arc<Self> {
        Arc::new(Self { id, received, open: AtomicU32::new(open), accepted: AtomicU32::new(0) })
    }

    fn settle(&self, accepted: bool) -> Option<Ack> {
        if accepted {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        let last = self.open.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| Ack {
            id: self.id.clone(),
            received: self.received,
            accepted: self.accepted.load(Ordering::Relaxed),
        })
    }
}

/// Acks on their way to a session. Bounded by the frames that the session has under way.
#[derive(Debug, Default)]
pub(crate) struct AckSink {
    waiting: Mutex<Acks>,
    wake: Notify,
}

/// Acks that wait, and when the oldest of their frames was taken from the wire.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    pub list: Vec<Ack>,
    pub since: Option<Instant>,
}

impl AckSink {
    /// Hands over acks of frames taken since then, and wakes the session.
    pub(crate) fn push(&self, acks: Vec<Ack>, since: Instant) {
        if acks.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.since = Some(waiting.since.map_or(since, |oldest| oldest.min(since)));
        if waiting.list.is_empty() {
            waiting.list = acks;
        } else {
            waiting.list.extend(acks);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Resolves when there may be acks to take.
    pub(crate) async fn ready(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn take(&self) -> Acks {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Acks> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_acked_once_when_its_last_event_is_settled() {
        let tally = Tally::new("frame".into(), 5, 3);
        let parts = [true, false, true].map(|accepted| Ticket::Part(tally.clone()).settle(accepted));
        assert_eq!(parts[..2], [None, None]);
        assert_eq!(parts[2], Some(Ack { id: "frame".into(), received: 5, accepted: 2 }));
    }
}
