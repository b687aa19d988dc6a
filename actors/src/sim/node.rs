//! A node: a mesh that crashes, and starts again on the same store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::id::NodeId;
use domain::id::address::Layout;
use domain::ledger::Terms;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::store::{NodeStore, Power};
use super::world::{BULK_LIMIT, TIMEOUT_SECS, World, lock, master};
use crate::clock::Clock;
use crate::mesh::{Mesh, MeshConfig};

pub(super) struct Node {
    index: usize,
    clock: Clock,
    running: Mutex<Option<Running>>,
}

struct Running {
    mesh: Mesh,
    power: Arc<Power>,
    sessions: Vec<AbortHandle>,
    down: CancellationToken,
}

/// Where an agent may connect.
pub(super) struct Open {
    pub(super) mesh: Mesh,
    /// Cancelled when the node is gone.
    pub(super) down: CancellationToken,
}

impl Node {
    pub(super) fn new(index: usize, clock: Clock) -> Self {
        Self { index, clock, running: Mutex::new(None) }
    }

    pub(super) fn open(&self) -> Option<Open> {
        lock(&self.running).as_ref().map(|running| Open { mesh: running.mesh.clone(), down: running.down.clone() })
    }

    pub(super) fn mesh(&self) -> Option<Mesh> {
        self.open().map(|open| open.mesh)
    }

    /// Starts the node unless it runs.
    pub(super) async fn start(&self, world: &Arc<World>) {
        if lock(&self.running).is_some() {
            return;
        }
        let power = Arc::new(Power::default());
        let store = NodeStore::new(world.memory.handle(), self.index, Arc::clone(&power), world);
        let mesh = Mesh::start(MeshConfig {
            store: Arc::new(store),
            clock: self.clock.clone(),
            node: NodeId::from_bytes([self.index as u8 + 1; 16]),
            alone: world.nodes.len() == 1,
            recorders: 1,
            layout: Layout::Day,
            retention_secs: 86_400,
            lost_after: Duration::from_secs(36_000),
            terms: Terms { command_timeout_secs: TIMEOUT_SECS, bulk_limit_per_minute: BULK_LIMIT },
            master: master(),
        });
        let mesh = mesh.await.expect("a mesh starts whatever the store says");
        *lock(&self.running) = Some(Running { mesh, power, sessions: Vec::new(), down: CancellationToken::new() });
    }

    /// A session's task dies with the node.
    pub(super) fn adopt(&self, session: AbortHandle) {
        if let Some(running) = lock(&self.running).as_mut() {
            running.sessions.retain(|session| !session.is_finished());
            running.sessions.push(session);
        }
    }

    /// The power goes.
    pub(super) fn crash(&self) {
        let Some(running) = lock(&self.running).take() else { return };
        running.power.cut();
        for session in &running.sessions {
            session.abort();
        }
        running.mesh.crash();
        running.down.cancel();
    }

    /// The node is asked to end.
    pub(super) async fn shut_down(&self) {
        let taken = lock(&self.running).take();
        let Some(running) = taken else { return };
        running.mesh.shutdown().await;
        running.power.cut();
        running.down.cancel();
    }

    /// Nothing reaches the store for a while; then all of it does.
    pub(super) fn stall(&self, time: Duration) {
        if let Some(running) = lock(&self.running).as_ref() {
            running.power.stall_until(tokio::time::Instant::now() + time);
        }
    }
}
