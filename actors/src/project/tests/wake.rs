use std::sync::Arc;

use cql::engine::memory::Memory;
use domain::command::Status;
use domain::id::NodeId;
use domain::id::address::Layout;
use domain::ledger::Terms;
use domain::secret::MasterSecret;
use domain::time::Timestamp;

use super::harness::*;
use crate::clock::Clock;
use crate::mesh::{Mesh, MeshConfig};

async fn node(store: &Memory, clock: &Clock) -> Mesh {
    let config = MeshConfig {
        store: Arc::new(store.clone()),
        clock: clock.clone(),
        node: NodeId::mint(clock.now()),
        alone: true,
        recorders: 1,
        layout: Layout::Day,
        retention_secs: 35 * 86_400,
        lost_after: std::time::Duration::from_secs(900),
        terms: Terms { command_timeout_secs: TIMEOUT_SECS, bulk_limit_per_minute: 10 },
        master: MasterSecret::new("0123456789abcdef0123456789abcdef").unwrap(),
    };
    Mesh::start(config).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_new_node_times_out_what_the_last_one_left_open() {
    let store = Memory::new();
    let clock = Clock::starting_at(Timestamp::from_secs(1_800_000_000));
    let first = node(&store, &clock).await;
    let issued = first.issue(PROJECT, retry("t")).await.unwrap();
    first.shutdown().await;
    drop(first);
    let _second = node(&store, &clock).await;
    let ended = loop {
        let row = cql::ledger::commands::get(&store, PROJECT, issued.id).await.unwrap().unwrap();
        if row.status != Status::Issued {
            break row;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(clock.now() < issued.deadline.plus_secs(8), "nobody timed it out");
    };
    assert_eq!(ended.status, Status::TimedOut);
}
