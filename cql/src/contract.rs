//! What every engine must answer, run unchanged on all of them. An engine is done when this passes.
//!
//! ```text
//! rows       puts, deletes, stamps, times to live
//! pages      scans: order, bounds, limits, paging
//! guards     commits: guards, lost rows, races, what follows
//! accounts   what of accounts ends by itself
//! ```
//!
//! Every case takes keys of its own, so all of them share one store, which on CQL is costly to make.

mod accounts;
mod guards;
mod pages;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::engine::cql::{Cql, CqlConfig};
use crate::engine::fjall::{Fjall, FjallConfig};
use crate::engine::memory::{Faults, Memory};
use crate::store::{Commit, Committed, Key, Order, Range, Row, Store, StoreError, Write, WriteOp};
use crate::table::Table;

type Shared = Arc<dyn Store>;

/// All cases on one store.
async fn keeps_the_contract(store: Shared) {
    rows::all(&store).await;
    pages::all(&store).await;
    guards::all(&store).await;
    accounts::all(&store).await;
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract() {
    keeps_the_contract(Arc::new(Memory::new())).await;
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract_when_every_call_takes_time() {
    let faults = Faults { latency: Duration::from_micros(100)..=Duration::from_millis(20), ..Faults::default() };
    keeps_the_contract(Arc::new(Memory::with_faults(7, faults))).await;
}

#[tokio::test(start_paused = true)]
async fn memory_has_one_winner_whatever_becomes_of_answers() {
    for seed in 0..50 {
        let faults = Faults {
            commit_unknown: 0.4,
            commit_failed: 0.1,
            latency: Duration::ZERO..=Duration::from_millis(5),
            ..Faults::default()
        };
        let memory = Memory::with_faults(seed, faults);
        let store: Shared = Arc::new(memory.clone());
        guards::a_race_has_one_winner(&store).await;
        guards::a_chain_of_racing_appends_has_no_gap_and_no_fork(&store).await;
        let injected = memory.injected();
        assert!(
            injected.unknown_applied > 0 && injected.unknown_later > 0 && injected.unknown_never > 0,
            "{injected:?}"
        );
    }
}

#[tokio::test]
async fn fjall_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(&FjallConfig::new(folder.path())).unwrap();
    keeps_the_contract(Arc::new(store)).await;
}

/// A keyspace for all runs: keys are fresh, and creating tables takes seconds. Needs a server:
/// `THALAMUS_TEST_CQL=host:port`, which `make test` starts and sets. Without one there is nothing to test
/// against, and the test says so.
pub(crate) fn cluster() -> Option<CqlConfig> {
    let Ok(node) = std::env::var("THALAMUS_TEST_CQL") else {
        println!("not run: THALAMUS_TEST_CQL is not set; `make test` starts a server and sets it");
        return None;
    };
    Some(CqlConfig::new(vec![node], "thalamus_contract"))
}

#[tokio::test(flavor = "multi_thread")]
async fn cql_keeps_the_contract() {
    let Some(config) = cluster() else { return };
    keeps_the_contract(Arc::new(Cql::open(&config).await.unwrap())).await;
}

/// Most answers come too late: what was written is found out by running the same commit again.
#[tokio::test(flavor = "multi_thread")]
async fn cql_has_one_winner_whatever_becomes_of_answers() {
    let Some(config) = cluster() else { return };
    let mut doubts = 0;
    for millis in [2, 4, 8] {
        let hasty = CqlConfig { commit_timeout: Duration::from_millis(millis), ..config.clone() };
        let cql = Arc::new(Cql::open(&hasty).await.unwrap());
        let store: Shared = cql.clone();
        guards::a_race_has_one_winner(&store).await;
        guards::a_chain_of_racing_appends_has_no_gap_and_no_fork(&store).await;
        doubts += cql.doubts();
    }
    assert!(doubts > 0, "the answers came in time, so nothing was tried");
}

/// Brains of a new cluster start together.
#[tokio::test(flavor = "multi_thread")]
async fn cql_nodes_that_start_together_agree_on_the_schema() {
    let Some(mut config) = cluster() else { return };
    config.keyspace = format!("thalamus_{}", &Uuid::new_v4().simple().to_string()[..12]);
    let opened = futures_util::future::join_all((0..3).map(|_| Cql::open(&config))).await;
    let part = fresh();
    for (n, store) in (0_u8..).zip(opened) {
        let store: Shared = Arc::new(store.unwrap());
        store.write(vec![put(Table::Worker, &part, vec![n], "row")]).await.unwrap();
        assert_eq!(all(&store, Table::Worker, &part).await.len(), usize::from(n) + 1);
    }
}

/// A partition that no other case has.
fn fresh() -> Bytes {
    Bytes::copy_from_slice(Uuid::new_v4().as_bytes())
}

fn put(table: Table, partition: &Bytes, clustering: impl Into<Bytes>, value: impl Into<Bytes>) -> Write {
    Write::put(Key::new(table, partition.clone(), clustering), value)
}

async fn value(store: &Shared, table: Table, partition: &Bytes, clustering: impl Into<Bytes>) -> Option<Bytes> {
    store.get(&Key::new(table, partition.clone(), clustering)).await.unwrap()
}

async fn all(store: &Shared, table: Table, partition: &Bytes) -> Vec<(Bytes, Bytes)> {
    let rows = loop {
        match store.scan(Range::all(table, partition.clone(), 10_000)).await {
            Ok(rows) => break rows,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    rows.into_iter().map(|Row { clustering, value }| (clustering, value)).collect()
}

/// Runs a commit as every caller must: in doubt again and again, the same one, until it is done or lost. A
/// loser that was in doubt compares what is there with what it wanted: rows of its own mean that it won.
async fn decided(store: &Shared, commit: Commit) -> Result<(), Vec<Row>> {
    let mut doubt = false;
    loop {
        match store.commit_one(commit.clone()).await {
            Ok(Committed::Done) => return Ok(()),
            Ok(Committed::Lost(rows)) => {
                let mine = |row: &Row| {
                    let (row, value) = (&row.clustering, &row.value);
                    commit.writes.iter().any(|(clustering, op)| {
                        clustering == row && matches!(op, WriteOp::Put { value: wanted, .. } if wanted == value)
                    })
                };
                let won = doubt && !rows.is_empty() && rows.iter().all(mine);
                return if won { Ok(()) } else { Err(rows) };
            }
            Ok(Committed::Unknown) => doubt = true,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
