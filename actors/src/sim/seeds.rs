//! Which seeds are run, and what is said of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::run::{Report, run};
use super::store::Lie;
use super::tally::Tally;
use super::world::lock;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;
/// Seeds within which a broken store is found out.
const LIES: u64 = 40;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// One run from start to end; a panic is a violation like any other.
fn one(seed: u64, lie: Option<Lie>) -> Report {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(seed, lie))
    }));
    ran.unwrap_or_else(|_| Report { violations: vec!["a panic, see above".to_owned()], ..Report::default() })
}

fn replay(seed: u64) -> String {
    format!("THALAMUS_SIM_SEED={seed} cargo test -p actors --locked sim::seeds -- --nocapture")
}

/// Runs seeds on every core, until one fails.
fn many(first: u64, count: u64) -> (Tally, Option<(u64, Report)>) {
    let next = AtomicU64::new(0);
    let result: Mutex<(Tally, Option<(u64, Report)>)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while lock(&result).1.is_none() {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let report = one(first + n, None);
                    let mut result = lock(&result);
                    result.0.merge(&report.tally);
                    if !report.violations.is_empty() && result.1.as_ref().is_none_or(|(seed, _)| *seed > first + n) {
                        result.1 = Some((first + n, report));
                    }
                    drop(result);
                    if (n + 1).is_multiple_of(1000) {
                        println!("{} seeds", n + 1);
                    }
                }
            });
        }
    });
    result.into_inner().unwrap_or_default()
}

#[test]
fn seeds() {
    if let Some(seed) = number("THALAMUS_SIM_SEED") {
        let report = one(seed, None);
        println!("seed {seed}:\n{}", report.tally.lines());
        assert!(report.violations.is_empty(), "seed {seed}:\n{}", report.violations.join("\n"));
        return;
    }
    let count = number("THALAMUS_SIM_SEEDS").unwrap_or(SEEDS);
    let (tally, failed) = many(number("THALAMUS_SIM_FIRST").unwrap_or(0), count);
    println!("{count} seeds, and what was injected:\n{}", tally.lines());
    if let Some((seed, report)) = failed {
        panic!("seed {seed} fails:\n{}\nagain: {}", report.violations.join("\n"), replay(seed));
    }
    if count >= SEEDS {
        for fault in ["node: crash", "link: half open", "agent: answers late", "store: unknown, applied later"] {
            assert!(tally.of(fault) > 0, "{fault} was never injected");
        }
    }
}

#[test]
fn a_seed_runs_alike_every_time() {
    for seed in 0..8 {
        let (first, second) = (one(seed, None), one(seed, None));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.tally, second.tally, "seed {seed}");
    }
}

#[test]
fn a_store_that_lies_is_found_out() {
    for lie in [Lie::LostIsDone, Lie::UnknownIsDone] {
        let is_found = (0..LIES).any(|seed| !one(seed, Some(lie)).violations.is_empty());
        assert!(is_found, "{lie:?}");
    }
}
