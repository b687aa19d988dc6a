//! Projects, memberships, users and agents.

use axum::http::{Method, StatusCode};
use cql::accounts::user;
use cql::accounts::{Role, agent_by_token};
use domain::ledger::Entry;
use serde_json::{Value, json};

use super::node::{Caller, Node, PASSWORD};

async fn audit_kinds(node: &Node, project: domain::id::ProjectId) -> Vec<&'static str> {
    let entries = cql::ledger::entries::tail(node.app.store.as_ref(), project, 1, 100).await.unwrap();
    entries.iter().map(|sealed| Entry::decode(&sealed.bytes).unwrap().kind.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_project_lives_from_creation_to_archive() {
    let node = Node::start().await;
    let root = node.user("root@example.org", true).await;
    let session = node.session(&root).await;
    let made = node.post("/api/v1/projects", &session, json!({ "slug": "billing", "name": "Billing" })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    insta::assert_json_snapshot!("project", made.json(), { ".id" => "[id]" });
    let again = node.post("/api/v1/projects", &session, json!({ "slug": "billing", "name": "x" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    for slug in ["-ab", "Ab", "a_b", "ab", "é-é", &"a".repeat(51)] {
        let refused = node.post("/api/v1/projects", &session, json!({ "slug": slug, "name": "x" })).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{slug}");
    }
    let path = "/api/v1/projects/billing";
    let patch = json!({ "description": "Money", "environment": null });
    let changed = node.send(&Method::PATCH, path, &session, Some(&patch)).await.json();
    assert_eq!((&changed["description"], &changed["environment"]), (&json!("Money"), &Value::Null));
    assert_eq!(node.send(&Method::DELETE, path, &session, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.get(path, &session).await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.get("/api/v1/projects", &session).await.json(), json!([]));
    let reused = node.post("/api/v1/projects", &session, json!({ "slug": "billing", "name": "x" })).await;
    assert_eq!(reused.status, StatusCode::CONFLICT, "a slug is not given away again");
    let id = made.json()["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(audit_kinds(&node, id).await, ["project_changed", "project_changed"]);
    assert_eq!(audit_kinds(&node, crate::edge::audit::SYSTEM).await, ["project_changed", "project_changed"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_minted_once_and_revoked_for_good() {
    let node = Node::start().await;
    let root = node.user("root@example.org", true).await;
    let project = node.project("billing").await;
    let session = node.session(&root).await;
    let path = "/api/v1/projects/billing/agents";
    let made = node.post(path, &session, json!({ "name": "worker-1" })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    insta::assert_json_snapshot!("agent_minted", made.json(), {
        ".agent.id" => "[id]", ".agent.agent_id" => "[id]", ".agent.project_id" => "[id]", ".token" => "[token]", ".hmac_secret" => "[secret]",
    });
    let (token, id) = (made.json()["token"].as_str().unwrap().to_owned(), made.json()["agent"]["id"].clone());
    let hash = node.app.master.agent_token_hash(&token).bytes();
    let credential = agent_by_token(node.app.store.as_ref(), &hash).await.unwrap().unwrap();
    assert_eq!((credential.project, credential.project_archived), (project.id, false));
    assert_eq!(json!(credential.agent), id);
    let again = node.post(path, &session, json!({ "name": "worker-1" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let listed = node.get(path, &session).await;
    assert_eq!(listed.json()[0]["state"], "unknown");
    assert!(!listed.text.contains(&token));
    let gone = format!("{path}/{}", id.as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(node.send(&Method::DELETE, &gone, &session, None).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(agent_by_token(node.app.store.as_ref(), &hash).await.unwrap(), None);
    assert_eq!(node.get(path, &session).await.json(), json!([]));
    let reused = node.post(path, &session, json!({ "name": "worker-1" })).await;
    assert_eq!(reused.status, StatusCode::CREATED, "the name is free again");
    assert_eq!(audit_kinds(&node, project.id).await, ["token_minted", "token_revoked", "token_minted"]);
}

#[tokio::test(start_paused = true)]
async fn members_come_change_and_go() {
    let node = Node::start().await;
    let (root, ann) = (node.user("root@example.org", true).await, node.user("ann@example.org", false).await);
    let project = node.project("billing").await;
    let (session, hers) = (node.session(&root).await, node.session(&ann).await);
    let path = "/api/v1/projects/billing/memberships";
    assert_eq!(node.get("/api/v1/projects/billing", &hers).await.status, StatusCode::NOT_FOUND);
    let bad = node.post(path, &session, json!({ "user_id": ann.id, "role": "king" })).await;
    assert_eq!(bad.status, StatusCode::CONFLICT);
    let made = node.post(path, &session, json!({ "user_id": ann.id, "role": "viewer" })).await;
    insta::assert_json_snapshot!("membership", made.json(), { ".id" => "[id]", ".user_id" => "[id]", ".project_id" => "[id]" });
    let again = node.post(path, &session, json!({ "user_id": ann.id, "role": "viewer" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(node.get("/api/v1/projects/billing", &hers).await.status, StatusCode::OK);
    let refused = node.post("/api/v1/projects/billing/agents", &hers, json!({ "name": "x" })).await;
    insta::assert_json_snapshot!("role_too_low", refused.json(), { ".request_id" => "[request]" });
    let one = format!("{path}/{}", made.json()["id"].as_str().unwrap());
    let raised = node.send(&Method::PATCH, &one, &session, Some(&json!({ "role": "admin" }))).await;
    assert_eq!(raised.json()["role"], "admin");
    assert_eq!(node.send(&Method::DELETE, &one, &hers, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.get("/api/v1/projects/billing", &hers).await.status, StatusCode::NOT_FOUND);
    let kinds = audit_kinds(&node, project.id).await;
    assert_eq!(kinds, ["role_changed", "refused", "role_changed", "role_changed"]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_user_is_gone_everywhere_and_the_last_administrator_stays() {
    let node = Node::start().await;
    let root = node.user("root@example.org", true).await;
    let session = node.session(&root).await;
    let body = json!({ "email": "ann@example.org", "password": "Brand-New-Horse-8" });
    let made = node.post("/api/v1/users", &session, body.clone()).await;
    insta::assert_json_snapshot!("user", made.json(), { ".id" => "[id]" });
    assert_eq!(node.post("/api/v1/users", &session, body).await.status, StatusCode::CONFLICT);
    let id: domain::id::UserId = made.json()["id"].as_str().unwrap().parse().unwrap();
    let ann = user::get(node.app.store.as_ref(), id).await.unwrap().unwrap();
    let project = node.project("billing").await;
    node.join(&ann, &project, Role::Admin).await;
    let (hers, key) = (node.session(&ann).await, node.key(&ann, &["projects:read"], None).await);
    let path = format!("/api/v1/users/{id}");
    assert_eq!(node.send(&Method::DELETE, &path, &session, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.get("/api/v1/auth/me", &hers).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(node.get("/api/v1/projects", &key).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(node.get("/api/v1/projects/billing/memberships", &session).await.json(), json!([]));
    let own = format!("/api/v1/users/{}", root.id);
    for change in [json!({ "is_admin": false }), json!({ "is_active": false })] {
        assert_eq!(node.send(&Method::PATCH, &own, &session, Some(&change)).await.status, StatusCode::CONFLICT);
    }
    assert_eq!(node.send(&Method::DELETE, &own, &session, None).await.status, StatusCode::CONFLICT);
}

#[tokio::test(start_paused = true)]
async fn a_reset_password_works_and_lifts_the_lock() {
    let node = Node::start().await;
    let (root, ann) = (node.user("root@example.org", true).await, node.user("ann@example.org", false).await);
    let log_in = async |password: &str| {
        let body = json!({ "email": "ann@example.org", "password": password });
        node.post("/api/v1/auth/login", &Caller::nobody(), body).await.status
    };
    for _ in 0..10 {
        log_in("wrong").await;
    }
    assert_eq!(log_in(PASSWORD).await, StatusCode::UNAUTHORIZED);
    let path = format!("/api/v1/users/{}/reset-password", ann.id);
    let body = json!({ "new_password": "Brand-New-Horse-8" });
    assert_eq!(node.post(&path, &node.session(&root).await, body).await.status, StatusCode::NO_CONTENT);
    assert_eq!(log_in(PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in("Brand-New-Horse-8").await, StatusCode::OK);
}
