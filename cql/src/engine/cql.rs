//! The engine of a cluster: ScyllaDB or Cassandra through CQL.
//!
//! ```text
//! schema       keyspace, numbered files, one node applies them
//! statements   everything that is ever executed, prepared
//! write        plain writes: unlogged batches within one partition
//! lwt          commits: conditional batches, repeated until decided
//! ```
//!
//! Every table has the same three columns: `p` and `c` are the keys, `v` is the value. Tested against Cassandra;
//! where ScyllaDB is documented to differ, the code that depends on it says so.

mod lwt;
mod schema;
mod statements;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::NewSessionError;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::policies::timestamp_generator::MonotonicTimestampGenerator;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use tokio::time::{Instant, sleep};

pub use self::schema::SchemaError;
use self::schema::{Schema, check_name};
use self::statements::{Shape, Statements, partition, reads_serially};
use self::write::Values;
use crate::store::{Commit, Committed, Durability, Key, Range, Result, Row, Store, StoreError, Write};
use crate::table::Table;

/// Rows the server sends at a time.
const PAGE_ROWS: i32 = 1000;
/// Tries of a read, which the driver does not repeat when it is serial or there is no other node.
const READ_TRIES: u32 = 4;
/// A read that took longer is not tried again, unless it is serial: then it may have waited for a racer.
const READ_AGAIN_WITHIN: Duration = Duration::from_secs(5);
/// Pause before the second try; it doubles with each.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// Where the cluster is.
#[derive(Clone, Debug)]
pub struct CqlConfig {
    /// `host:port` of some nodes; the driver finds the others.
    pub nodes: Vec<String>,
    pub keyspace: String,
    /// The `replication` map of a keyspace that has to be created, as CQL text.
    pub replication: Option<String>,
    /// Whether a keyspace that is missing is created. A command that only looks must not make what it was to look at.
    pub create: bool,
    /// Only nodes of this data centre are asked.
    pub datacenter: Option<String>,
    pub user: Option<(String, String)>,
    /// How long to wait for the first node; a cluster often starts together with us.
    pub connect_within: Duration,
    /// How long to wait for one answer to a commit before it is run again. Longer than the servers' own limits,
    /// whose answers say more than silence.
    pub commit_timeout: Duration,
}

impl CqlConfig {
    pub fn new(nodes: Vec<String>, keyspace: impl Into<String>) -> Self {
        Self {
            nodes,
            keyspace: keyspace.into(),
            replication: None,
            create: true,
            datacenter: None,
            user: None,
            connect_within: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(10),
        }
    }
}

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no node of the cluster can be reached")]
    Unreachable(#[source] Box<NewSessionError>),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// A store on a cluster.
pub struct Cql {
    session: Arc<Session>,
    statements: Statements,
    durability: Durability,
    commit_timeout: Duration,
    doubts: AtomicU64,
    seed: AtomicU64,
}

impl Cql {
    /// Connects, and creates keyspace and tables where they are missing; the keyspace only if the settings say so.
    pub async fn open(config: &CqlConfig) -> Result<Self, ConnectError> {
        check_name(&config.keyspace)?;
        let session = Arc::new(connect(config).await?);
        let replication = config.replication.as_deref();
        let schema = Schema { session: &session, keyspace: &config.keyspace, replication };
        if !config.create {
            schema.require().await?;
        }
        schema.migrate().await?;
        let durability = durability(&session).await;
        tracing::info!(durability = durability.as_str(), "connected to the cluster");
        let statements = Statements::new(Arc::clone(&session), config.keyspace.clone());
        Ok(Self {
            session,
            statements,
            durability,
            commit_timeout: config.commit_timeout,
            doubts: AtomicU64::new(0),
            seed: AtomicU64::new(0),
        })
    }

    /// How many nodes we are connected to, and how many there are.
    pub fn nodes(&self) -> (usize, usize) {
        let state = self.session.get_cluster_state();
        let nodes = state.get_nodes_info();
        (nodes.iter().filter(|node| node.is_connected()).count(), nodes.len())
    }

    /// How many answers to commits were lost or said nothing, so that the commit was run again.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    /// A factor from 0.5 to 1.5 that differs from call to call.
    fn jitter(&self) -> f64 {
        let turn = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        0.5 + (turn >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// All rows of a read, page by page.
    async fn read(&self, table: Table, shape: Shape, values: Values) -> Result<Vec<(Option<Bytes>, Option<Bytes>)>> {
        let mut statement = self.statements.get(table, shape).await.map_err(unavailable)?;
        statement.set_page_size(PAGE_ROWS);
        let (began, mut pause, mut tries) = (Instant::now(), READ_PAUSE, READ_TRIES);
        loop {
            tries -= 1;
            let may_again = || tries > 0 && (reads_serially(table) || began.elapsed() < READ_AGAIN_WITHIN);
            match self.pages(&statement, shape, &values).await {
                Err(StoreError::Unavailable(_)) if may_again() => {
                    sleep(pause.mul_f64(self.jitter())).await;
                    pause *= 2;
                }
                answer => return answer,
            }
        }
    }

    async fn pages(
        &self,
        statement: &PreparedStatement,
        shape: Shape,
        values: &Values,
    ) -> Result<Vec<(Option<Bytes>, Option<Bytes>)>> {
        let mut rows = Vec::new();
        let mut state = PagingState::start();
        loop {
            let (page, next) = self.session.execute_single_page(statement, values, state).await.map_err(unavailable)?;
            let page = page.into_rows_result().map_err(unavailable)?;
            if shape == Shape::Get {
                for row in page.rows::<(Option<Bytes>,)>().map_err(unavailable)? {
                    rows.push((None, row.map_err(unavailable)?.0));
                }
            } else {
                for row in page.rows::<(Option<Bytes>, Option<Bytes>)>().map_err(unavailable)? {
                    rows.push(row.map_err(unavailable)?);
                }
            }
            match next {
                PagingStateResponse::HasMorePages { state: more } => state = more,
                PagingStateResponse::NoMorePages => return Ok(rows),
            }
        }
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}

async fn connect(config: &CqlConfig) -> Result<Session, ConnectError> {
    // Acts on idempotent statements only: with it and the short keepalive a node that hangs costs seconds. A node that
    // pauses for two, as one that collects garbage or makes tables on a busy machine does, has not hung.
    let speculation =
        SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: Duration::from_millis(300) };
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(Duration::from_secs(10)))
        .speculative_execution_policy(Some(Arc::new(speculation)))
        .build();
    let deadline = Instant::now() + config.connect_within;
    loop {
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.nodes)
            .default_execution_profile_handle(profile.clone().into_handle())
            .keepalive_interval(Duration::from_secs(2))
            .keepalive_timeout(Duration::from_secs(5))
            // Else the coordinator stamps plain writes, and two of ours may order as neither of us wrote them.
            .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()))
            .keyspaces_to_fetch([config.keyspace.clone()]);
        if let Some((user, password)) = &config.user {
            builder = builder.user(user, password);
        }
        if let Some(datacenter) = &config.datacenter {
            builder = builder.prefer_datacenter(datacenter.clone());
        }
        match builder.build().await {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() >= deadline => return Err(ConnectError::Unreachable(Box::new(error))),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the cluster"),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// What an acknowledgement means on this cluster: on disk only if the commit log is synced before the answer.
async fn durability(session: &Session) -> Durability {
    // Cassandra, then ScyllaDB.
    for table in ["system_views.settings", "system.config"] {
        let text = format!("SELECT value FROM {table} WHERE name = 'commitlog_sync'");
        let Ok(answer) = session.query_unpaged(text, ()).await else { continue };
        let mode = answer.into_rows_result().ok().and_then(|rows| rows.first_row::<(Option<String>,)>().ok());
        if let Some((Some(mode),)) = mode {
            let synced = ["batch", "group"].contains(&mode.trim_matches('"'));
            return if synced { Durability::Synced } else { Durability::Replicated };
        }
    }
    Durability::Replicated
}

#[async_trait]
impl Store for Cql {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let part = partition(key.table, &key.partition);
        let rows = self.read(key.table, Shape::Get, Box::new((part, key.clustering.clone()))).await?;
        Ok(rows.into_iter().next().and_then(|(_, value)| value))
    }

    async fn scan(&self, range: Range) -> Result<Vec<Row>> {
        if range.is_empty() || range.limit == 0 {
            return Ok(Vec::new());
        }
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let part = partition(range.table, &range.partition);
        let shape = Shape::of(&range);
        let lower = match range.lower {
            Included(bound) | Excluded(bound) => bound,
            Unbounded => Bytes::new(),
        };
        let limit = i32::try_from(range.limit).unwrap_or(i32::MAX);
        let values: Values = match range.upper {
            Included(upper) | Excluded(upper) => Box::new((part, lower, upper, limit)),
            Unbounded => Box::new((part, lower, limit)),
        };
        let rows = self.read(range.table, shape, values).await?;
        let row =
            |(clustering, value): (Option<Bytes>, Option<Bytes>)| Some(Row { clustering: clustering?, value: value? });
        Ok(rows.into_iter().filter_map(row).collect())
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        debug_assert!(writes.iter().all(Write::is_portable), "a plain write to a conditional table: {writes:?}");
        self.write_all(writes).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed>> {
        debug_assert!(commits.iter().all(Commit::is_portable), "not every engine can run {commits:?}");
        self.commit_all(commits).await
    }

    fn durability(&self) -> Durability {
        self.durability
    }
}
