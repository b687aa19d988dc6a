//! What every handler can reach.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use actors::{Clock, Mesh};
use cql::Store;
use domain::secret::MasterSecret;

use super::auth::memo::Memos;
use super::auth::password::Passwords;
use super::auth::throttle::Throttle;
use super::commands::WAITS_PER_USER;
use super::live::SUBSCRIPTIONS_PER_USER;
use super::seats::Seats;
use crate::checkpoints::Checkpoints;
use crate::config::Config;
use crate::store::Opened;

/// The shared state of the edge; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

pub struct Shared {
    pub store: Arc<dyn Store>,
    /// The same store, with what only its engine can say.
    pub opened: Opened,
    pub clock: Clock,
    pub config: Config,
    pub master: MasterSecret,
    /// Every actor; the only way to change what they own.
    pub mesh: Mesh,
    /// `None`: this server cannot sign.
    pub checkpoints: Option<Checkpoints>,
    pub passwords: Passwords,
    pub logins: Throttle,
    /// Connects of agents.
    pub connects: Throttle,
    pub memos: Memos,
    /// Dashboards that watch.
    pub subscriptions: Seats,
    /// Requests that wait for a command to end.
    pub waits: Seats,
    /// Serialises the count of failed logins, which is read, changed and written.
    pub failures: tokio::sync::Mutex<()>,
    /// Serialises changes of users, projects, memberships and API keys: a row is read, changed and written whole, what
    /// is gone stays gone, and of several administrators one has to stay.
    pub accounts: tokio::sync::Mutex<()>,
    /// The OpenAPI document as served; rendered once with the router.
    pub openapi: OnceLock<String>,
}

impl Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub fn new(
        opened: Opened,
        config: Config,
        master: MasterSecret,
        mesh: Mesh,
        checkpoints: Option<Checkpoints>,
    ) -> Self {
        let logins = Throttle::per_minute(config.login_limit_per_minute);
        let connects = Throttle::per_minute(config.connect_limit_per_minute);
        Self(Arc::new(Shared {
            store: Arc::clone(&opened.store),
            opened,
            clock: mesh.clock().clone(),
            master,
            mesh,
            checkpoints,
            passwords: Passwords::new(),
            logins,
            connects,
            memos: Memos::default(),
            subscriptions: Seats::new(SUBSCRIPTIONS_PER_USER),
            waits: Seats::new(WAITS_PER_USER),
            failures: tokio::sync::Mutex::new(()),
            accounts: tokio::sync::Mutex::new(()),
            openapi: OnceLock::new(),
            config,
        }))
    }
}
