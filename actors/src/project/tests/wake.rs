use std::sync::Arc;

use cql::engine::memory::{Fault, Memory};
use domain::command::Status;
use domain::id::NodeId;
use domain::id::address::Layout;
use domain::ledger::Terms;
use domain::secret::MasterSecret;
use domain::time::Timestamp;

use super::harness::*;
use crate::clock::Clock;
use crate::mesh::{Mesh, MeshConfig};
use crate::project::IssueError;

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
    assert_eq!(ended(&store, &clock, issued.deadline).await, Status::TimedOut);
}

/// Waits for the end of the project's only command, as it is shown.
async fn ended(store: &Memory, clock: &Clock, deadline: Timestamp) -> Status {
    loop {
        let listed = cql::ledger::commands::list(store, PROJECT, None, None, 10).await.unwrap();
        if let [command] = &listed.items[..]
            && command.status != Status::Issued
        {
            return command.status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(clock.now() < deadline.plus_secs(8), "nobody timed it out");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_node_finds_a_command_whose_home_died_before_it_knew() {
    let first = Node::new().await;
    first.store.inject(Fault::UnknownApplied);
    let answer = first.project.issue(retry("t")).await;
    assert!(matches!(answer, Err(IssueError::Unavailable)), "{answer:?}");
    assert_eq!(first.kinds().await, ["issued"], "the entry is there, and nothing that follows from it");
    let deadline = first.clock.now().plus_secs(i64::from(TIMEOUT_SECS));
    let _second = node(&first.store, &first.clock).await;
    assert_eq!(ended(&first.store, &first.clock, deadline).await, Status::TimedOut);
}
