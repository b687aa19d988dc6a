//! Every statement the engine runs, prepared when first needed.

use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use crate::store::{Order, Range};
use crate::table::Table;

/// The shape of a statement; with a table it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// (p, c) -> v
    Get,
    /// (p, lower, upper if there is one, limit) -> c, v
    Scan { lower: Lower, upper: Upper, order: Descending },
    /// (ttl, v, p, c)
    Put,
    /// (stamp, ttl, v, p, c)
    PutStamped,
    /// (p, c)
    Delete,
    /// (stamp, p, c)
    DeleteStamped,
    /// (p, c, v, ttl), where there is no row
    Insert,
    /// (ttl, v, p, c, v before)
    Replace,
    /// (p, c, v before)
    Remove,
}

/// There always is a lower bound: no key is smaller than the empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lower {
    From,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Upper {
    Open,
    UpTo,
    Before,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Descending(pub(super) bool);

impl Shape {
    pub(super) fn of(range: &Range) -> Self {
        let lower = match &range.lower {
            Bound::Included(_) | Bound::Unbounded => Lower::From,
            Bound::Excluded(_) => Lower::After,
        };
        let upper = match &range.upper {
            Bound::Unbounded => Upper::Open,
            Bound::Included(_) => Upper::UpTo,
            Bound::Excluded(_) => Upper::Before,
        };
        Self::Scan { lower, upper, order: Descending(range.order == Order::Descending) }
    }

    fn text(self, table: &str) -> String {
        match self {
            Self::Get => format!("SELECT v FROM {table} WHERE p = ? AND c = ?"),
            Self::Scan { lower, upper, order } => {
                let lower = match lower {
                    Lower::From => ">=",
                    Lower::After => ">",
                };
                let mut text = format!("SELECT c, v FROM {table} WHERE p = ? AND c {lower} ?");
                match upper {
                    Upper::Open => {}
                    Upper::UpTo => text.push_str(" AND c <= ?"),
                    Upper::Before => text.push_str(" AND c < ?"),
                }
                let order = if order.0 { "DESC" } else { "ASC" };
                // Writing to a string does not fail.
                let _ = write!(text, " ORDER BY c {order} LIMIT ?");
                text
            }
            Self::Put => format!("UPDATE {table} USING TTL ? SET v = ? WHERE p = ? AND c = ?"),
            Self::PutStamped => {
                format!("UPDATE {table} USING TIMESTAMP ? AND TTL ? SET v = ? WHERE p = ? AND c = ?")
            }
            Self::Delete => format!("DELETE FROM {table} WHERE p = ? AND c = ?"),
            Self::DeleteStamped => format!("DELETE FROM {table} USING TIMESTAMP ? WHERE p = ? AND c = ?"),
            Self::Insert => format!("INSERT INTO {table} (p, c, v) VALUES (?, ?, ?) IF NOT EXISTS USING TTL ?"),
            Self::Replace => format!("UPDATE {table} USING TTL ? SET v = ? WHERE p = ? AND c = ? IF v = ?"),
            Self::Remove => format!("DELETE FROM {table} WHERE p = ? AND c = ? IF v = ?"),
        }
    }

    /// Whether a second execution changes nothing. A conditional statement is never said to be: the driver
    /// would repeat it behind our back, and a lost repetition hides a first one that won.
    const fn is_idempotent(self) -> bool {
        match self {
            Self::Get | Self::Scan { .. } | Self::Put | Self::PutStamped | Self::Delete | Self::DeleteStamped => true,
            Self::Insert | Self::Replace | Self::Remove => false,
        }
    }

    const fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::Scan { .. })
    }
}

/// Whether reads of a table take part in Paxos: only so do they see a commit whose answer was lost. Not for
/// `TaskAt`, which is read for every new task and where the insert that follows finds the truth anyway.
pub(super) const fn reads_serially(table: Table) -> bool {
    matches!(table, Table::Ledger | Table::Ownership | Table::Unique)
}

pub(super) struct Statements {
    session: Arc<Session>,
    keyspace: String,
    prepared: DashMap<(Table, Shape), PreparedStatement>,
}

impl Statements {
    pub(super) fn new(session: Arc<Session>, keyspace: String) -> Self {
        Self { session, keyspace, prepared: DashMap::new() }
    }

    /// Two that ask at once may both prepare it, which is harmless.
    pub(super) async fn get(&self, table: Table, shape: Shape) -> Result<PreparedStatement, PrepareError> {
        if let Some(statement) = self.prepared.get(&(table, shape)) {
            return Ok(statement.clone());
        }
        let text = shape.text(&format!("{}.{}", self.keyspace, table.name()));
        let mut statement = self.session.prepare(text).await?;
        statement.set_is_idempotent(shape.is_idempotent());
        if shape.is_read() && reads_serially(table) {
            statement.set_consistency(Consistency::LocalSerial);
            statement.set_is_idempotent(false);
        }
        self.prepared.insert((table, shape), statement.clone());
        Ok(statement)
    }
}

/// The partition key in CQL, which has no empty ones: the table's tag goes before ours.
pub(super) fn partition(table: Table, partition: &[u8]) -> Bytes {
    [&[table.tag()], partition].concat().into()
}
