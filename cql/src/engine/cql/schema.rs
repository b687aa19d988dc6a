//! Keyspace and tables: numbered files, applied once each, in order, by one node.
//!
//! A node claims a file by a conditional insert, applies its statements one by one, and marks it done; others
//! wait for that. Statements are additive and can be applied again, so a claim that outlives its node ends by its
//! time to live and the next one starts over. A file that was applied never changes: its digest is checked.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{
    DbError, ExecutionError, IntoRowsResultError, PrepareError, RequestAttemptError, RowsError, SchemaAgreementError,
    UseKeyspaceError,
};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement;
use scylla::value::{CqlValue, Row as CqlRow};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Name and text of every file, in order.
const FILES: [(&str, &str); 2] = [
    ("0001_tables", include_str!("../../../schema/0001_tables.cql")),
    ("0002_task_marks", include_str!("../../../schema/0002_task_marks.cql")),
];
/// A claim ends after this unless its node renews it, which it does before every statement.
const CLAIM_SECONDS: i32 = 90;
/// Nodes wait so long for another that makes progress.
const WAIT_AT_MOST: Duration = Duration::from_secs(600);
/// A keyspace that was created can be used after this.
const USABLE_WITHIN: Duration = Duration::from_secs(20);
/// How long a statement is tried again whose connection broke.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Why keyspace and tables are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("keyspace name {0:?} is not lower-case letters, digits and underscores, 48 at most")]
    Keyspace(String),
    #[error("there is no keyspace {0:?} of a server's")]
    Missing(String),
    #[error("schema file {name} was applied with other contents")]
    Changed { name: &'static str },
    #[error("schema file {name} was claimed by another node that does not finish")]
    Stuck { name: &'static str },
    #[error("schema statement failed")]
    Statement(#[source] Box<ExecutionError>),
    #[error("schema did not reach every node")]
    Agreement(#[source] Box<SchemaAgreementError>),
    #[error("keyspace cannot be used")]
    Use(#[source] Box<UseKeyspaceError>),
    #[error("schema answer is not readable")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<ExecutionError> for SchemaError {
    fn from(error: ExecutionError) -> Self {
        Self::Statement(Box::new(error))
    }
}

impl From<SchemaAgreementError> for SchemaError {
    fn from(error: SchemaAgreementError) -> Self {
        Self::Agreement(Box::new(error))
    }
}

impl From<UseKeyspaceError> for SchemaError {
    fn from(error: UseKeyspaceError) -> Self {
        Self::Use(Box::new(error))
    }
}

impl From<IntoRowsResultError> for SchemaError {
    fn from(error: IntoRowsResultError) -> Self {
        Self::Answer(Box::new(error))
    }
}

impl From<RowsError> for SchemaError {
    fn from(error: RowsError) -> Self {
        Self::Answer(Box::new(error))
    }
}

/// A keyspace name that needs no quotes.
pub(super) fn check_name(keyspace: &str) -> Result<(), SchemaError> {
    let first = keyspace.chars().next();
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    let good =
        keyspace.len() <= 48 && first.is_some_and(|first| first.is_ascii_lowercase()) && keyspace.chars().all(plain);
    if good { Ok(()) } else { Err(SchemaError::Keyspace(keyspace.to_owned())) }
}

pub(super) struct Schema<'a> {
    pub(super) session: &'a Session,
    pub(super) keyspace: &'a str,
    /// The `replication` map of a keyspace that has to be created; `None` asks for three copies, or as many
    /// as there are nodes, in each data centre.
    pub(super) replication: Option<&'a str>,
}

impl Schema<'_> {
    pub(super) async fn migrate(&self) -> Result<(), SchemaError> {
        self.create_keyspace().await?;
        self.use_keyspace().await?;
        self.create_claims().await?;
        for (name, text) in FILES {
            self.apply_once(name, text).await?;
        }
        Ok(())
    }

    /// Refuses a keyspace that no server has made.
    pub(super) async fn require(&self) -> Result<(), SchemaError> {
        let claims = [("keyspace_name", self.keyspace), ("table_name", "schema_migrations")];
        if self.exists("system_schema.tables", &claims).await? {
            Ok(())
        } else {
            Err(SchemaError::Missing(self.keyspace.to_owned()))
        }
    }

    async fn create_keyspace(&self) -> Result<(), SchemaError> {
        if self.exists("system_schema.keyspaces", &[("keyspace_name", self.keyspace)]).await? {
            return Ok(());
        }
        let replication = self.replication.map_or_else(|| self.default_replication(), ToOwned::to_owned);
        let mut text = format!("CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {replication}", self.keyspace);
        // ScyllaDB: conditional writes do not work on tablets before 2025.4, and Cassandra refuses the option.
        if self.exists("system_schema.tables", &[("keyspace_name", "system"), ("table_name", "tablets")]).await? {
            text.push_str(" AND tablets = {'enabled': false}");
        }
        self.define(&text).await
    }

    /// Where another node is making the keyspace, it stands in the system's tables a moment before it can be used.
    async fn use_keyspace(&self) -> Result<(), SchemaError> {
        let deadline = Instant::now() + USABLE_WITHIN;
        loop {
            match self.session.use_keyspace(self.keyspace, false).await {
                Err(error) if is_missing(&error) && Instant::now() < deadline => sleep(POLL).await,
                used => return Ok(used?),
            }
        }
    }

    fn default_replication(&self) -> String {
        let state = self.session.get_cluster_state();
        let mut copies: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        for node in state.get_nodes_info() {
            *copies.entry(node.datacenter.as_deref().unwrap_or("datacenter1")).or_default() += 1;
        }
        let each: Vec<_> = copies.into_iter().map(|(name, nodes)| format!("'{name}': {}", nodes.min(3))).collect();
        format!("{{'class': 'NetworkTopologyStrategy', {}}}", each.join(", "))
    }

    /// The one table that no claim protects. Nodes that start together may create it together; on Cassandra each
    /// would give it an id of its own, so it brings one.
    async fn create_claims(&self) -> Result<(), SchemaError> {
        if self
            .exists("system_schema.tables", &[("keyspace_name", self.keyspace), ("table_name", "schema_migrations")])
            .await?
        {
            return Ok(());
        }
        let scylla = [("keyspace_name", "system_schema"), ("table_name", "scylla_tables")];
        let id = if self.exists("system_schema.tables", &scylla).await? {
            String::new()
        } else {
            format!(" WITH id = {}", Uuid::new_v5(&Uuid::NAMESPACE_OID, self.keyspace.as_bytes()))
        };
        let columns = "name text PRIMARY KEY, digest text, owner text, state text";
        self.define(&format!("CREATE TABLE IF NOT EXISTS schema_migrations ({columns}){id}")).await
    }

    /// Runs one statement that changes the schema and waits until every node has it.
    async fn define(&self, text: &str) -> Result<(), SchemaError> {
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(Duration::from_secs(60)));
        self.ask(statement, ()).await?;
        self.session.await_schema_agreement().await?;
        Ok(())
    }

    /// Runs a statement that can be run again. A node that pauses while it makes tables loses its connections.
    async fn ask(
        &self,
        statement: impl Into<Statement>,
        values: impl SerializeRow,
    ) -> Result<QueryResult, SchemaError> {
        let (statement, deadline) = (statement.into(), Instant::now() + ANSWERED_WITHIN);
        loop {
            match self.session.query_unpaged(statement.clone(), &values).await {
                Err(error) if is_silence(&error) && Instant::now() < deadline => sleep(POLL).await,
                answer => return Ok(answer?),
            }
        }
    }

    async fn apply_once(&self, name: &'static str, text: &str) -> Result<(), SchemaError> {
        let digest = hex::encode(Sha256::digest(text));
        let owner = Uuid::new_v4().to_string();
        let deadline = Instant::now() + WAIT_AT_MOST;
        while Instant::now() < deadline {
            match self.claim(name, &digest, &owner).await? {
                Claim::Done(applied) if applied == digest => return Ok(()),
                Claim::Done(_) => return Err(SchemaError::Changed { name }),
                Claim::Other => sleep(POLL).await,
                Claim::Mine => {
                    tracing::info!(schema.file = name, "applying schema");
                    for statement in statements(text) {
                        self.renew(name, &digest, &owner, State::Claimed).await?;
                        self.define(&statement).await?;
                    }
                    self.renew(name, &digest, &owner, State::Done).await?;
                }
            }
        }
        Err(SchemaError::Stuck { name })
    }

    /// Claims a file, or says who has it. A claim of ours whose answer was lost is found by its owner.
    async fn claim(&self, name: &str, digest: &str, owner: &str) -> Result<Claim, SchemaError> {
        let claim = format!(
            "INSERT INTO schema_migrations (name, digest, owner, state) VALUES (?, ?, ?, 'claimed') IF NOT EXISTS USING TTL {CLAIM_SECONDS}"
        );
        let Ok(answer) = self.session.query_unpaged(claim, (name, digest, owner)).await else {
            return Ok(Claim::Other);
        };
        let rows = answer.into_rows_result()?;
        let place = |name| rows.column_specs().get_by_name(name).map(|(place, _)| place);
        let (held_digest, held_owner, state) = (place("digest"), place("owner"), place("state"));
        let Some(row) = rows.rows::<CqlRow>()?.next() else { return Ok(Claim::Other) };
        let columns = row.map_err(|error| SchemaError::Answer(Box::new(error)))?.columns;
        let text = |place: Option<usize>| columns.get(place?)?.as_ref()?.as_text().cloned();
        let applied = columns.first().and_then(Option::as_ref).and_then(CqlValue::as_boolean);
        Ok(match (applied, text(state).as_deref()) {
            (Some(true), _) => Claim::Mine,
            (_, Some("done")) => Claim::Done(text(held_digest).unwrap_or_default()),
            _ if text(held_owner).as_deref() == Some(owner) => Claim::Mine,
            _ => Claim::Other,
        })
    }

    /// Writes a claim of ours again. Lost if it ended meanwhile: then the file is applied twice, as it may be.
    async fn renew(&self, name: &str, digest: &str, owner: &str, state: State) -> Result<(), SchemaError> {
        let (ttl, state) = match state {
            State::Claimed => (format!("USING TTL {CLAIM_SECONDS} "), "claimed"),
            State::Done => (String::new(), "done"),
        };
        let text = format!(
            "UPDATE schema_migrations {ttl}SET digest = ?, owner = ?, state = '{state}' WHERE name = ? IF owner = ?"
        );
        self.ask(text, (digest, owner, name, owner)).await?;
        Ok(())
    }

    async fn exists(&self, table: &str, key: &[(&str, &str)]) -> Result<bool, SchemaError> {
        let conditions: Vec<_> = key.iter().map(|(column, value)| format!("{column} = '{value}'")).collect();
        let text = format!("SELECT keyspace_name FROM {table} WHERE {}", conditions.join(" AND "));
        Ok(self.ask(text, ()).await?.into_rows_result()?.rows_num() > 0)
    }
}

/// Whether a node says that it has no such keyspace.
fn is_missing(error: &UseKeyspaceError) -> bool {
    matches!(error, UseKeyspaceError::RequestError(RequestAttemptError::DbError(DbError::Invalid, _)))
}

/// Whether no node has said anything.
fn is_silence(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::ConnectionPoolError(_)
            | ExecutionError::PrepareError(PrepareError::ConnectionPoolError(_))
            | ExecutionError::RequestTimeout(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_))
    )
}

#[derive(Clone, Copy)]
enum State {
    Claimed,
    Done,
}

enum Claim {
    Mine,
    Other,
    /// Applied by someone, with this digest.
    Done(String),
}

/// Statements of a file without its comments; no text in them has a semicolon.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    code.join("\n").split(';').map(str::trim).filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn every_table_is_created_once_under_its_name() {
        let created: Vec<_> = FILES.iter().flat_map(|(_, text)| statements(text)).collect();
        for table in Table::ALL {
            let start = format!("CREATE TABLE IF NOT EXISTS {} (", table.name());
            assert_eq!(created.iter().filter(|statement| statement.starts_with(&start)).count(), 1, "{}", table.name());
        }
        assert_eq!(created.len(), Table::ALL.len());
    }

    #[test]
    fn files_are_numbered_in_order() {
        let numbers: Vec<_> = FILES.iter().map(|(name, _)| name[..4].parse::<usize>().unwrap()).collect();
        assert!(numbers.into_iter().eq(1..=FILES.len()));
    }

    #[test]
    fn a_keyspace_name_is_plain() {
        assert!(check_name("thalamus_2").is_ok());
        for name in ["", "2x", "Thalamus", "a-b", "a; DROP", &"a".repeat(49)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
