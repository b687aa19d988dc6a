//! The embedded engine from outside: killed, reopened, closed, out of space.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cql::engine::fjall::{Fjall, FjallConfig, OpenError};
use cql::{Commit, Committed, Key, Range, Store, StoreError, Table, Write};
use tokio::time::Instant;

const CHILD: &str = "THALAMUS_TEST_CRASH";
const ROUNDS: u32 = 8;
const WRITERS: u32 = 4;
const ROWS: u32 = 50;

/// Batch `n` of a writer: one row that must be new, and rows of two more keyspaces that follow it.
fn batch(round: u32, writer: u32, n: u32) -> Commit {
    let part = part(round, writer, n);
    let row = |row: u32| Write::put(Key::new(Table::Task, part.clone(), row.to_be_bytes().to_vec()), text(n, row));
    let mut follow: Vec<_> = (0..ROWS).map(row).collect();
    follow.push(Write::put(Key::new(Table::Command, part.clone(), "command"), "row").stamped(1));
    Commit::insert(Key::new(Table::TaskAt, part.clone(), "claim"), "id").following(follow)
}

fn part(round: u32, writer: u32, n: u32) -> Bytes {
    [round, writer, n].map(u32::to_be_bytes).concat().into()
}

fn text(n: u32, row: u32) -> String {
    format!("{n}/{row} {}", "x".repeat(600))
}

/// Rows of a batch that are there; panics at a row that is not what was written.
async fn present(store: &Fjall, round: u32, writer: u32, n: u32) -> u32 {
    let part = part(round, writer, n);
    let rows = store.scan(Range::all(Table::Task, part.clone(), 1000)).await.unwrap();
    for row in &rows {
        let number = u32::from_be_bytes(row.clustering[..].try_into().unwrap());
        assert_eq!(row.value, text(n, number));
    }
    let claim = store.get(&Key::new(Table::TaskAt, part.clone(), "claim")).await.unwrap();
    let command = store.get(&Key::new(Table::Command, part, "command")).await.unwrap();
    rows.len() as u32 + u32::from(claim.is_some()) + u32::from(command.is_some())
}

/// The process that gets killed; not a test of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_writes_until_it_is_killed() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (round, folder) = told.split_once(' ').unwrap();
    let round: u32 = round.parse().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder)).unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                assert_eq!(store.commit_one(batch(round, writer, n)).await.unwrap(), Committed::Done);
                // One write of one line: what the parent reads is whole.
                std::io::stdout().write_all(format!("acked {writer} {n}\n").as_bytes()).unwrap();
            }
        })
    });
    futures_util::future::join_all(writers.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_batch_survives_a_kill_and_no_batch_is_partial() {
    let folder = tempfile::tempdir().unwrap();
    let mut acked: Vec<[u32; WRITERS as usize]> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, format!("{round} {}", folder.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut next = [0; WRITERS as usize];
        let mut note = |line: String| {
            // The harness prints its own words, the first of ours perhaps on the same line.
            if let Some((_, ack)) = line.split_once("acked ") {
                let (writer, n) = ack.split_once(' ').unwrap();
                next[writer.parse::<usize>().unwrap()] = n.parse::<u32>().unwrap() + 1;
            }
        };
        note(lines.by_ref().find(|line| line.contains("acked ")).expect("the child writes"));
        let id = child.id();
        let kill_after = Duration::from_millis(20 + u64::from(round) * 37 % 230);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(kill_after);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        lines.for_each(&mut note);
        killer.join().unwrap();
        acked.push(next);

        let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
        for (round, next) in (0_u32..).zip(&acked) {
            for (writer, &next) in (0_u32..).zip(next) {
                for n in 0..next {
                    let whole = ROWS + 2;
                    assert_eq!(
                        present(&store, round, writer, n).await,
                        whole,
                        "process {id}, batch {round} {writer} {n}"
                    );
                }
                for n in next..next + 2 {
                    let rows = present(&store, round, writer, n).await;
                    assert!([0, ROWS + 2].contains(&rows), "partial batch {round} {writer} {n}: {rows} rows");
                }
            }
        }
        drop(store);
    }
    let total: u32 = acked.iter().flatten().sum();
    assert!(total > ROUNDS, "only {total} batches were acknowledged");
}

#[tokio::test]
async fn a_folder_has_one_process_and_is_free_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = FjallConfig::new(folder.path());
    let key = Key::new(Table::Setting, "", "name");
    let store = Fjall::open(&config).unwrap();
    store.write(vec![Write::put(key.clone(), "value")]).await.unwrap();
    assert!(matches!(Fjall::open(&config), Err(OpenError::InUse { .. })));
    store.close().await;
    assert!(matches!(store.write(vec![Write::delete(key.clone())]).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.get(&key).await.unwrap(), Some("value".into()), "reads go on");
    drop(store);
    let again = Fjall::open(&config).unwrap();
    assert_eq!(again.get(&key).await.unwrap(), Some("value".into()));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = FjallConfig { reserve_bytes: u64::MAX / 4, ..FjallConfig::new(folder.path()) };
    let store = Fjall::open(&config).unwrap();
    let key = Key::new(Table::Setting, "", "name");
    assert!(matches!(store.write(vec![Write::put(key.clone(), "value")]).await, Err(StoreError::Full)));
    let claim = Commit::insert(Key::new(Table::Unique, "slug", "name"), "owner");
    assert!(matches!(store.commit_one(claim).await, Err(StoreError::Full)));
    assert_eq!(store.get(&key).await.unwrap(), None);
    let health = store.health();
    assert!(health.full && !health.poisoned);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    let big = Bytes::from(vec![7; 4 << 20]);
    let writes = (0..40_u8).map(|n| {
        let (store, big) = (store.clone(), big.clone());
        tokio::spawn(async move { store.write(vec![Write::put(Key::new(Table::Task, vec![n], ""), big)]).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let health = store.health();
    assert_eq!((health.queued_bytes, health.commit_age, health.poisoned), (0, None, false));
}

/// Rows of accounts are served from memory: while many read one, none meets a value older than what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_of_accounts_is_never_older_than_its_last_answered_write() {
    const LAST: u32 = 2000;
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    let key = Key::new(Table::User, "*", "somebody");
    let answered = Arc::new(AtomicU32::new(0));
    store.write(vec![Write::put(key.clone(), 0_u32.to_be_bytes().to_vec())]).await.unwrap();
    let readers = (0..4).map(|_| {
        let (store, key, answered) = (store.clone(), key.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut reads = 0_u64;
            loop {
                let before = answered.load(Ordering::Acquire);
                let row = store.get(&key).await.unwrap();
                let now = row.map_or(u32::MAX, |row| u32::from_be_bytes(row[..].try_into().unwrap()));
                assert!(now >= before, "{now} after {before} was answered");
                reads += 1;
                if before == LAST {
                    return reads;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for number in 1..=LAST {
        store.write(vec![Write::put(key.clone(), number.to_be_bytes().to_vec())]).await.unwrap();
        answered.store(number, Ordering::Release);
    }
    for reader in readers {
        assert!(reader.await.unwrap() > u64::from(LAST));
    }
    store.write(vec![Write::delete(key.clone())]).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
}

/// What is served from memory ends with its time to live as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_where_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    let key = Key::new(Table::WebSession, "secret", "-");
    store.write(vec![Write::put(key.clone(), "row").with_ttl(NonZeroU32::new(2))]).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), Some("row".into()));
    let began = Instant::now();
    while store.get(&key).await.unwrap().is_some() {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Places of tasks that were found nowhere are not looked for again by the writer. Whoever races: no place is taken
/// twice, and none is given up by two.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_found_a_place_empty_one_takes_it() {
    const PLACES: u32 = 3;
    const TURNS: u32 = 400;
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    let place = |n: u32| Key::new(Table::TaskAt, n.to_be_bytes().to_vec(), "place");
    let racers = (0..8_u32).map(|racer| {
        let store = store.clone();
        tokio::spawn(async move {
            // Taken less given up, by this racer.
            let mut held = [0_i32; PLACES as usize];
            for turn in 0..TURNS {
                let chance = (turn * 8 + racer).wrapping_mul(2_654_435_761) >> 16;
                let n = chance % PLACES;
                let mine: Bytes = [racer, turn].map(u32::to_be_bytes).concat().into();
                let (commit, by) = match store.get(&place(n)).await.unwrap() {
                    None => (Commit::insert(place(n), mine.clone()), 1),
                    Some(theirs) => (Commit::remove(place(n), theirs), -1),
                };
                // So that what was seen is now and then from before the last group.
                if chance % 2 == 0 {
                    tokio::time::sleep(Duration::from_millis(u64::from(chance % 4))).await;
                }
                match store.commit_one(commit).await.unwrap() {
                    Committed::Done => held[n as usize] += by,
                    Committed::Lost(rows) => assert!(by == -1 || !rows.is_empty(), "lost to nobody"),
                    Committed::Unknown => panic!("the embedded engine knows"),
                }
            }
            held
        })
    });
    let racers: Vec<_> = racers.collect();
    let mut held = [0_i32; PLACES as usize];
    for racer in racers {
        for (all, one) in held.iter_mut().zip(racer.await.unwrap()) {
            *all += one;
        }
    }
    for n in 0..PLACES {
        let is_there = store.get(&place(n)).await.unwrap().is_some();
        assert_eq!(held[n as usize], i32::from(is_there), "place {n}");
    }
}
