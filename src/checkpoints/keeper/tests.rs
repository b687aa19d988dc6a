//! Rounds on the memory store.

use cql::engine::memory::Memory;
use cql::ledger::Appended;
use domain::command::{Actor, Source};
use domain::ledger::entry::Login;
use domain::ledger::{Kind, Log, Proposal, Remark};
use domain::time::Timestamp;

use super::*;
use crate::checkpoints::file;

const PROJECT: ProjectId = ProjectId::NIL;

struct Desk {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    changes: Changes,
    master: MasterSecret,
    key: Arc<CheckpointKey>,
    log: Log,
    /// What its entries say.
    reason: Option<&'static str>,
}

impl Desk {
    fn new() -> Self {
        let master = MasterSecret::new("0123456789abcdef0123456789abcdef").unwrap();
        let ledger_key = LedgerKey::new(master.site_key(KeyUse::Ledger, PROJECT).as_bytes());
        Self {
            folder: tempfile::tempdir().unwrap(),
            store: Arc::new(Memory::new()),
            changes: Changes::default(),
            master,
            key: Arc::new(CheckpointKey::mint()),
            log: Log::new(PROJECT, ledger_key),
            reason: None,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("checkpoints.ndjson")
    }

    fn rounds(&self) -> Rounds {
        Rounds::new(Wiring {
            store: Arc::clone(&self.store),
            changes: self.changes.clone(),
            clock: Clock::starting_at(Timestamp::from_secs(1_800_000_000)),
            master: self.master.clone(),
            key: Arc::clone(&self.key),
            config: CheckpointConfig { file: self.path(), key: PathBuf::new(), every: Duration::from_secs(10) },
        })
    }

    async fn append(&mut self, count: usize) {
        for _ in 0..count {
            let kind = Kind::Login(Login { user: None, success: true, reason: self.reason.map(str::to_owned) });
            let proposal = Proposal { actor: Actor::System, source: Source::default(), kind };
            let (sealed, _) = self.log.record(proposal, Timestamp::EPOCH);
            let done = entries::append(&*self.store, PROJECT, &[sealed], Vec::new()).await.unwrap();
            assert!(matches!(done, Appended::Done(_)));
        }
        self.changes.ledger_grew(PROJECT);
    }

    /// Seqs that are signed, and remarks.
    fn signed(&self) -> (Vec<u64>, Vec<Remark>) {
        let rolled = file::read(&self.path(), &[self.key.public()], None, |_| {}).unwrap();
        let witnesses = rolled.projects.get(&PROJECT).map(|signed| signed.witnesses.clone()).unwrap_or_default();
        (witnesses.iter().map(|witness| witness.seq).collect(), rolled.remarks)
    }
}

#[tokio::test]
async fn each_round_signs_what_has_grown_and_every_thousandth() {
    let mut desk = Desk::new();
    let mut rounds = desk.rounds();
    rounds.round().await;
    assert!(!desk.path().exists() || desk.signed().0.is_empty(), "nothing to sign");
    desk.append(2_005).await;
    rounds.round().await;
    rounds.round().await;
    assert_eq!(desk.signed(), (vec![1_000, 2_000, 2_005], vec![]));
    desk.append(1).await;
    rounds.round().await;
    assert_eq!(desk.signed(), (vec![1_000, 2_000, 2_005, 2_006], vec![]));
}

#[tokio::test]
async fn the_next_life_signs_what_the_last_one_left() {
    let mut desk = Desk::new();
    desk.append(3).await;
    desk.rounds().round().await;
    desk.append(4).await;
    // A process that starts has heard of nothing.
    desk.changes.take_grown();
    desk.rounds().round().await;
    assert_eq!(desk.signed(), (vec![3, 7], vec![]));
}

#[tokio::test]
async fn what_cannot_be_written_is_signed_later() {
    let mut desk = Desk::new();
    std::fs::create_dir(desk.path()).unwrap();
    desk.append(3).await;
    let mut rounds = desk.rounds();
    rounds.round().await;
    std::fs::remove_dir(desk.path()).unwrap();
    rounds.round().await;
    assert_eq!(desk.signed(), (vec![3], vec![]));
}

#[tokio::test]
async fn a_chain_that_contradicts_what_was_signed_is_not_signed_again() {
    let mut desk = Desk::new();
    desk.append(3).await;
    desk.rounds().round().await;
    // The store is put back: the same ledger with a shorter past, and then with another one.
    for (past, reason) in [(2, None), (9, Some("forged"))] {
        let fresh = Desk { reason, ..Desk::new() };
        (desk.store, desk.log, desk.reason) = (fresh.store, fresh.log, fresh.reason);
        desk.append(past).await;
        let mut rounds = desk.rounds();
        rounds.round().await;
        assert_eq!(rounds.refused, BTreeSet::from([PROJECT]), "{past} entries");
        assert_eq!(desk.signed(), (vec![3], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_waits_for_the_last_round() {
    let mut desk = Desk::new();
    let rounds = desk.rounds();
    let keeper = Keeper::start(Wiring {
        store: rounds.store,
        changes: rounds.changes,
        clock: rounds.clock,
        master: rounds.master,
        key: Arc::clone(&desk.key),
        config: CheckpointConfig { file: desk.path(), key: PathBuf::new(), every: Duration::from_secs(3600) },
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    desk.append(5).await;
    keeper.finish().await;
    assert_eq!(desk.signed(), (vec![5], vec![]));
}
