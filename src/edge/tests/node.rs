//! One node under test, its callers, and answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::{Clock, Mesh};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use cql::accounts::{ApiKey, Login, Membership, Project, Role, User, api_key, login, membership, project, user};
use cql::engine::memory::Memory;
use domain::id::{ApiKeyId, MembershipId, ProjectId, UserId, WebSessionId};
use domain::ledger::Terms;
use domain::secret::{MasterSecret, Token};
use domain::time::Timestamp;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::config::{Config, Layers};
use crate::edge::app::App;
use crate::edge::auth::cookie;
use crate::edge::auth::password::Passwords;
use crate::edge::router;
use crate::store::Opened;

pub(super) const PASSWORD: &str = "Correct-Horse-7";
const START: i64 = 1_776_340_800_000_000;

pub(super) struct Node {
    pub(super) app: App,
    /// The store behind it, for who counts rows.
    pub(super) memory: Memory,
    router: Router,
    /// One hash for all: computing it is the slow part.
    password_hash: String,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The body without what differs between two equal answers.
    pub(super) fn text_without_request_id(&self) -> String {
        let id = self.headers["x-request-id"].to_str().unwrap();
        assert!(self.text.contains(id), "{}", self.text);
        self.text.replace(id, "req_")
    }

    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.headers.get_all("set-cookie").iter();
        let start = format!("{name}=");
        cookies.filter_map(|value| value.to_str().ok()).find(|value| value.starts_with(&start)).map(str::to_owned)
    }
}

/// Headers that say who is calling.
#[derive(Clone, Default)]
pub(super) struct Caller(pub(super) Vec<(&'static str, String)>);

impl Caller {
    pub(super) fn nobody() -> Self {
        Self::default()
    }

    pub(super) fn session(secret: &str) -> Self {
        Self(vec![("cookie", format!("z4j_session={secret}")), ("x-csrf-token", cookie::csrf_token(secret))])
    }

    pub(super) fn key(token: &str) -> Self {
        Self(vec![("authorization", format!("Bearer {token}"))])
    }

    pub(super) fn without(mut self, header: &str) -> Self {
        self.0.retain(|(name, _)| *name != header);
        self
    }

    pub(super) fn with(mut self, header: &'static str, value: &str) -> Self {
        self.0.push((header, value.to_owned()));
        self
    }
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(super) async fn start_with(settings: &[(&'static str, &str)]) -> Self {
        let clock = Clock::starting_at(Timestamp::from_micros(START));
        Self::start_on(Memory::new(), true, clock, settings).await
    }

    /// A node whose store others may share.
    pub(super) async fn start_shared() -> Self {
        Self::start_on(Memory::new(), false, Clock::starting_at(Timestamp::from_micros(START)), &[]).await
    }

    /// One more node on the store of another.
    pub(super) async fn beside(other: &Self) -> Self {
        Self::start_on(other.memory.clone(), false, other.app.clock.clone(), &[]).await
    }

    async fn start_on(memory: Memory, alone: bool, clock: Clock, settings: &[(&'static str, &str)]) -> Self {
        let flags: BTreeMap<_, _> = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let config = Config::resolve(&Layers::collect(flags, &|_| None).unwrap()).unwrap();
        let opened = Opened::memory(memory.clone());
        let master = MasterSecret::new("0123456789abcdef0123456789abcdef-master").unwrap();
        let mesh = Mesh::start(actors::MeshConfig {
            store: Arc::clone(&opened.store),
            clock: clock.clone(),
            node: if alone { domain::id::NodeId::NIL } else { domain::id::NodeId::mint(clock.now()) },
            alone,
            recorders: 1,
            layout: domain::id::address::Layout::Day,
            retention_secs: 86_400,
            lost_after: std::time::Duration::from_secs(900),
            terms: Terms { command_timeout_secs: 60, bulk_limit_per_minute: 10 },
            master: master.clone(),
        });
        let app = App::new(opened, config, master, mesh.await.unwrap(), None);
        let password_hash = Passwords::new().hash(PASSWORD).await.unwrap();
        Self { router: router(app.clone()), app, memory, password_hash }
    }

    pub(super) async fn user(&self, email: &str, is_admin: bool) -> User {
        let now = self.app.clock.now();
        let user = User {
            id: UserId::mint(now),
            email: email.to_owned(),
            password_hash: self.password_hash.clone(),
            first_name: None,
            last_name: None,
            display_name: Some("A Name".to_owned()),
            timezone: "UTC".to_owned(),
            is_admin,
            is_active: true,
            created_at: now,
            updated_at: now,
        };
        user::create(self.app.store.as_ref(), &user).await.unwrap();
        user
    }

    pub(super) async fn project(&self, slug: &str) -> Project {
        let now = self.app.clock.now();
        let project = Project {
            id: ProjectId::mint(now),
            slug: slug.to_owned(),
            name: slug.to_owned(),
            description: None,
            environment: None,
            timezone: "UTC".to_owned(),
            is_active: true,
            default_scheduler_owner: None,
            allowed_schedulers: None,
            created_at: now,
            updated_at: now,
        };
        project::create(self.app.store.as_ref(), &project).await.unwrap();
        project
    }

    pub(super) async fn join(&self, user: &User, project: &Project, role: Role) {
        let now = self.app.clock.now();
        let membership =
            Membership { id: MembershipId::mint(now), user: user.id, project: project.id, role, created_at: now };
        membership::put(self.app.store.as_ref(), &membership).await.unwrap();
    }

    /// A fresh session, as if the user had just logged in.
    pub(super) async fn session(&self, user: &User) -> Caller {
        let (now, secret) = (self.app.clock.now(), cookie::mint_secret());
        let session = Login {
            id: WebSessionId::mint(now),
            user: user.id,
            created_at: now,
            last_seen_at: now,
            expires_at: now.plus_secs(7 * 86_400),
            ip: "127.0.0.1".to_owned(),
            user_agent: None,
        };
        login::put(self.app.store.as_ref(), &cookie::secret_hash(&secret), &session, now).await.unwrap();
        Caller::session(&secret)
    }

    pub(super) async fn key(&self, user: &User, scopes: &[&str], project: Option<ProjectId>) -> Caller {
        self.mint_key(user, scopes, project, &[]).await
    }

    /// A key that is accepted from these networks only.
    pub(super) async fn key_from(&self, user: &User, scopes: &[&str], cidrs: &[&str]) -> Caller {
        self.mint_key(user, scopes, None, cidrs).await
    }

    async fn mint_key(&self, user: &User, scopes: &[&str], project: Option<ProjectId>, cidrs: &[&str]) -> Caller {
        let (now, token) = (self.app.clock.now(), Token::mint_api_key());
        let key = ApiKey {
            id: ApiKeyId::mint(now),
            user: user.id,
            name: "key".to_owned(),
            prefix: token.expose()[..8].to_owned(),
            token_hash: self.app.master.api_key_hash(token.expose()).bytes(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            project,
            allowed_cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
            created_at: now,
            expires_at: None,
            revoked_at: None,
            revoked_reason: None,
            last_used_at: None,
            last_used_ip: None,
        };
        api_key::put(self.app.store.as_ref(), &key).await.unwrap();
        Caller::key(token.expose())
    }

    pub(super) async fn send(&self, method: &Method, path: &str, caller: &Caller, body: Option<&Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &caller.0 {
            request = request.header(*name, value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.answer(request.body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str, caller: &Caller) -> Answer {
        self.send(&Method::GET, path, caller, None).await
    }

    pub(super) async fn post(&self, path: &str, caller: &Caller, body: Value) -> Answer {
        self.send(&Method::POST, path, caller, Some(&body)).await
    }

    /// Sends a request and checks what holds for every answer (contract D27).
    pub(super) async fn answer(&self, request: Request<Body>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        // A sheet is no text; its tests look at its first bytes only.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer { status: parts.status, headers: parts.headers, text };
        assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req_"), "{what}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{what}");
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}: {}", answer.text);
        if answer.status.is_client_error() || answer.status.is_server_error() {
            let body = answer.json();
            assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
            assert_eq!(body["request_id"], answer.headers["x-request-id"].to_str().unwrap(), "{what}");
            assert_eq!(body["status"], answer.status.as_u16(), "{what}");
            for member in ["error", "message", "details", "type", "title", "detail"] {
                assert!(!body[member].is_null(), "{what}: no {member} in {body}");
            }
        }
        answer
    }
}
