//! Which seeds are run, and what is said of them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tokio::time::Instant;

use super::run::{Report, run};
use super::store::Lie;
use super::tally::Tally;
use super::world::lock;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;
/// Seeds within which a broken store is found out.
const LIES: u64 = 40;
/// A seed takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

thread_local! {
    /// Panics of this thread. Actors survive theirs, the simulation does not.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            print(info);
        }));
    });
}

/// One run from start to end; a panic anywhere is a violation like any other.
fn one(seed: u64, lie: Option<Lie>) -> Report {
    count_panics();
    let before = PANICS.get();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(seed, lie))
    }));
    let mut report = ran.unwrap_or_default();
    let panics = PANICS.get() - before;
    if panics > 0 {
        report.violations.push(format!("{panics} panics, see above"));
    }
    report
}

fn replay(seed: u64) -> String {
    format!("THALAMUS_SIM_SEED={seed} cargo test -p actors --locked sim::seeds -- --nocapture")
}

/// What a thread is at, and since when.
type Slot = Mutex<Option<(u64, Instant)>>;

/// Ends the process if a seed never ends: nothing else can, for its runtime never comes to rest.
fn watch(slots: &[Slot], running: &AtomicU64) {
    while running.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(100));
        for slot in slots {
            let held = *lock(slot);
            if let Some((seed, since)) = held.filter(|(_, since)| since.elapsed() > PATIENCE) {
                eprintln!(
                    "seed {seed} runs since {} s and does not end\nagain: {}",
                    since.elapsed().as_secs(),
                    replay(seed)
                );
                std::process::exit(101);
            }
        }
    }
}

/// Runs seeds on every core, until one fails.
fn many(first: u64, count: u64, lie: Option<Lie>) -> (Tally, Option<(u64, Report)>) {
    let next = AtomicU64::new(0);
    let result: Mutex<(Tally, Option<(u64, Report)>)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(count as usize);
    let slots: Vec<Slot> = (0..threads).map(|_| Mutex::new(None)).collect();
    let running = AtomicU64::new(threads as u64);
    let work = |slot: &Slot| {
        while lock(&result).1.is_none() {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                break;
            }
            let seed = first + n;
            *lock(slot) = Some((seed, Instant::now()));
            let report = one(seed, lie);
            *lock(slot) = None;
            let mut result = lock(&result);
            result.0.merge(&report.tally);
            if !report.violations.is_empty() && result.1.as_ref().is_none_or(|(earlier, _)| *earlier > seed) {
                result.1 = Some((seed, report));
            }
            drop(result);
            if (n + 1).is_multiple_of(1000) {
                println!("{} seeds", n + 1);
            }
        }
        running.fetch_sub(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&slots, &running));
        for slot in &slots {
            scope.spawn(|| work(slot));
        }
    });
    result.into_inner().unwrap_or_default()
}

#[test]
fn seeds() {
    let only = number("THALAMUS_SIM_SEED");
    let count = if only.is_some() { 1 } else { number("THALAMUS_SIM_SEEDS").unwrap_or(SEEDS) };
    let first = only.or(number("THALAMUS_SIM_FIRST")).unwrap_or(0);
    let (tally, failed) = many(first, count, None);
    println!("{count} seeds from {first}, and what was injected:\n{}", tally.lines());
    if let Some((seed, report)) = failed {
        if only.is_some() {
            println!("{}\n", report.story.join("\n"));
        }
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
        assert!(many(0, LIES, Some(lie)).1.is_some(), "{lie:?}");
    }
}
