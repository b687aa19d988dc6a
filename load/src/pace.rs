//! How much one agent sends, how fast and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(crate) struct Pace {
    started: Instant,
    until: Option<Instant>,
    /// Events left, if they are counted.
    left: Option<u64>,
    /// Frames a second; as many as fit if not given.
    rate: Option<f64>,
    sent: u64,
    events_per_frame: u32,
    over: bool,
    /// Ends the pace from outside.
    stop: Option<Arc<AtomicBool>>,
}

impl Pace {
    pub(crate) fn new(
        now: Instant,
        duration: Option<Duration>,
        events: Option<u64>,
        events_per_second: Option<f64>,
        events_per_frame: u32,
    ) -> Self {
        Self {
            started: now,
            until: duration.map(|duration| now + duration),
            left: events,
            rate: events_per_second.map(|rate| rate / f64::from(events_per_frame)),
            sent: 0,
            events_per_frame,
            over: false,
            stop: None,
        }
    }

    /// The same pace, over as soon as `stop` is set.
    pub(crate) fn until(self, stop: &Arc<AtomicBool>) -> Self {
        Self { stop: Some(Arc::clone(stop)), ..self }
    }

    pub(crate) const fn events_per_frame(&self) -> u32 {
        self.events_per_frame
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }

    /// Whether another frame may go out now; counts it.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.over |= self.until.is_some_and(|until| now >= until) || self.left == Some(0);
        self.over |= self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        if self.over || self.rate.is_some_and(|rate| self.sent as f64 >= rate * (now - self.started).as_secs_f64()) {
            return false;
        }
        self.sent += 1;
        self.left = self.left.map(|left| left.saturating_sub(self.events_per_frame.into()));
        self.over |= self.left == Some(0);
        true
    }

    /// How long until the next frame is due.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let second = Duration::from_secs(1);
        let end = self.until.map_or(second, |until| until.saturating_duration_since(now)).min(second);
        let due = match self.rate {
            Some(rate) if rate > 0.0 && !self.over => {
                let due = self.started + Duration::from_secs_f64(((self.sent + 1) as f64 / rate).min(1e9));
                due.saturating_duration_since(now)
            }
            Some(_) | None => second,
        };
        // A timer fires to the millisecond anyway; less would only spin.
        if self.over { second } else { due.min(end).max(Duration::from_millis(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_keeps_its_rate_and_its_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start, Some(Duration::from_secs(2)), None, Some(100.0), 1);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!pace.take(start), "nothing is due yet");
        let mut sent = 0;
        for millis in 0..2000 {
            while pace.take(at(millis)) {
                sent += 1;
            }
        }
        assert!((198..=200).contains(&sent), "{sent}");
        assert!(!pace.is_over() && !pace.take(at(2000)) && pace.is_over());
    }

    #[test]
    fn a_pace_is_ended_from_outside() {
        let stop = Arc::default();
        let mut pace = Pace::new(Instant::now(), None, None, None, 1).until(&stop);
        assert!(pace.take(Instant::now()) && !pace.is_over());
        stop.store(true, Ordering::Relaxed);
        assert!(!pace.take(Instant::now()) && pace.is_over());
    }

    #[test]
    fn a_pace_counts_events() {
        let mut pace = Pace::new(Instant::now(), None, Some(25), None, 10);
        assert_eq!((0..9).filter(|_| pace.take(Instant::now())).count(), 3);
        assert!(pace.is_over());
    }
}
