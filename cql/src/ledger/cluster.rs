//! Appends that race on a real cluster, most of whose answers come too late.

use std::sync::Arc;
use std::time::Duration;

use domain::command::{Actor, Source};
use domain::id::{ProjectId, UserId};
use domain::ledger::entry::Login;
use domain::ledger::{Kind, LedgerKey, Log, Proposal};
use domain::time::Timestamp;
use tokio::sync::Barrier;
use uuid::Uuid;

use super::*;
use crate::contract::cluster;
use crate::engine::cql::{Cql, CqlConfig};

/// How long each home waits for an answer; the last one waits for all of them.
const PATIENCE_MS: [u64; 4] = [2, 4, 8, 10_000];
const ROUNDS: u64 = 250;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn key() -> LedgerKey {
    LedgerKey::new(&[1; 32])
}

/// An entry that says whose it is.
fn entry_of(home: usize, round: u64) -> Proposal {
    let user = UserId::from_bytes([home as u8 + 1; 16]);
    let kind = Kind::Login(Login { user: Some(user), success: true, reason: Some(format!("round {round}")) });
    Proposal { actor: Actor::User(user), source: Source::default(), kind }
}

/// Appends in every round behind what it knows, and reads on. The rounds that it won.
async fn append_always(store: Arc<Cql>, project: ProjectId, home: usize, together: Arc<Barrier>) -> Vec<u64> {
    let (mut log, mut won) = (Log::new(project, key()), Vec::new());
    for round in 1..=ROUNDS {
        let mine = log.clone().record(entry_of(home, round), START).0;
        together.wait().await;
        let is_won = loop {
            match entries::append(&*store, project, std::slice::from_ref(&mine), Vec::new()).await {
                Ok(Appended::Done(receipt)) => {
                    assert!(receipt.covers(round));
                    break true;
                }
                Ok(Appended::Lost) => break false,
                // Nobody can say, so the same append is made again; or it was not made.
                Ok(Appended::Unknown) | Err(_) => {}
            }
        };
        won.extend(is_won.then_some(round));
        let stored = entries::tail(&*store, project, round, 10).await.unwrap();
        assert_eq!(stored.len(), 1, "home {home} in round {round}");
        assert_eq!(stored[0] == mine, is_won, "home {home} in round {round}");
        log.read(&stored[0]).unwrap();
    }
    won
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_racing_appends_have_one_winner_each() {
    let Some(config) = cluster() else { return };
    let project = ProjectId::from_uuid(Uuid::new_v4());
    let together = Arc::new(Barrier::new(PATIENCE_MS.len()));
    let mut homes = Vec::new();
    for millis in PATIENCE_MS {
        let hasty = CqlConfig { commit_timeout: Duration::from_millis(millis), ..config.clone() };
        homes.push(Arc::new(Cql::open(&hasty).await.unwrap()));
    }
    let racing = homes
        .iter()
        .enumerate()
        .map(|(home, store)| tokio::spawn(append_always(Arc::clone(store), project, home, Arc::clone(&together))));
    let won: Vec<Vec<u64>> =
        futures_util::future::join_all(racing).await.into_iter().map(|home| home.unwrap()).collect();
    let counts: Vec<usize> = won.iter().map(Vec::len).collect();
    let mut rounds: Vec<u64> = won.into_iter().flatten().collect();
    rounds.sort_unstable();
    assert_eq!(rounds, (1..=ROUNDS).collect::<Vec<_>>(), "one winner each");
    let doubts: u64 = homes.iter().map(|home| home.doubts()).sum();
    println!("{} racing appends, won by home {counts:?}, {doubts} answers lost", ROUNDS * PATIENCE_MS.len() as u64);
    assert!(doubts > 0, "the answers came in time, so nothing was tried");
    let verified = audit::verify(&*homes[0], project, &key(), &[], |_| {}).await.unwrap();
    assert_eq!((verified.checked, verified.first_bad), (ROUNDS, None));
}
