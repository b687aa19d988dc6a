//! Who is calling: a browser session, or an API key.
//!
//! A valid session takes precedence over a key in the same request (REST section 1.2). The guard puts the
//! [`Caller`] and, below a project, the [`ProjectScope`] into the request; handlers only take them out.

pub mod client;
pub mod cookie;
pub mod guard;
pub mod memo;
pub mod password;
pub mod project;
pub mod scope;
pub mod throttle;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use cql::accounts::login::{self, SecretHash};
use cql::accounts::{ApiKey, Login, User, api_key, user};
use domain::id::{ApiKeyId, ProjectId, UserId, WebSessionId};
use domain::secret::API_KEY_PREFIX;

use super::app::App;
use super::error::{ApiError, ApiResult};
use crate::config::Network;
pub use client::Client;
pub use project::ProjectScope;

/// A session ends after this long without a request.
pub const IDLE_SECS: i64 = 1800;
/// A session ends after this long in any case.
pub const SESSION_SECS: i64 = 7 * 86_400;
/// "Last seen" and "last used" are rewritten at most this often.
const SEEN_EVERY_SECS: i64 = 60;

/// A user, and how we know.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: Arc<User>,
    pub via: Via,
    pub client: Client,
}

#[derive(Clone, Debug)]
pub enum Via {
    Session {
        id: WebSessionId,
        hash: SecretHash,
    },
    Key {
        id: ApiKeyId,
        project: Option<ProjectId>,
        scopes: Arc<[String]>,
        /// False when the key has a list of networks and the client is in none. The guard lets such a caller do nothing.
        from_allowed_address: bool,
    },
}

impl Caller {
    pub fn user_id(&self) -> UserId {
        self.user.id
    }

    pub fn is_admin(&self) -> bool {
        self.user.is_admin
    }

    /// The project a key is bound to, if it is.
    pub fn bound_to(&self) -> Option<ProjectId> {
        match &self.via {
            Via::Session { .. } => None,
            Via::Key { project, .. } => *project,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::Internal("the route's row admits callers that nobody identified".into()))
    }
}

/// Finds out who is calling. What the credential may be used for is the guard's to judge.
pub async fn authenticate(app: &App, parts: &Parts, needs_csrf: bool) -> ApiResult<Caller> {
    let client = Client::of(app, parts);
    if let Some(secret) = cookie::session_secret(app, &parts.headers)
        && let Some(caller) = by_session(app, &secret, &client).await?
    {
        return Ok(caller);
    }
    match bearer(parts) {
        Some(token) => by_key(app, token, client).await,
        None if needs_csrf => {
            Err(ApiError::Unauthenticated { message: "authentication required for csrf check", reason: None })
        }
        None => Err(ApiError::Unauthenticated { message: "authentication required", reason: None }),
    }
}

/// The bearer token of a request; the scheme's case does not matter.
pub fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

async fn by_session(app: &App, secret: &str, client: &Client) -> ApiResult<Option<Caller>> {
    let store = app.store.as_ref();
    let hash = cookie::secret_hash(secret);
    let Some((session, user)) = session_of(app, &hash).await? else { return Ok(None) };
    let now = app.clock.now();
    let idle = now.since(session.last_seen_at) > IDLE_SECS * 1_000_000;
    if session.expires_at <= now || idle {
        login::remove(store, &hash, &session).await?;
        return Ok(None);
    }
    let Some(user) = user.filter(|user| user.is_active) else { return Ok(None) };
    if now.since(session.last_seen_at) > SEEN_EVERY_SECS * 1_000_000 {
        let seen = Login { last_seen_at: now, ..Login::clone(&session) };
        login::put(store, &hash, &seen, now).await?;
    }
    let via = Via::Session { id: session.id, hash };
    Ok(Some(Caller { user, via, client: client.clone() }))
}

async fn session_of(app: &App, hash: &SecretHash) -> ApiResult<Option<(Arc<Login>, Option<Arc<User>>)>> {
    let (store, memo) = (app.store.as_ref(), &app.memos.sessions);
    let version = store.accounts_version();
    if let Some((session, user)) = memo.known(version, hash) {
        return Ok(Some((session, Some(user))));
    }
    let Some(session) = login::get(store, hash).await?.map(Arc::new) else { return Ok(None) };
    let user = user::get(store, session.user).await?.map(Arc::new);
    if let Some(user) = &user {
        memo.keep(version, *hash, &(Arc::clone(&session), Arc::clone(user)));
    }
    Ok(Some((session, user)))
}

async fn by_key(app: &App, token: &str, client: Client) -> ApiResult<Caller> {
    const UNKNOWN: ApiError = ApiError::Unauthenticated { message: "invalid API key", reason: None };
    if !token.starts_with(API_KEY_PREFIX) {
        return Err(UNKNOWN);
    }
    let store = app.store.as_ref();
    let hash = app.master.api_key_hash(token).bytes();
    let Some((key, user)) = key_of(app, hash).await? else { return Err(UNKNOWN) };
    let now = app.clock.now();
    if key.revoked_at.is_some() {
        return Err(ApiError::Unauthenticated { message: "the API key is revoked", reason: Some("revoked") });
    }
    if key.expires_at.is_some_and(|end| end <= now) {
        return Err(ApiError::Unauthenticated { message: "the API key is expired", reason: Some("expired") });
    }
    let Some(user) = user.filter(|user| user.is_active) else { return Err(UNKNOWN) };
    let from_allowed_address = admits(&key.allowed_cidrs, client.ip);
    if from_allowed_address && key.last_used_at.is_none_or(|last| now.since(last) > SEEN_EVERY_SECS * 1_000_000) {
        // Between reading the key and here it may have been changed or revoked: the fresh row decides.
        let _turn = app.accounts.lock().await;
        if let Some(fresh) = api_key::get(store, key.id).await?.filter(|fresh| fresh.revoked_at.is_none()) {
            let used = ApiKey { last_used_at: Some(now), last_used_ip: Some(client.ip.to_string()), ..fresh };
            api_key::put(store, &used).await?;
        }
    }
    let scopes = Arc::from(&key.scopes[..]);
    let via = Via::Key { id: key.id, project: key.project, scopes, from_allowed_address };
    Ok(Caller { user, via, client })
}

async fn key_of(app: &App, hash: [u8; 32]) -> ApiResult<Option<(Arc<ApiKey>, Option<Arc<User>>)>> {
    let (store, memo) = (app.store.as_ref(), &app.memos.keys);
    let version = store.accounts_version();
    if let Some((key, user)) = memo.known(version, &hash) {
        return Ok(Some((key, Some(user))));
    }
    let Some(key) = api_key::by_token(store, &hash).await?.map(Arc::new) else { return Ok(None) };
    let user = user::get(store, key.user).await?.map(Arc::new);
    if let Some(user) = &user {
        memo.keep(version, hash, &(Arc::clone(&key), Arc::clone(user)));
    }
    Ok(Some((key, user)))
}

/// An empty list admits every address; a text that is no network (no version of ours stores one) admits none.
fn admits(cidrs: &[String], ip: IpAddr) -> bool {
    cidrs.is_empty() || cidrs.iter().any(|cidr| cidr.parse().is_ok_and(|network: Network| network.contains(ip)))
}
