//! Every route x caller x own, foreign and unknown project, from the route table: a route without a row, a row
//! without a route and a handler that forgot its role all fail here.

use axum::http::{Method, StatusCode};
use cql::accounts::{Role, User};
use serde_json::json;

use super::node::{Answer, Caller, Node};
use crate::edge::document;
use crate::edge::route::{self, Access, Route};

const OWN: &str = "own-project";
const FOREIGN: &str = "foreign-project";
const UNKNOWN: &str = "no-such-project";

struct World {
    node: Node,
    global: User,
    outsider: User,
    members: Vec<(Role, User)>,
}

impl World {
    async fn make() -> Self {
        let node = Node::start().await;
        let own = node.project(OWN).await;
        node.project(FOREIGN).await;
        let global = node.user("global@example.org", true).await;
        let outsider = node.user("outsider@example.org", false).await;
        let mut members = Vec::new();
        for role in Role::ALL {
            let user = node.user(&format!("{role}@example.org"), false).await;
            node.join(&user, &own, role).await;
            members.push((role, user));
        }
        Self { node, global, outsider, members }
    }

    async fn call(&self, route: &Route, slug: &str, caller: &Caller) -> Answer {
        let parts = route.path.split('/').map(|part| match part {
            "{slug}" => slug.to_owned(),
            "{engine}" => "celery".to_owned(),
            _ if part.starts_with('{') => "019d9629-927b-71c8-bfff-ffffffffffff".to_owned(),
            _ => part.to_owned(),
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let body = (route.method != Method::GET && route.method != Method::DELETE).then(|| json!({}));
        self.node.send(&route.method, &path, caller, body.as_ref()).await
    }

    async fn as_user(&self, route: &Route, slug: &str, user: &User) -> Answer {
        let caller = self.node.session(user).await;
        self.call(route, slug, &caller).await
    }
}

/// The guard let the request through: whatever the handler said, it was not about who is asking.
fn admitted(answer: &Answer) -> bool {
    let about_project = answer.status == StatusCode::NOT_FOUND && answer.json()["message"] == "project not found";
    !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && !about_project
}

fn guarded() -> impl Iterator<Item = &'static Route> {
    route::all().filter(|route| !matches!(route.access, Access::Public | Access::Own))
}

/// Archiving the project that other rows of the table still need.
fn is_archive(route: &Route) -> bool {
    route.method == Method::DELETE && route.path == "/api/v1/projects/{slug}"
}

#[test]
fn every_documented_route_has_one_row_and_every_row_is_documented() {
    let document = serde_json::to_value(document()).unwrap();
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| key.as_str() != "parameters") {
            documented.push((method.to_uppercase(), path.clone()));
        }
    }
    let mut rows: Vec<_> = route::all().map(|row| (row.method.to_string(), row.path.to_owned())).collect();
    // The same answers outside the API, for load balancers; sockets are no OpenAPI operations.
    rows.retain(|(_, path)| !path.starts_with("/health") && !path.starts_with("/ws/"));
    documented.sort();
    rows.sort();
    assert_eq!(documented, rows);
}

/// The tests from outside ask a running server, on any store, what these rows say.
#[test]
fn the_rows_that_the_tests_from_outside_read_are_these() {
    let row = |route: &Route| {
        let access = match route.access {
            Access::Public => "public",
            Access::Own => "own",
            Access::Session => "session",
            Access::User => "user",
            Access::GlobalAdmin => "global_admin",
            Access::Member(role) => role.as_str(),
            Access::Auditor => "auditor or admin",
        };
        let row = json!([route.method.as_str(), route.path, access, route.scope(), route.csrf]);
        format!("  {row}")
    };
    let rows = format!("[\n{}\n]\n", route::all().map(row).collect::<Vec<_>>().join(",\n"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/routes.json");
    if std::env::var_os("THALAMUS_BLESS").is_some() {
        std::fs::write(&path, &rows).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == rows, "tests/harness/routes.json is out of date: THALAMUS_BLESS=1 cargo test -p thalamus rows");
}

#[test]
fn unsafe_methods_below_a_session_need_the_csrf_token() {
    for route in guarded() {
        assert_eq!(route.csrf, route.method != Method::GET, "{} {}", route.method, route.path);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_through_without_saying_who() {
    let world = World::make().await;
    for route in guarded() {
        for caller in [Caller::nobody(), Caller::session("made-up"), Caller::key("z4k_made-up"), Caller::key("x")] {
            let answer = world.call(route, OWN, &caller).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} {}", route.method, route.path);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_role_reaches_what_its_row_says_and_no_more() {
    let world = World::make().await;
    for route in guarded() {
        let what = format!("{} {}", route.method, route.path);
        for (role, user) in &world.members {
            let answer = world.as_user(route, OWN, user).await;
            let (may, need) = match route.access {
                Access::Session | Access::User | Access::Public | Access::Own => (true, "-"),
                Access::GlobalAdmin => (false, "global_admin"),
                Access::Member(need) => (*role >= need, need.as_str()),
                Access::Auditor => (matches!(role, Role::Auditor | Role::Admin), "auditor"),
            };
            assert_eq!(admitted(&answer), may, "{what} as {role}: {}", answer.text);
            if !may {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what} as {role}");
                assert_eq!(answer.json()["details"]["need"], need, "{what} as {role}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_global_administrator_reaches_everything() {
    let world = World::make().await;
    for route in guarded() {
        let slug = if is_archive(route) { UNKNOWN } else { OWN };
        let answer = world.as_user(route, slug, &world.global).await;
        let about_us = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        assert!(!about_us, "{} {}: {}", route.method, route.path, answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_project_and_an_unknown_one_answer_byte_for_byte_alike() {
    let world = World::make().await;
    let admin = &world.members.last().unwrap().1;
    for route in guarded().filter(|route| route.path.contains("{slug}")) {
        let what = format!("{} {}", route.method, route.path);
        for user in [&world.outsider, admin] {
            let foreign = world.as_user(route, FOREIGN, user).await;
            let unknown = world.as_user(route, UNKNOWN, user).await;
            let malformed = world.as_user(route, "No_Slug", user).await;
            assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{what}");
            assert_eq!(foreign.text_without_request_id(), unknown.text_without_request_id(), "{what}");
            assert_eq!(foreign.text_without_request_id(), malformed.text_without_request_id(), "{what}");
            assert_eq!(foreign.headers.len(), unknown.headers.len(), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_without_its_csrf_token_changes_nothing() {
    let world = World::make().await;
    for route in guarded().filter(|route| route.csrf) {
        let caller = world.node.session(&world.global).await;
        let other = world.node.session(&world.global).await;
        let foreign_token = other.0.iter().find(|(name, _)| *name == "x-csrf-token").unwrap().1.clone();
        for caller in [
            caller.clone().without("x-csrf-token"),
            caller.clone().without("x-csrf-token").with("x-csrf-token", ""),
            caller.clone().without("x-csrf-token").with("x-csrf-token", &foreign_token),
        ] {
            let answer = world.call(route, OWN, &caller).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{} {}", route.method, route.path);
            assert_eq!(answer.json()["details"]["reason"], "csrf_mismatch");
        }
        let elsewhere = world.call(route, OWN, &caller.clone().with("origin", "https://evil.example")).await;
        assert_eq!(elsewhere.json()["details"]["reason"], "origin_mismatch", "{} {}", route.method, route.path);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_reaches_what_its_scope_says_and_no_more() {
    let world = World::make().await;
    let every_other = |scope: &str| {
        let others = crate::edge::auth::scope::SCOPES.into_iter();
        let group = scope.split(':').next().unwrap().to_owned();
        others.filter(move |other| *other != "admin:*" && other.split(':').next() != Some(&group)).collect::<Vec<_>>()
    };
    for route in guarded() {
        let what = format!("{} {}", route.method, route.path);
        let slug = if is_archive(route) { UNKNOWN } else { OWN };
        let Some(scope) = route.scope() else {
            let key = world.node.key(&world.global, &["admin:*"], None).await;
            let answer = world.call(route, slug, &key).await;
            assert_eq!(answer.json()["details"]["reason"], "api_key_not_accepted", "{what}");
            continue;
        };
        let lacking = world.node.key(&world.global, &every_other(&scope), None).await;
        let answer = world.call(route, slug, &lacking).await;
        assert_eq!(answer.json()["details"]["reason"], "scope_missing", "{what}: {}", answer.text);
        assert_eq!(answer.json()["details"]["required_scope"], scope, "{what}");
        for scopes in [vec![scope.as_str()], vec!["admin:*"]] {
            let key = world.node.key(&world.global, &scopes, None).await;
            let answer = world.call(route, slug, &key).await;
            let about_us = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            assert!(!about_us, "{what}: {}", answer.text);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_bound_to_a_project_opens_no_other() {
    let world = World::make().await;
    let own = cql::accounts::project::by_slug(world.node.app.store.as_ref(), OWN).await.unwrap().unwrap();
    for route in guarded().filter(|route| route.path.contains("{slug}") && route.group.is_some()) {
        let what = format!("{} {}", route.method, route.path);
        let key = world.node.key(&world.global, &["admin:*"], Some(own.id)).await;
        for slug in [FOREIGN, UNKNOWN] {
            let answer = world.call(route, slug, &key).await;
            assert_eq!(answer.json()["details"]["reason"], "project_mismatch", "{what} {slug}");
        }
        if !matches!(route.access, Access::GlobalAdmin) {
            assert!(admitted(&world.call(route, OWN, &key).await), "{what}");
        }
    }
}

/// Contract D25: a member's 403 is an entry of the project, whatever it was refused for; nobody else's is.
#[tokio::test(start_paused = true)]
async fn a_members_403_leaves_exactly_one_entry_and_a_strangers_none() {
    let world = World::make().await;
    let store = world.node.app.store.clone();
    let own = cql::accounts::project::by_slug(store.as_ref(), OWN).await.unwrap().unwrap();
    let foreign = cql::accounts::project::by_slug(store.as_ref(), FOREIGN).await.unwrap().unwrap();
    let entries = async || cql::ledger::entries::tail(store.as_ref(), own.id, 1, 10_000).await.unwrap().len();
    let viewer = &world.members[0].1;
    for route in guarded().filter(|route| route.is_below_project()) {
        let mut refused = vec![
            ("nothing in scope", world.node.key(viewer, &["home:read"], None).await, true),
            ("bound elsewhere", world.node.key(viewer, &["admin:*"], Some(foreign.id)).await, true),
            ("from elsewhere", world.node.key_from(viewer, &["admin:*"], &["192.0.2.0/24"]).await, true),
            ("a stranger's key", world.node.key(&world.outsider, &["home:read"], None).await, false),
        ];
        if route.csrf {
            for (why, user, member) in [("a viewer", viewer, true), ("a stranger", &world.outsider, false)] {
                refused.push((why, world.node.session(user).await.without("x-csrf-token"), member));
                refused.push((why, world.node.session(user).await.with("origin", "https://evil.example"), member));
            }
        }
        if !matches!(route.access, Access::Member(Role::Viewer)) {
            refused.push(("a viewer", world.node.session(viewer).await, true));
        }
        for (why, caller, member) in refused {
            let before = entries().await;
            let answer = world.call(route, OWN, &caller).await;
            let what = format!("{} {}, {why}: {}", route.method, route.path, answer.text);
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
            assert_eq!(entries().await, before + usize::from(member), "{what}");
        }
    }
    let before = entries().await;
    for user in [&world.outsider, &world.global] {
        for route in guarded().filter(|route| !route.is_below_project() && route.csrf) {
            let caller = world.node.session(user).await.without("x-csrf-token");
            assert_eq!(world.call(route, OWN, &caller).await.status, StatusCode::FORBIDDEN);
        }
    }
    assert_eq!(entries().await, before, "what is refused outside projects is none of theirs");
    assert_eq!(cql::ledger::entries::tail(store.as_ref(), foreign.id, 1, 10).await.unwrap().len(), 0);
}
