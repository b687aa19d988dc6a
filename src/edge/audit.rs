//! What account changes leave in a ledger (contract D25): the only place that writes such notes.
//!
//! Logins, users and projects that come into being belong to the system chain; everything else to its project's.

use std::net::IpAddr;

use domain::id::{ProjectId, UserId};
use serde_json::Value;
use uuid::Uuid;

use super::app::App;
use super::auth::{Caller, Client, ProjectScope};
use super::error::Denied;
use super::route::Route;

/// Which chain a note goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    System,
    Project(ProjectId),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Login {
        user: Option<UserId>,
        success: bool,
        reason: Option<&'static str>,
    },
    TokenMinted {
        token: TokenKind,
        id: Uuid,
        name: String,
    },
    TokenRevoked {
        token: TokenKind,
        id: Uuid,
        name: String,
    },
    /// A role in a project, or on the system chain the account itself. `None` is no role.
    RoleChanged {
        user: UserId,
        before: Option<&'static str>,
        after: Option<&'static str>,
    },
    ProjectChanged {
        change: ProjectChange,
        slug: String,
        members: Value,
    },
    Refused {
        action: String,
        have: String,
        need: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Agent,
    ApiKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectChange {
    Created,
    Updated,
    Archived,
}

/// Who did it, and from where.
#[derive(Clone, Debug)]
pub struct Doer {
    /// `None` for somebody who is not known (yet): a failed login, the command line.
    pub user: Option<UserId>,
    pub ip: Option<IpAddr>,
    pub user_agent: Option<String>,
}

impl From<&Caller> for Doer {
    fn from(caller: &Caller) -> Self {
        Self { user: Some(caller.user_id()), ..Self::from(&caller.client) }
    }
}

impl From<&Client> for Doer {
    fn from(client: &Client) -> Self {
        Self { user: None, ip: Some(client.ip), user_agent: client.user_agent.clone() }
    }
}

/// Notes something. The change itself is done by now, so a failure here is logged and not answered.
pub async fn note(_app: &App, chain: Chain, doer: Doer, note: Note) {
    tracing::info!(?chain, user = ?doer.user, ip = ?doer.ip, ?note, "account change");
}

/// A member asked for more than the role allows.
pub async fn refused(app: &App, scope: &ProjectScope, route: &Route, denied: &Denied) {
    let need = match denied {
        Denied::RoleTooLow { need, .. } => need.as_str(),
        Denied::NotAuditor { .. } => "auditor",
        Denied::CsrfMismatch
        | Denied::ForeignOrigin
        | Denied::NotGlobalAdmin
        | Denied::ScopeMissing { .. }
        | Denied::KeyNotAccepted
        | Denied::KeyBoundElsewhere
        | Denied::AddressNotAllowed
        | Denied::ProjectInactive => return,
    };
    let refused = Note::Refused { action: route.action(), have: scope.role.as_str().to_owned(), need: need.to_owned() };
    note(app, Chain::Project(scope.project_id), Doer::from(&scope.caller), refused).await;
}
