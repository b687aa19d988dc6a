//! The parameters of the audit list.

use std::str::FromStr;

use domain::ledger::AuditFilter;
use serde_json::json;
use utoipa::IntoParams;

use super::column::Column;
use crate::edge::error::Problem;
use crate::edge::extract::{Fields, FromFields, parse};
use crate::edge::tasks::{LIMIT_MAX, limit};
use crate::edge::words;

const PREFIX_MAX: usize = 80;
const TEXT_MAX: usize = 500;

#[derive(Debug)]
pub(super) struct ListQuery {
    pub(super) filter: AuditFilter,
    pub(super) cursor: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) format: Format,
    pub(super) fields: Option<Vec<Column>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    Csv,
    Xlsx,
    Ndjson,
}

impl FromStr for Format {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "xlsx" => Ok(Self::Xlsx),
            "ndjson" => Ok(Self::Ndjson),
            _ => Err(()),
        }
    }
}

/// A word of `result` or `outcome`.
#[derive(Debug)]
struct Outcome(String);

impl FromStr for Outcome {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        matches!(text, "success" | "failure" | "allow" | "deny").then(|| Self(text.to_owned())).ok_or(())
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters to OpenAPI")]
pub(super) struct ListParameters {
    /// The one entry with this number.
    #[param(minimum = 1)]
    seq: Option<u64>,
    /// How the action begins, such as `command.`.
    #[param(min_length = 1, max_length = 80)]
    action_prefix: Option<String>,
    #[param(inline)]
    outcome: Option<words::Outcome>,
    #[param(format = "uuid")]
    user_id: Option<String>,
    #[param(min_length = 1, max_length = 500)]
    actor: Option<String>,
    #[param(min_length = 1, max_length = 80)]
    target_type: Option<String>,
    #[param(min_length = 1, max_length = 500)]
    target_id: Option<String>,
    #[param(format = "uuid")]
    command_id: Option<String>,
    force: Option<bool>,
    global_throttle: Option<bool>,
    #[param(format = "date-time")]
    since: Option<String>,
    #[param(format = "date-time")]
    until: Option<String>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 1000)]
    cursor: Option<String>,
    #[param(minimum = 1, maximum = 5000)]
    limit: Option<u32>,
    /// csv, xlsx and ndjson stream everything.
    #[param(inline)]
    format: Option<Format>,
    /// Comma-separated members of an item, in the order wanted.
    #[param(pattern = r"^ *[a-z_]+ *(, *[a-z_]+ *)*$", example = "seq,occurred_at,actor,action")]
    fields: Option<String>,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let outcome = parse::form::<Outcome>("Input should be 'success', 'failure', 'allow' or 'deny'");
        let filter = AuditFilter {
            seq: fields.optional("seq", parse::integer(1..=i64::MAX)).map(i64::unsigned_abs),
            action_prefix: fields.optional("action_prefix", parse::text(1..=PREFIX_MAX)),
            result: fields.optional("outcome", outcome).map(|Outcome(word)| word),
            user: fields.optional("user_id", parse::id),
            actor: fields.optional("actor", parse::text(1..=TEXT_MAX)),
            target_type: fields.optional("target_type", parse::text(1..=PREFIX_MAX)),
            target_id: fields.optional("target_id", parse::text(1..=TEXT_MAX)),
            command: fields.optional("command_id", parse::id),
            force: fields.optional("force", parse::boolean),
            global_throttle: fields.optional("global_throttle", parse::boolean),
            since: fields.optional("since", parse::timestamp),
            until: fields.optional("until", parse::timestamp),
        };
        let cursor = fields.optional("cursor", parse::text(0..=usize::MAX));
        let limit = fields.optional("limit", limit(LIMIT_MAX));
        let format = fields.optional("format", parse::form("Input should be 'json', 'csv', 'xlsx' or 'ndjson'"));
        let chosen = fields.optional("fields", parse::columns(column));
        Some(Self { filter, cursor, limit, format: format.unwrap_or(Format::Json), fields: chosen })
    }
}

fn column(value: &serde_json::Value) -> Result<Column, Problem> {
    let column = value.as_str().and_then(Column::named);
    let names = || Column::ALL.map(Column::name).join(", ");
    column.ok_or_else(|| parse::wrong("value_error", format!("Fields are {}", names())))
}

impl ListQuery {
    /// What a cursor is bound to.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let AuditFilter {
            seq,
            action_prefix,
            result,
            user,
            actor,
            target_type,
            target_id,
            command,
            force,
            global_throttle,
            since,
            until,
        } = &self.filter;
        let members = json!({
            "seq": seq, "action_prefix": action_prefix, "outcome": result, "user": user, "actor": actor,
            "target_type": target_type, "target_id": target_id, "command": command, "force": force,
            "global_throttle": global_throttle, "since": since, "until": until,
        });
        members.to_string().into_bytes()
    }
}
