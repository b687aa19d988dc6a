use domain::command::{Actor, Command, Source, Status};
use domain::id::{CommandId, ProjectId, UserId, uuid_v7};
use domain::ledger::entry::Login;
use domain::ledger::{AuditFilter, Change, Fault, Fold, Kind, LedgerKey, Log, Proposal, Sealed};
use domain::time::Timestamp;

use super::*;
use crate::engine::memory::{self, Memory};
use crate::store::{Commit, Committed, Key, Store, Write};
use crate::table::Table;

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn key() -> LedgerKey {
    LedgerKey::new(&[1; 32])
}

fn login(n: u64) -> Proposal {
    let user = if n.is_multiple_of(2) { UserId::from_bytes([1; 16]) } else { UserId::from_bytes([2; 16]) };
    let kind = Kind::Login(Login { user: Some(user), success: !n.is_multiple_of(3), reason: None });
    Proposal { actor: Actor::User(user), source: Source::default(), kind }
}

/// Entries of a fresh ledger, appended `batch` at a time.
async fn filled(store: &Memory, count: u64, batch: u64) -> Log {
    let mut log = Log::new(PROJECT, key());
    let mut sealed: Vec<Sealed> = Vec::new();
    for n in 1..=count {
        sealed.push(log.record(login(n), START.plus_secs(n.cast_signed())).0);
        if sealed.len() as u64 == batch || n == count {
            let done = entries::append(store, PROJECT, &sealed, Vec::new()).await.unwrap();
            assert!(matches!(done, Appended::Done(receipt) if receipt.covers(n) && !receipt.covers(n + 1)));
            sealed.clear();
        }
    }
    log
}

#[tokio::test]
async fn an_append_is_lost_to_whoever_was_first_and_done_when_it_is_its_own() {
    let store = Memory::new();
    let (mut mine, mut theirs) = (Log::new(PROJECT, key()), Log::new(PROJECT, key()));
    let first = vec![mine.record(login(1), START).0, mine.record(login(2), START).0];
    let other = vec![theirs.record(login(3), START).0];
    assert!(matches!(entries::append(&store, PROJECT, &first, Vec::new()).await.unwrap(), Appended::Done(_)));
    assert!(matches!(entries::append(&store, PROJECT, &other, Vec::new()).await.unwrap(), Appended::Lost));
    // Repeating an append whose answer got lost finds its own rows.
    let marker = Write::put(Key::new(Table::Idem, "p", ""), "follow");
    let again = entries::append(&store, PROJECT, &first, vec![marker.clone()]).await.unwrap();
    assert!(matches!(again, Appended::Done(_)));
    assert!(store.get(&marker.key).await.unwrap().is_some(), "what follows is written too");
}

#[tokio::test]
async fn an_unknown_append_is_unknown() {
    let store = Memory::new();
    let mut log = Log::new(PROJECT, key());
    let sealed = vec![log.record(login(1), START).0];
    store.inject(memory::Fault::UnknownApplied);
    assert!(matches!(entries::append(&store, PROJECT, &sealed, Vec::new()).await.unwrap(), Appended::Unknown));
    assert!(matches!(entries::append(&store, PROJECT, &sealed, Vec::new()).await.unwrap(), Appended::Done(_)));
}

#[tokio::test]
async fn a_ledger_goes_on_across_its_chunks() {
    let store = Memory::new();
    let log = filled(&store, 10_050, 64).await;
    let tail = entries::tail(&store, PROJECT, 9_990, 40).await.unwrap();
    assert_eq!(tail.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (9_990..10_030).collect::<Vec<_>>());
    assert_eq!(entries::tail(&store, PROJECT, 1, 20_000).await.unwrap().len(), 10_050);
    assert!(entries::tail(&store, PROJECT, 10_051, 10).await.unwrap().is_empty());
    for hint in [0, 9_999, 10_000, 10_050] {
        assert_eq!(entries::last(&store, PROJECT, hint).await.unwrap().unwrap().seq, 10_050, "from {hint}");
    }
    let down = entries::before(&store, PROJECT, 10_005, 10).await.unwrap();
    assert_eq!(down.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (9_995..10_005).rev().collect::<Vec<_>>());
    let verified = audit::verify(&store, PROJECT, &key(), &[], |_| {}).await.unwrap();
    assert_eq!((verified.checked, verified.head_seq, verified.first_bad), (10_050, 10_050, None));
    assert_eq!(&verified.head_hash, log.fold.hash());
}

#[tokio::test]
async fn a_ledger_that_ends_with_its_chunk_is_read_whole() {
    for count in [9_999, 10_000] {
        let store = Memory::new();
        filled(&store, count, 60).await;
        assert_eq!(entries::tail(&store, PROJECT, 1, 50_000).await.unwrap().len() as u64, count);
        assert_eq!(entries::last(&store, PROJECT, 0).await.unwrap().unwrap().seq, count);
    }
}

#[tokio::test]
async fn tampering_is_found_at_its_seq() {
    let store = Memory::new();
    let log = filled(&store, 40, 8).await;
    store.write(vec![head::put(&log.fold).unwrap()]).await.unwrap();
    let row = |seq| Key::new(Table::Ledger, entries::partition(PROJECT, 0), entries::clustering(seq));
    let tamper = async |commit| assert_eq!(store.commit_one(commit).await.unwrap(), Committed::Done);
    let stored = store.get(&row(20)).await.unwrap().unwrap();
    let found = async || audit::verify(&store, PROJECT, &key(), &[], |_| {}).await.unwrap().first_bad;
    let mut edited = stored.to_vec();
    *edited.last_mut().unwrap() ^= 1;
    tamper(Commit::replace(row(20), stored.clone(), edited.clone())).await;
    let bad = found().await.unwrap();
    assert_eq!((bad.seq, bad.kind), (20, Fault::Hash));
    tamper(Commit::replace(row(20), edited, "short")).await;
    let bad = found().await.unwrap();
    assert_eq!((bad.seq, bad.kind), (20, Fault::Hash));
    tamper(Commit::remove(row(20), "short")).await;
    let bad = found().await.unwrap();
    assert_eq!((bad.seq, bad.kind), (20, Fault::Gap));
    tamper(Commit::insert(row(20), stored)).await;
    assert_eq!(found().await, None);
    for seq in 36..=40 {
        let stored = store.get(&row(seq)).await.unwrap().unwrap();
        tamper(Commit::remove(row(seq), stored)).await;
    }
    let bad = found().await.unwrap();
    assert_eq!((bad.seq, bad.kind), (36, Fault::Short), "the head knows of more");
}

#[tokio::test]
async fn a_head_of_a_lower_seq_never_replaces_a_higher_one() {
    let store = Memory::new();
    let log = filled(&store, 10, 5).await;
    let mut early = Log::new(PROJECT, key());
    early.record(login(1), START);
    store.write(vec![head::put(&log.fold).unwrap()]).await.unwrap();
    store.write(vec![head::put(&early.fold).unwrap()]).await.unwrap();
    assert_eq!(head::load(&store, PROJECT).await.unwrap(), log.fold);
    assert_eq!(head::load(&store, ProjectId::NIL).await.unwrap(), Fold::new(ProjectId::NIL));
}

#[tokio::test]
async fn the_audit_list_walks_every_entry_once_newest_first() {
    let store = Memory::new();
    filled(&store, 2_500, 64).await;
    let none = AuditFilter::default();
    let (mut seqs, mut before) = (Vec::new(), None);
    loop {
        let page = audit::list(&store, PROJECT, &none, before, 70).await.unwrap();
        assert!(!page.items.is_empty());
        seqs.extend(page.items.iter().map(|item| item.seq));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seqs, (1..=2_500).rev().collect::<Vec<_>>());
    let filter = AuditFilter {
        action_prefix: Some("auth.login_failed".into()),
        user: Some(UserId::from_bytes([1; 16])),
        since: Some(START.plus_secs(100)),
        until: Some(START.plus_secs(120)),
        ..AuditFilter::default()
    };
    let page = audit::list(&store, PROJECT, &filter, None, 10).await.unwrap();
    assert_eq!(page.items.iter().map(|item| item.seq).collect::<Vec<_>>(), [120, 114, 108, 102]);
    assert_eq!(page.next, None);
    assert_eq!(page.items[0].hash.len(), 64);
    for (seq, found) in [(1, vec![1]), (1_999, vec![1_999]), (2_500, vec![2_500]), (2_501, vec![])] {
        let filter = AuditFilter { seq: Some(seq), ..AuditFilter::default() };
        let page = audit::list(&store, PROJECT, &filter, None, 1).await.unwrap();
        assert_eq!(page.items.iter().map(|item| item.seq).collect::<Vec<_>>(), found);
        assert_eq!(page.next, None, "an entry stands once");
    }
}

fn command(n: i64, status: Status) -> Command {
    let at = START.plus_micros(n * 3_600_000_000);
    Command {
        id: CommandId::from_uuid(uuid_v7(at, [n as u8; 8])),
        project: PROJECT,
        agent: domain::id::AgentId::NIL,
        issued_by: None,
        action: domain::command::Action::CancelTask,
        target_type: domain::command::record::TargetType::Task,
        target_id: Some("celery:t".into()),
        engine: Some(domain::engine::Engine::Celery),
        payload: "{}".into(),
        sealed: None,
        global_throttle: false,
        chunks: None,
        status,
        result: None,
        error: None,
        dispatched_at: None,
        completed_at: None,
        deadline: at,
        delivered: domain::command::Delivered::No,
        late_status: None,
        late_result: None,
        chunk: 0,
        attempt: domain::command::Attempt::NONE,
        session: None,
        issued_seq: n.cast_unsigned(),
        outcome_seq: None,
        progress: None,
    }
}

async fn project(store: &Memory, changes: Vec<(u64, Change)>) {
    let writes = Projector::default().writes(store, PROJECT, &changes).await.unwrap();
    store.write(writes).await.unwrap();
}

#[tokio::test]
async fn commands_are_listed_newest_first_across_days_each_once() {
    let store = Memory::new();
    let (count, day) = (200, 24);
    for n in 0..count {
        // A week without commands in the middle.
        let n: i64 = if n < count / 2 { n } else { n + 7 * day };
        let status = if n % 5 == 0 { Status::Failed } else { Status::Succeeded };
        project(&store, vec![(n.cast_unsigned() + 1, Change::Command(Box::new(command(n, status))))]).await;
    }
    for (status, expected) in [(None, count), (Some(Status::Failed), count / 5), (Some(Status::Issued), 0)] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = commands::list(&store, PROJECT, status, after, 7).await.unwrap();
            assert!(page.next.is_none() || page.items.len() == 7);
            seen.extend(page.items.iter().map(|command| command.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
        assert_eq!(seen.len() as i64, expected, "{status:?}");
    }
}

#[tokio::test]
async fn a_row_of_a_lower_seq_never_replaces_a_higher_one() {
    let store = Memory::new();
    let (issued, ended) = (command(1, Status::Issued), command(1, Status::TimedOut));
    project(&store, vec![(5, Change::Command(Box::new(ended.clone()))), (5, Change::Busy(false))]).await;
    project(&store, vec![(3, Change::Command(Box::new(issued.clone()))), (3, Change::Busy(true))]).await;
    assert_eq!(commands::status(&store, PROJECT, issued.id).await.unwrap(), Some(ended.status));
    assert_eq!(commands::get(&store, PROJECT, issued.id).await.unwrap(), Some(ended));
    assert_eq!(commands::status(&store, PROJECT, CommandId::NIL).await.unwrap(), None);
    assert!(open::projects(&store, open::partition_of(PROJECT)).await.unwrap().is_empty());
    project(&store, vec![(6, Change::Busy(true))]).await;
    assert_eq!(open::projects(&store, open::partition_of(PROJECT)).await.unwrap(), [PROJECT]);
}

#[tokio::test]
async fn a_late_result_is_set_once_in_a_row_that_has_ended() {
    let store = Memory::new();
    let ended = command(1, Status::TimedOut);
    let late =
        |result: &str| Change::Late { command: ended.id, status: Status::Succeeded, result: Some(result.to_owned()) };
    // In the batch that ends the command, and once more later.
    project(&store, vec![(5, Change::Command(Box::new(ended.clone()))), (6, late("1"))]).await;
    project(&store, vec![(7, late("2"))]).await;
    let row = commands::get(&store, PROJECT, ended.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.late_status), (Status::TimedOut, Some(Status::Succeeded)));
    assert_eq!(row.late_result.as_deref(), Some("1"));
}
