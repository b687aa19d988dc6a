//! Commits: one conditional batch within one partition, repeated until its outcome is known.
//!
//! A timeout says nothing about a conditional batch, and neither does a read after it: the coordinator may still
//! propose. What decides is to run the same batch again until it is applied or lost. Lost after a doubt may be
//! our own doing; then the guarded rows hold what we wrote, and we have won.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::response::query_result::QueryResult;
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::{CqlValue, Row as CqlRow};
use tokio::time::{Instant, sleep};

use super::statements::{Shape, partition};
use super::write::{Values, ttl};
use super::{Cql, unavailable};
use crate::store::{Commit, Committed, Expect, Guard, Key, Result, Row, StoreError, Write, WriteOp};

/// Commits of one call under way at once: as many as a recorder's round has. A node syncs its log for all that wait, so
/// more at once cost it less each.
const COMMITS_AT_ONCE: usize = 512;
/// How long a commit is repeated before its caller learns that nobody can say.
const DECIDE_WITHIN: Duration = Duration::from_secs(20);
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Tries of what follows a commit.
const FOLLOW_TRIES: u32 = 5;

/// One execution of a conditional batch.
enum Cas {
    Applied,
    Lost(Vec<Row>),
    /// It never got as far as a replica.
    Refused(StoreError),
    Unknown,
}

/// What became of a commit before anything that follows it was written.
enum Decided {
    Won(Vec<Write>),
    Ended(Committed),
}

impl Cql {
    /// Decides each of them, then writes what follows those that won: together, because rows of one partition share a
    /// batch, and a batch of forty rows costs the cluster little more than one row.
    pub(super) async fn commit_all(&self, commits: Vec<Commit>) -> Vec<Result<Committed>> {
        let decided = stream::iter(commits).map(|commit| self.decide(commit)).buffered(COMMITS_AT_ONCE);
        let decided: Vec<Result<Decided>> = decided.collect().await;
        let mut follow = Vec::new();
        let mut outcomes = Vec::with_capacity(decided.len());
        for each in decided {
            outcomes.push(each.map(|decided| match decided {
                Decided::Won(writes) => {
                    follow.extend(writes);
                    None
                }
                Decided::Ended(committed) => Some(committed),
            }));
        }
        let followed = self.follow(follow).await;
        let settle = |outcome: Option<Committed>| outcome.unwrap_or_else(|| followed.clone());
        outcomes.into_iter().map(|outcome| outcome.map(settle)).collect()
    }

    async fn decide(&self, commit: Commit) -> Result<Decided> {
        if commit.guards.is_empty() {
            return Ok(self.write_unguarded(commit).await);
        }
        let (batch, values) = self.conditional(&commit).await?;
        let (deadline, mut pause, mut doubt) = (Instant::now() + DECIDE_WITHIN, PAUSE_FIRST, false);
        loop {
            match cas(&self.session, &batch, &values).await {
                Cas::Applied => return Ok(Decided::Won(commit.follow)),
                Cas::Lost(rows) if !doubt => return Ok(Decided::Ended(Committed::Lost(rows))),
                Cas::Lost(rows) => match is_mine(&commit, &rows) {
                    Some(true) => return Ok(Decided::Won(commit.follow)),
                    Some(false) => return Ok(Decided::Ended(Committed::Lost(rows))),
                    None => return Ok(Decided::Ended(Committed::Unknown)),
                },
                Cas::Refused(error) if !doubt => return Err(error),
                Cas::Refused(_) => {}
                Cas::Unknown => {
                    doubt = true;
                    self.doubts.fetch_add(1, Ordering::Relaxed);
                }
            }
            if Instant::now() + pause >= deadline {
                return Ok(Decided::Ended(Committed::Unknown));
            }
            // Racers that were told to wait must not come back together.
            sleep(pause.mul_f64(self.jitter())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// An unconditional write cannot be lost, and one that failed may still arrive.
    async fn write_unguarded(&self, commit: Commit) -> Decided {
        let Commit { table, partition, writes, follow, guards: _ } = commit;
        let writes = writes.into_iter().map(|(clustering, op)| {
            let key = Key { table, partition: partition.clone(), clustering };
            Write { key, op, stamp: None }
        });
        match self.write_all(writes.collect()).await {
            Ok(()) => Decided::Won(follow),
            Err(_) => Decided::Ended(Committed::Unknown),
        }
    }

    async fn follow(&self, follow: Vec<Write>) -> Committed {
        if follow.is_empty() {
            return Committed::Done;
        }
        let mut pause = PAUSE_FIRST;
        for _ in 0..FOLLOW_TRIES {
            match self.write_all(follow.clone()).await {
                Ok(()) => return Committed::Done,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "rows that follow a commit were not written"
                    );
                }
            }
            sleep(pause).await;
            pause *= 4;
        }
        Committed::Unknown
    }

    async fn conditional(&self, commit: &Commit) -> Result<(Batch, Vec<Values>)> {
        let part = partition(commit.table, &commit.partition);
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_request_timeout(Some(self.commit_timeout));
        let mut values = Vec::with_capacity(commit.writes.len());
        for (row, op) in &commit.writes {
            let guard = commit.guards.iter().find(|guard| guard.clustering == row);
            let (shape, bound) = conditional(&part, row, op, guard);
            batch.append_statement(self.statements.get(commit.table, shape).await.map_err(unavailable)?);
            values.push(bound);
        }
        Ok((batch, values))
    }
}

/// Statement and values of one write of a commit.
fn conditional(part: &Bytes, row: &Bytes, op: &WriteOp, guard: Option<&Guard>) -> (Shape, Values) {
    let (part, row) = (part.clone(), row.clone());
    match (op, guard.map(|guard| &guard.expect)) {
        (WriteOp::Put { value, ttl: lives }, Some(Expect::Absent)) => {
            (Shape::Insert, Box::new((part, row, value.clone(), ttl(*lives))))
        }
        (WriteOp::Put { value, ttl: lives }, Some(Expect::Value(before))) => {
            (Shape::Replace, Box::new((ttl(*lives), value.clone(), part, row, before.clone())))
        }
        (WriteOp::Delete, Some(Expect::Value(before))) => (Shape::Remove, Box::new((part, row, before.clone()))),
        (WriteOp::Put { value, ttl: lives }, None) => (Shape::Put, Box::new((ttl(*lives), value.clone(), part, row))),
        // `is_portable` excludes a delete of a row that must be absent; as a plain delete it does what it says.
        (WriteOp::Delete, None | Some(Expect::Absent)) => (Shape::Delete, Box::new((part, row))),
    }
}

async fn cas(session: &Session, batch: &Batch, values: &[Values]) -> Cas {
    match session.batch(batch, values).await {
        Ok(result) => read(result).unwrap_or(Cas::Unknown),
        Err(error) if never_ran(&error) => Cas::Refused(unavailable(error)),
        Err(_) => Cas::Unknown,
    }
}

/// Reads the answer of a conditional batch. Cassandra answers one row if applied, else the guarded rows that
/// exist; Scylla answers a row for every statement, applied or not, with nulls where there is no row. Common to
/// both are column 0, and the names of the others.
fn read(result: QueryResult) -> Option<Cas> {
    let result = result.into_rows_result().ok()?;
    let place = |name| result.column_specs().get_by_name(name).map(|(place, _)| place);
    let (clustering, value) = (place("c"), place("v"));
    let mut rows: Vec<Row> = Vec::new();
    let mut applied = None;
    for row in result.rows::<CqlRow>().ok()? {
        let mut columns = row.ok()?.columns;
        let first = columns.first().and_then(Option::as_ref).and_then(CqlValue::as_boolean);
        applied = applied.or(first);
        let mut blob = |place: Option<usize>| match columns.get_mut(place?)?.take()? {
            CqlValue::Blob(bytes) => Some(Bytes::from(bytes)),
            _ => None,
        };
        if let (Some(clustering), Some(value)) = (blob(clustering), blob(value)) {
            rows.push(Row { clustering, value });
        }
    }
    rows.sort_by(|left, right| left.clustering.cmp(&right.clustering));
    rows.dedup();
    Some(if applied? { Cas::Applied } else { Cas::Lost(rows) })
}

/// Whether an error means that no replica ever heard of the batch. Everything else is doubt.
fn never_ran(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::PrepareError(_)
        | ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => matches!(
            error,
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::Unauthorized
                | DbError::AuthenticationError
                | DbError::ConfigError
                | DbError::Unavailable { .. }
                | DbError::Overloaded
                | DbError::IsBootstrapping
        ),
        ExecutionError::LastAttemptError(
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId,
        ) => true,
        // The driver's enum is open; what we do not know is doubt.
        _ => false,
    }
}

/// Whether the rows that lost a repeated commit are what that commit wrote. `None` if it only deletes: then a
/// missing row may be anyone's doing.
fn is_mine(commit: &Commit, rows: &[Row]) -> Option<bool> {
    let mut puts = 0;
    for guard in &commit.guards {
        let held = rows.iter().find(|row| row.clustering == guard.clustering).map(|row| &row.value);
        let wanted = commit.writes.iter().find(|(row, _)| *row == guard.clustering).and_then(|(_, op)| match op {
            WriteOp::Put { value, .. } => Some(value),
            WriteOp::Delete => None,
        });
        if held != wanted {
            return Some(false);
        }
        puts += usize::from(wanted.is_some());
    }
    (puts > 0).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn row(value: &'static str) -> Vec<Row> {
        vec![Row { clustering: "a".into(), value: value.into() }]
    }

    #[test]
    fn a_repeated_commit_is_mine_if_the_rows_are() {
        let key = Key::new(Table::Unique, "p", "a");
        let insert = Commit::insert(key.clone(), "mine");
        assert_eq!(is_mine(&insert, &row("mine")), Some(true));
        assert_eq!(is_mine(&insert, &row("other")), Some(false));
        let replace = Commit::replace(key.clone(), "before", "mine");
        assert_eq!(is_mine(&replace, &row("mine")), Some(true));
        assert_eq!(is_mine(&replace, &row("before")), Some(false));
        assert_eq!(is_mine(&replace, &[]), Some(false));
        let remove = Commit::remove(key, "before");
        assert_eq!(is_mine(&remove, &[]), None, "anyone may have removed it");
        assert_eq!(is_mine(&remove, &row("other")), Some(false));
    }
}
