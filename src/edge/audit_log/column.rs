//! The members of an audit item as columns: what `fields` can name, and an item's cells.

use std::borrow::Cow;

use domain::ledger::AuditItem;
use domain::time::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::edge::sheet::{self, Table};
use crate::edge::tasks::neutral;

/// A member of an item, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column(&'static str);

impl Column {
    pub(super) const ALL: [Self; 19] = [
        Self("id"),
        Self("project_id"),
        Self("seq"),
        Self("hash"),
        Self("command_id"),
        Self("user_id"),
        Self("actor"),
        Self("action"),
        Self("target_type"),
        Self("target_id"),
        Self("result"),
        Self("outcome"),
        Self("event_id"),
        Self("metadata"),
        Self("force"),
        Self("global_throttle"),
        Self("source_ip"),
        Self("user_agent"),
        Self("occurred_at"),
    ];
    /// Those of csv and xlsx when none are asked for.
    pub(super) const DEFAULT: [Self; 14] = [
        Self("seq"),
        Self("occurred_at"),
        Self("actor"),
        Self("action"),
        Self("target_type"),
        Self("target_id"),
        Self("result"),
        Self("outcome"),
        Self("command_id"),
        Self("force"),
        Self("global_throttle"),
        Self("source_ip"),
        Self("user_agent"),
        Self("hash"),
    ];

    pub(super) const fn name(self) -> &'static str {
        self.0
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}

/// An item by its members.
pub(super) struct Row {
    occurred_at: Timestamp,
    members: Map<String, Value>,
}

impl Row {
    pub(super) fn of(item: &AuditItem) -> Self {
        // Plain members always serialise, into an object.
        let members = serde_json::to_value(item).unwrap_or_default();
        let members = if let Value::Object(members) = members { members } else { Map::new() };
        Self { occurred_at: item.occurred_at, members }
    }

    /// The item with the asked members only, in the asked order.
    pub(super) fn projected(&self, columns: &[Column]) -> Projected {
        let member = |column: &Column| self.members.get(column.name()).cloned().unwrap_or_default();
        Projected(columns.iter().map(|column| (column.name(), member(column))).collect())
    }

    /// A member as plain text; nothing is the empty text.
    pub(super) fn text(&self, column: Column) -> Cow<'_, str> {
        match self.members.get(column.name()) {
            None | Some(Value::Null) => Cow::Borrowed(""),
            Some(Value::String(text)) => neutral(Cow::Borrowed(text)),
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                neutral(Cow::Owned(other.to_string()))
            }
        }
    }
}

/// Members in an order of their own.
pub(super) struct Projected(Vec<(&'static str, Value)>);

impl Serialize for Projected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The sheet of a chain.
pub(super) struct Chain(pub(super) Vec<Column>);

impl Table for Chain {
    type Row = Row;
    const TITLE: &'static str = "Audit";

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|column| column.name())
    }

    fn cells<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = sheet::Cell<'a>> {
        self.0.iter().map(|column| match row.members.get(column.name()) {
            None | Some(Value::Null) => sheet::Cell::Empty,
            Some(_) if column.name() == "occurred_at" => sheet::Cell::Time(row.occurred_at),
            Some(Value::Number(number)) => number.as_f64().map_or(sheet::Cell::Empty, sheet::Cell::Number),
            Some(Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                sheet::Cell::Text(row.text(*column))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use domain::id::ProjectId;
    use domain::ledger::{Entry, Kind};

    use super::*;

    #[test]
    fn every_member_of_an_item_is_a_column_and_no_other() {
        let login = domain::ledger::entry::Login { user: None, success: true, reason: None };
        let entry = Entry {
            seq: 1,
            at: Timestamp::EPOCH,
            actor: domain::command::Actor::Anonymous,
            source: Default::default(),
            kind: Kind::Login(login),
        };
        let row = Row::of(&AuditItem::of(ProjectId::NIL, &entry, &[0; 32]));
        let mut members: Vec<&str> = row.members.keys().map(String::as_str).collect();
        let mut columns = Column::ALL.map(Column::name);
        members.sort_unstable();
        columns.sort_unstable();
        assert_eq!(members, columns);
        assert!(Column::DEFAULT.iter().all(|column| Column::named(column.name()).is_some()));
    }
}
