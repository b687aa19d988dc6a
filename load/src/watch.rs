//! A run watched from beside it: its rate and the server's memory over time, and the longest stall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::agent::Progress;
use crate::process::Usage;
use crate::report::{Report, mib};
use crate::target::Target;

const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// A point of a series.
const POINT_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Watched>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Events acked in each second.
    pub(crate) rates: Vec<f64>,
    /// The server's memory, bytes, at the end of each second.
    pub(crate) memory: Vec<u64>,
    pub(crate) memory_before: u64,
    pub(crate) memory_peak: u64,
    /// The longest time without an ack, while the run lasted.
    pub(crate) stall: Duration,
}

impl Watch {
    pub(crate) fn start(target: &Target, progress: Progress) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(watch(target.server_pid, progress, Arc::clone(&stop)));
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<Watched> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the watch ended early")?
    }
}

async fn watch(pid: Option<u32>, progress: Progress, stop: Arc<AtomicBool>) -> Result<Watched> {
    let resident = || pid.map(Usage::of).transpose().map(|usage| usage.map_or(0, |usage| usage.resident));
    let mut watched = Watched { memory_before: resident()?, ..Watched::default() };
    watched.memory_peak = watched.memory_before;
    let mut tick = tokio::time::interval(SAMPLE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut moved, mut point) = (Instant::now(), Instant::now());
    let (mut seen, mut counted) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let (now, acked) = (Instant::now(), progress.load(Ordering::Relaxed));
        let memory = resident()?;
        watched.memory_peak = watched.memory_peak.max(memory);
        if acked > seen {
            (seen, moved) = (acked, now);
        }
        watched.stall = watched.stall.max(now - moved);
        if now - point >= POINT_EVERY {
            watched.rates.push((acked - counted) as f64 / (now - point).as_secs_f64());
            watched.memory.push(memory);
            (counted, point) = (acked, now);
        }
    }
    Ok(watched)
}

impl Watched {
    /// Adds rate, stall and memory over time.
    pub(crate) fn add_to(self, report: &mut Report) {
        report.figure("longest time without an ack, ms", self.stall.as_secs_f64() * 1e3);
        if self.memory_peak > 0 {
            report.figure("server memory, highest, MiB", mib(self.memory_peak));
            if let Some(growth) = growth(&self.memory) {
                report.figure("server memory, growth, MiB", growth / f64::from(1 << 20));
            }
            report.series("server memory, MiB", POINT_EVERY, self.memory.into_iter().map(mib).collect());
        }
        report.series("acked events per second", POINT_EVERY, self.rates);
    }
}

/// By how much the last tenth of a long run is above its second tenth; the first one warms up.
fn growth(memory: &[u64]) -> Option<f64> {
    let tenth = memory.len() / 10;
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    (tenth >= 6).then(|| mean(&memory[memory.len() - tenth..]) - mean(&memory[tenth..2 * tenth]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_a_warm_server() {
        let memory: Vec<u64> = (0..100).map(|second| if second < 10 { 5 } else { 1000 + second }).collect();
        assert_eq!(growth(&memory), Some(80.0));
        assert_eq!(growth(&memory[..59]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_the_longest_time_without_progress() {
        let (progress, stop) = (Progress::default(), Arc::new(AtomicBool::new(false)));
        let watching = tokio::spawn(watch(Some(std::process::id()), Arc::clone(&progress), Arc::clone(&stop)));
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            progress.fetch_add(10, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        progress.fetch_add(10, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(600)).await;
        stop.store(true, Ordering::Relaxed);
        let watched = watching.await.expect("no panic").expect("readable");
        assert!((1450..1600).contains(&watched.stall.as_millis()), "{:?}", watched.stall);
        assert!((90.0..110.0).contains(&watched.rates[1]), "{:?}", watched.rates);
        assert!(watched.memory_before > 0 && watched.memory_peak >= watched.memory_before);
        assert_eq!(watched.rates.len(), watched.memory.len());
    }
}
