//! Commits: guards and writes happen together or not at all, and of racing ones exactly one is done.

use futures_util::future::join_all;

use super::*;
use crate::store::{Expect, Guard};

pub(super) async fn all(store: &Shared) {
    an_insert_is_done_once(store).await;
    a_replacement_needs_the_value_it_knows(store).await;
    a_removal_needs_the_value_it_knows(store).await;
    a_lost_commit_writes_nothing(store).await;
    a_batch_is_all_or_nothing(store).await;
    lost_rows_are_the_guarded_rows_that_exist(store).await;
    guards_see_commits_of_the_same_call(store).await;
    outcomes_come_in_the_order_of_the_commits(store).await;
    what_follows_is_there_when_a_commit_is_done(store).await;
    a_commit_without_guards_writes(store).await;
    empty_and_big_values_can_be_guarded(store).await;
    a_race_has_one_winner(store).await;
    a_chain_of_racing_appends_has_no_gap_and_no_fork(store).await;
}

fn row(clustering: &'static str, value: &'static str) -> Row {
    Row { clustering: clustering.into(), value: value.into() }
}

fn key(part: &Bytes) -> Key {
    Key::new(Table::Unique, part.clone(), "a")
}

/// Guards and writes by name: the guarded rows are expected to be absent.
fn batch(part: &Bytes, absent: &[&'static str], writes: &[(&'static str, &'static str)]) -> Commit {
    Commit {
        table: Table::Ledger,
        partition: part.clone(),
        guards: absent.iter().map(|row| Guard { clustering: (*row).into(), expect: Expect::Absent }).collect(),
        writes: writes
            .iter()
            .map(|(row, value)| ((*row).into(), WriteOp::Put { value: (*value).into(), ttl: None }))
            .collect(),
        follow: Vec::new(),
    }
}

async fn an_insert_is_done_once(store: &Shared) {
    let part = fresh();
    assert_eq!(decided(store, Commit::insert(key(&part), "one")).await, Ok(()));
    assert_eq!(decided(store, Commit::insert(key(&part), "two")).await, Err(vec![row("a", "one")]));
    assert_eq!(value(store, Table::Unique, &part, "a").await, Some("one".into()));
}

async fn a_replacement_needs_the_value_it_knows(store: &Shared) {
    let part = fresh();
    assert_eq!(decided(store, Commit::replace(key(&part), "one", "two")).await, Err(vec![]));
    decided(store, Commit::insert(key(&part), "one")).await.unwrap();
    assert_eq!(decided(store, Commit::replace(key(&part), "one", "two")).await, Ok(()));
    assert_eq!(decided(store, Commit::replace(key(&part), "one", "three")).await, Err(vec![row("a", "two")]));
    assert_eq!(value(store, Table::Unique, &part, "a").await, Some("two".into()));
}

async fn a_removal_needs_the_value_it_knows(store: &Shared) {
    let part = fresh();
    assert_eq!(decided(store, Commit::remove(key(&part), "one")).await, Err(vec![]));
    decided(store, Commit::insert(key(&part), "one")).await.unwrap();
    assert_eq!(decided(store, Commit::remove(key(&part), "other")).await, Err(vec![row("a", "one")]));
    assert_eq!(decided(store, Commit::remove(key(&part), "one")).await, Ok(()));
    assert_eq!(value(store, Table::Unique, &part, "a").await, None);
    assert_eq!(decided(store, Commit::insert(key(&part), "again")).await, Ok(()));
    assert_eq!(value(store, Table::Unique, &part, "a").await, Some("again".into()));
}

async fn a_lost_commit_writes_nothing(store: &Shared) {
    let part = fresh();
    decided(store, batch(&part, &["b"], &[("b", "held")])).await.unwrap();
    let follow = put(Table::LedgerHead, &part, "", "head");
    let lost = batch(&part, &["a", "b"], &[("a", "1"), ("b", "2"), ("c", "3")]).following(vec![follow]);
    assert_eq!(decided(store, lost).await, Err(vec![row("b", "held")]));
    assert_eq!(super::all(store, Table::Ledger, &part).await, [("b".into(), "held".into())]);
    assert_eq!(value(store, Table::LedgerHead, &part, "").await, None);
}

async fn a_batch_is_all_or_nothing(store: &Shared) {
    let part = fresh();
    decided(store, batch(&part, &["a"], &[("a", "1"), ("b", "2")])).await.unwrap();
    let mut change = batch(&part, &["c"], &[("c", "3"), ("a", "changed")]);
    change.guards.push(Guard { clustering: "a".into(), expect: Expect::Value("1".into()) });
    change.writes.push(("b".into(), WriteOp::Delete));
    decided(store, change).await.unwrap();
    assert_eq!(
        super::all(store, Table::Ledger, &part).await,
        [("a".into(), "changed".into()), ("c".into(), "3".into())]
    );
    let entries: Vec<(&str, &str)> = vec![("d", "4"), ("e", "5"), ("f", "6")];
    decided(store, batch(&part, &["d", "e", "f"], &entries)).await.unwrap();
    assert_eq!(super::all(store, Table::Ledger, &part).await.len(), 5);
}

async fn lost_rows_are_the_guarded_rows_that_exist(store: &Shared) {
    let part = fresh();
    decided(store, batch(&part, &["a"], &[("a", "1"), ("b", "2"), ("x", "unguarded")])).await.unwrap();
    let mut lost = batch(&part, &["c", "b"], &[("a", "new"), ("b", "new"), ("c", "new"), ("x", "new")]);
    lost.guards.push(Guard { clustering: "a".into(), expect: Expect::Value("1".into()) });
    assert_eq!(decided(store, lost).await, Err(vec![row("a", "1"), row("b", "2")]), "held guards as well");
}

async fn guards_see_commits_of_the_same_call(store: &Shared) {
    let part = fresh();
    let racing = ["one", "two", "three"].map(|value| Commit::insert(key(&part), value));
    let outcomes: Vec<_> = store.commit(racing.into()).await.into_iter().map(Result::unwrap).collect();
    let held = value(store, Table::Unique, &part, "a").await.unwrap();
    let done = outcomes.iter().filter(|outcome| **outcome == Committed::Done).count();
    let lost = Committed::Lost(vec![Row { clustering: "a".into(), value: held.clone() }]);
    assert_eq!(done, 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == lost).count(), 2, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Committed::Done).unwrap();
    assert_eq!(held, ["one", "two", "three"][winner]);
}

async fn outcomes_come_in_the_order_of_the_commits(store: &Shared) {
    let parts: Vec<_> = (0..12).map(|_| fresh()).collect();
    for part in parts.iter().step_by(3) {
        decided(store, Commit::insert(key(part), "taken")).await.unwrap();
    }
    let commits = parts.iter().map(|part| Commit::insert(key(part), "mine")).collect();
    let outcomes = store.commit(commits).await;
    for (place, outcome) in outcomes.into_iter().enumerate() {
        let expected = if place % 3 == 0 { Committed::Lost(vec![row("a", "taken")]) } else { Committed::Done };
        assert_eq!(outcome.unwrap(), expected, "{place}");
    }
    assert!(store.commit(Vec::new()).await.is_empty());
}

async fn what_follows_is_there_when_a_commit_is_done(store: &Shared) {
    let part = fresh();
    let follow = vec![
        put(Table::LedgerHead, &part, "", "head"),
        put(Table::Command, &part, "command", "row").stamped(4),
        put(Table::Command, &fresh(), "other", "row").stamped(4),
    ];
    decided(store, batch(&part, &["a"], &[("a", "entry")]).following(follow)).await.unwrap();
    assert_eq!(value(store, Table::LedgerHead, &part, "").await, Some("head".into()));
    assert_eq!(value(store, Table::Command, &part, "command").await, Some("row".into()));
    let older = vec![put(Table::Command, &part, "command", "older").stamped(3)];
    decided(store, batch(&part, &["b"], &[("b", "entry")]).following(older)).await.unwrap();
    assert_eq!(value(store, Table::Command, &part, "command").await, Some("row".into()), "stamps hold here too");
}

async fn a_commit_without_guards_writes(store: &Shared) {
    let part = fresh();
    let commit = Commit {
        table: Table::Worker,
        partition: part.clone(),
        guards: Vec::new(),
        writes: vec![("a".into(), WriteOp::Put { value: "1".into(), ttl: None }), ("b".into(), WriteOp::Delete)],
        follow: vec![put(Table::Queue, &part, "c", "2")],
    };
    for _ in 0..2 {
        assert_eq!(store.commit_one(commit.clone()).await.unwrap(), Committed::Done);
        assert_eq!(super::all(store, Table::Worker, &part).await, [("a".into(), "1".into())]);
        assert_eq!(value(store, Table::Queue, &part, "c").await, Some("2".into()));
    }
}

async fn empty_and_big_values_can_be_guarded(store: &Shared) {
    let part = fresh();
    let big = Bytes::from(vec![7; 300 * 1024]);
    decided(store, Commit::insert(key(&part), "")).await.unwrap();
    assert_eq!(decided(store, Commit::insert(key(&part), "x")).await, Err(vec![row("a", "")]));
    decided(store, Commit::replace(key(&part), "", big.clone())).await.unwrap();
    assert_eq!(value(store, Table::Unique, &part, "a").await, Some(big.clone()));
    decided(store, Commit::replace(key(&part), big, "small")).await.unwrap();
    assert_eq!(value(store, Table::Unique, &part, "a").await, Some("small".into()));
}

pub(super) async fn a_race_has_one_winner(store: &Shared) {
    let part = fresh();
    let racers = (0..64).map(|n| {
        let (store, commit) = (Arc::clone(store), Commit::insert(key(&part), format!("racer {n}")));
        tokio::spawn(async move { decided(&store, commit).await })
    });
    let outcomes: Vec<_> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
    let held = settled(store, &key(&part)).await.unwrap();
    let winners: Vec<_> = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_ok()).map(|(n, _)| n).collect();
    let [winner] = winners[..] else { panic!("not one winner: {winners:?}") };
    assert_eq!(held, format!("racer {winner}"));
    for lost in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(lost, [Row { clustering: "a".into(), value: held.clone() }]);
    }
}

/// Reads with as many tries as an injected failure takes.
async fn settled(store: &Shared, key: &Key) -> Option<Bytes> {
    loop {
        match store.get(key).await {
            Ok(value) => return value,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The ledger's way: everyone appends behind what it last saw.
pub(super) async fn a_chain_of_racing_appends_has_no_gap_and_no_fork(store: &Shared) {
    let part = fresh();
    let writers = (0..4_u8).map(|writer| {
        let (store, part) = (Arc::clone(store), part.clone());
        tokio::spawn(async move {
            let (mut seq, mut mine) = (0_u32, 0_u8);
            while mine < 5 {
                let entry = Key::new(Table::Ledger, part.clone(), seq.to_be_bytes().to_vec());
                let won = decided(&store, Commit::insert(entry, vec![writer, mine])).await.is_ok();
                seq += 1;
                mine += u8::from(won);
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    let chain = super::all(store, Table::Ledger, &part).await;
    assert_eq!(chain.len(), 20);
    assert!(chain.iter().zip(0_u32..).all(|((seq, _), n)| seq[..] == n.to_be_bytes()));
    for writer in 0..4 {
        let of: Vec<u8> = chain.iter().filter(|(_, entry)| entry[0] == writer).map(|(_, entry)| entry[1]).collect();
        assert_eq!(of, [0, 1, 2, 3, 4]);
    }
}
