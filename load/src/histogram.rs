//! Latencies, counted in buckets of at most 1.6 % of their value: constant memory however many are recorded.

use std::time::Duration;

/// Buckets per power of two.
const FINE: u32 = 64;
const BUCKETS: usize = 64 * FINE as usize;

#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The latency that `share` of all stay at or below.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(ceiling(place).min(self.max));
            }
        }
        Duration::ZERO
    }

    pub(crate) fn summary(&self) -> Summary {
        let millis = |latency: Duration| (latency.as_secs_f64() * 1e6).round() / 1e3;
        Summary {
            count: self.total,
            p50_ms: millis(self.quantile(0.5)),
            p90_ms: millis(self.quantile(0.9)),
            p99_ms: millis(self.quantile(0.99)),
            p999_ms: millis(self.quantile(0.999)),
            max_ms: millis(self.max()),
        }
    }
}

/// What a report shows of a histogram.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

fn bucket(nanos: u64) -> usize {
    if nanos < u64::from(FINE) {
        return nanos as usize;
    }
    let power = nanos.ilog2() - FINE.ilog2();
    (power * FINE + (nanos >> power) as u32) as usize
}

/// The largest value that falls into a bucket.
fn ceiling(place: usize) -> u64 {
    let place = place as u64;
    let fine = u64::from(FINE);
    if place < 2 * fine {
        return place;
    }
    let power = place / fine - 1;
    ((place % fine + fine + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_never_wider_than_two_percent() {
        for nanos in (0..200).chain([1_000, 65_535, 65_536, 1_000_000, 999_999_999, 3_600_000_000_000]) {
            let top = ceiling(bucket(nanos));
            assert!(top >= nanos && top - nanos <= nanos / 60, "{nanos} in a bucket up to {top}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let (mut odd, mut even) = (Histogram::default(), Histogram::default());
        for micros in 1..=1000_u64 {
            if micros % 2 == 0 { &mut even } else { &mut odd }.record(Duration::from_micros(micros));
        }
        odd.merge(&even);
        let close = |share, micros: u64| {
            let found = odd.quantile(share).as_nanos() as f64 / (micros as f64 * 1e3);
            assert!((0.98..1.02).contains(&found), "{share}: {found}");
        };
        close(0.5, 500);
        close(0.99, 990);
        close(1.0, 1000);
        assert_eq!((odd.count(), odd.max()), (1000, Duration::from_millis(1)));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
