//! What account changes leave in a ledger (contract D25): the only place of the edge that writes such notes.
//!
//! Logins, users and projects that come into being belong to the system chain; everything else to its project's.

use domain::command::{Actor, Source};
use domain::id::{ProjectId, UserId};
use domain::ledger::entry::{Login, ProjectChange, ProjectChanged, RefusedAction, RoleChanged, Token, TokenKind};
use domain::ledger::{Json, Kind, Proposal};
use serde_json::Value;
use uuid::Uuid;

use super::app::App;
use super::auth::{Caller, Client, ProjectScope, Via};
use super::error::{ApiResult, Denied};
use super::route::Route;

/// The chain of what belongs to no project.
pub const SYSTEM: ProjectId = ProjectId::NIL;

/// Who did it, and from where.
#[derive(Clone, Debug)]
pub struct Doer {
    pub actor: Actor,
    pub source: Source,
}

impl From<&Caller> for Doer {
    fn from(caller: &Caller) -> Self {
        let user = caller.user_id();
        let actor = match &caller.via {
            Via::Session { .. } => Actor::User(user),
            Via::Key { id, .. } => Actor::ApiKey { key: *id, user },
        };
        Self { actor, source: source(&caller.client) }
    }
}

impl Doer {
    /// Somebody at the login form, known only after a success.
    pub fn at_login(client: &Client, user: Option<UserId>) -> Self {
        Self { actor: user.map_or(Actor::Anonymous, Actor::User), source: source(client) }
    }
}

/// Where a request came from, as entries keep it.
pub fn source(client: &Client) -> Source {
    Source { ip: Some(client.ip.to_string()), user_agent: client.user_agent.clone() }
}

/// Notes something in a project's chain or the system's. The change itself is done by now, so a note that
/// cannot be written is logged and not answered.
pub async fn note(app: &App, chain: ProjectId, doer: Doer, kind: Kind) {
    let what = kind.as_str();
    let proposal = Proposal { actor: doer.actor, source: doer.source, kind };
    if let Err(error) = app.mesh.note(chain, proposal).await {
        tracing::error!(project.id = %chain, what, error = %error, "audit note not written");
    }
}

/// Notes something that must stand in the chain before it is done; a limit can refuse it. Returns the entry's seq.
pub async fn try_note(app: &App, chain: ProjectId, doer: Doer, kind: Kind) -> ApiResult<u64> {
    let proposal = Proposal { actor: doer.actor, source: doer.source, kind };
    Ok(app.mesh.note(chain, proposal).await?)
}

/// A login that failed, or with no reason succeeded.
pub fn login(user: Option<UserId>, reason: Option<&str>) -> Kind {
    Kind::Login(Login { user, success: reason.is_none(), reason: reason.map(str::to_owned) })
}

pub fn minted(token: TokenKind, id: Uuid, name: &str) -> Kind {
    Kind::TokenMinted(Token { token, id, name: name.to_owned() })
}

pub fn revoked(token: TokenKind, id: Uuid, name: &str) -> Kind {
    Kind::TokenRevoked(Token { token, id, name: name.to_owned() })
}

/// A role in a project, or on the system chain the standing of an account. `None` is no role.
pub fn role_changed(user: UserId, before: Option<&str>, after: Option<&str>) -> Kind {
    Kind::RoleChanged(RoleChanged { user, before: before.map(str::to_owned), after: after.map(str::to_owned) })
}

pub fn project_changed(change: ProjectChange, slug: &str, members: &Value) -> Kind {
    Kind::ProjectChanged(ProjectChanged { change, slug: slug.to_owned(), members: Json::from(members) })
}

/// A member's 403: what the role or the request lacked.
pub async fn refused(app: &App, scope: &ProjectScope, route: &Route, denied: &Denied) {
    let need = match denied {
        Denied::RoleTooLow { need, .. } => need.as_str(),
        Denied::NotAuditor { .. } => "auditor",
        Denied::NotGlobalAdmin { .. } => "global_admin",
        Denied::CsrfMismatch => "csrf_token",
        Denied::ForeignOrigin => "own_origin",
        Denied::ScopeMissing { required } => required,
        Denied::KeyNotAccepted => "session",
        Denied::KeyBoundElsewhere => "key_of_this_project",
        Denied::AddressNotAllowed => "allowed_address",
        Denied::ProjectInactive => "active_project",
    };
    let refused = RefusedAction { action: route.action(), have: scope.role.as_str().to_owned(), need: need.to_owned() };
    note(app, scope.project_id, Doer::from(&scope.caller), Kind::Refused(refused)).await;
}
