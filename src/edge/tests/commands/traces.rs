//! Every status a command can be refused with, and what each leaves behind: nothing, but for a member's 403, which
//! leaves its entry (contract D21, D24 to D26, M60, M128).

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{KEY, Kept, SLUG, World, verbs};
use crate::edge::tests::node::{Answer, Caller};

/// A request that is refused whatever the verb.
struct Attempt {
    why: &'static str,
    status: StatusCode,
    slug: &'static str,
    caller: Caller,
    content_type: Option<&'static str>,
    /// Instead of the verb's body.
    raw: Option<Vec<u8>>,
    /// Ledger entries it leaves.
    entries: usize,
}

impl World {
    async fn attempt(&self, verb: &str, body: &Value, attempt: &Attempt) -> Answer {
        let path = format!("/api/v1/projects/{}/commands/{verb}", attempt.slug);
        let mut request = Request::builder().method(Method::POST).uri(path);
        for (name, value) in &attempt.caller.0 {
            request = request.header(*name, value);
        }
        if let Some(kind) = attempt.content_type {
            request = request.header("content-type", kind);
        }
        let bytes = attempt.raw.clone().unwrap_or_else(|| body.to_string().into_bytes());
        self.node.answer(request.body(Body::from(bytes)).unwrap()).await
    }

    /// A good body of a verb, with a key that must stay free.
    fn keyed(&self, good: Value) -> Value {
        let mut body = good;
        body["agent_id"] = json!(self.agent);
        body["idempotency_key"] = json!(KEY);
        body
    }
}

async fn attempts(world: &World) -> Vec<Attempt> {
    let admin = || world.admin.clone();
    let stranger = world.node.user("stranger@example.org", false).await;
    let root = world.node.user("second-root@example.org", true).await;
    let other = world.node.project("other-project").await;
    let archived = world.node.project("archived").await;
    let path = format!("/api/v1/projects/{}", archived.slug);
    let gone = world.node.send(&Method::DELETE, &path, &world.admin, None).await;
    assert!(gone.status.is_success(), "{}", gone.text);
    let viewer = world.member(cql::accounts::Role::Viewer).await;
    let base = |why, status, caller| Attempt {
        why,
        status,
        caller,
        slug: SLUG,
        content_type: Some("application/json"),
        raw: None,
        entries: 0,
    };
    let members_403 = |why, caller| Attempt { entries: 1, ..base(why, StatusCode::FORBIDDEN, caller) };
    let raw = |why, status, bytes: Vec<u8>| Attempt { raw: Some(bytes), ..base(why, status, admin()) };
    let elsewhere = |why, slug| Attempt { slug, ..base(why, StatusCode::NOT_FOUND, admin()) };
    vec![
        base("nobody", StatusCode::UNAUTHORIZED, Caller::nobody()),
        base("no such session", StatusCode::UNAUTHORIZED, Caller::session("nonsense")),
        base("no such key", StatusCode::UNAUTHORIZED, Caller::key("z4j_nonsense")),
        members_403("no CSRF token", admin().without("x-csrf-token")),
        members_403("another site", admin().with("origin", "https://evil.example")),
        members_403("no scope", world.node.key(&root, &["tasks:read"], None).await),
        members_403("bound elsewhere", world.node.key(&root, &["admin:*"], Some(other.id)).await),
        members_403("from elsewhere", world.node.key_from(&root, &["admin:*"], &["192.0.2.0/24"]).await),
        members_403("a role too low", viewer),
        base("no member", StatusCode::NOT_FOUND, world.node.session(&stranger).await),
        base(
            "no member, no CSRF token",
            StatusCode::FORBIDDEN,
            world.node.session(&stranger).await.without("x-csrf-token"),
        ),
        elsewhere("no such project", "no-such-project"),
        elsewhere("archived", "archived"),
        Attempt { content_type: Some("text/plain"), ..base("no JSON", StatusCode::UNSUPPORTED_MEDIA_TYPE, admin()) },
        raw("too large", StatusCode::PAYLOAD_TOO_LARGE, vec![b' '; crate::edge::BODY_MAX + 1]),
        raw("cut off", StatusCode::UNPROCESSABLE_ENTITY, b"{\"agent_id\":".to_vec()),
        raw("no object", StatusCode::UNPROCESSABLE_ENTITY, b"[]".to_vec()),
        raw("empty", StatusCode::UNPROCESSABLE_ENTITY, Vec::new()),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_nothing_but_a_members_403() {
    let mut world = World::make().await;
    for attempt in attempts(&world).await {
        for (verb, _, good) in verbs() {
            let Kept { rows, entries } = world.kept().await;
            let body = world.keyed(good);
            let answer = world.attempt(verb, &body, &attempt).await;
            let why = attempt.why;
            assert_eq!(answer.status, attempt.status, "{verb}, {why}: {}", answer.text);
            assert_eq!(world.kept().await, Kept { rows, entries: entries + attempt.entries }, "{verb}, {why}");
        }
    }
    assert!(world.process.order().await.is_none(), "a refused request has left as a frame");
}

/// A conflict of keys and the limits are found last, when a command is as good as made.
#[tokio::test(start_paused = true)]
async fn what_is_refused_last_leaves_nothing_either() {
    let mut world = World::make().await;
    let taken = world.issue("cancel-task", json!({ "engine": "celery", "task_id": "t", "idempotency_key": KEY })).await;
    let order = world.process.order().await.unwrap();
    world.process.answer(&order, Ok(json!({}))).await;
    assert_eq!(world.detail(&world.admin, &taken).await["status"], "succeeded");
    let before = world.kept().await;
    for (verb, _, good) in verbs() {
        let body = world.keyed(good);
        let answer = world.post(&world.admin, verb, body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{verb}: {}", answer.text);
        assert_eq!(world.kept().await, before, "{verb}");
    }
    for verb in ["bulk-retry", "purge-queue"] {
        let good = super::body_of(verb);
        for _ in 0..10 {
            world.issue(verb, good.clone()).await;
            let order = world.process.order().await.unwrap();
            world.process.answer(&order, Ok(json!({}))).await;
        }
        let before = world.kept().await;
        for key in ["free", "another"] {
            let mut body = world.keyed(good.clone());
            body["idempotency_key"] = json!(key);
            let answer = world.post(&world.admin, verb, body).await;
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{verb}: {}", answer.text);
            assert_eq!(world.kept().await, before, "{verb}");
            assert!(world.key_is_free(key).await);
        }
    }
    assert!(world.process.order().await.is_none(), "a refused request has left as a frame");
}
