//! API keys: what they are given, what ends them.

use std::pin::pin;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use cql::accounts::{ApiKey, api_key};
use serde_json::json;

use super::node::{Caller, Node};

#[tokio::test(start_paused = true)]
async fn a_key_is_shown_once_and_dies_when_revoked() {
    let node = Node::start().await;
    let ann = node.user("ann@example.org", false).await;
    let session = node.session(&ann).await;
    let body = json!({ "name": "ci", "scopes": ["projects:read"], "expires_in_days": 30 });
    let made = node.post("/api/v1/api-keys", &session, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    insta::assert_json_snapshot!("key_made", made.json(), { ".id" => "[id]", ".token" => "[token]", ".prefix" => "[prefix]" });
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("z4k_") && token.len() == 47, "{token}");
    assert_eq!(made.json()["prefix"], token[..8]);
    let listed = node.get("/api/v1/api-keys", &session).await;
    assert!(listed.text.contains("\"ci\"") && !listed.text.contains(&token));
    let key = Caller::key(&token);
    assert_eq!(node.get("/api/v1/projects", &key).await.status, StatusCode::OK);
    let path = format!("/api/v1/api-keys/{}", made.json()["id"].as_str().unwrap());
    let bob = node.user("bob@example.org", false).await;
    let bob = node.session(&bob).await;
    assert_eq!(node.send(&Method::DELETE, &path, &bob, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.send(&Method::DELETE, &path, &session, None).await.status, StatusCode::NO_CONTENT);
    let dead = node.get("/api/v1/projects", &key).await;
    assert_eq!((dead.status, dead.json()["details"]["reason"].clone()), (StatusCode::UNAUTHORIZED, json!("revoked")));
    assert_eq!(node.get("/api/v1/api-keys", &session).await.json(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_key_expires() {
    let node = Node::start().await;
    let ann = node.user("ann@example.org", false).await;
    let session = node.session(&ann).await;
    let body = json!({ "name": "ci", "scopes": ["projects:read"], "expires_in_days": 1 });
    let made = node.post("/api/v1/api-keys", &session, body).await.json();
    let key = Caller::key(made["token"].as_str().unwrap());
    assert_eq!(node.get("/api/v1/projects", &key).await.status, StatusCode::OK);
    tokio::time::advance(Duration::from_secs(86_400)).await;
    let dead = node.get("/api/v1/projects", &key).await;
    assert_eq!((dead.status, dead.json()["details"]["reason"].clone()), (StatusCode::UNAUTHORIZED, json!("expired")));
}

/// Holds the turn of whoever changes accounts, so that the key is used, changed, and only then is its use noted.
async fn used_while_it_changes(change: impl FnOnce(&mut ApiKey)) -> ApiKey {
    let node = Node::start().await;
    let ann = node.user("ann@example.org", false).await;
    let body = json!({ "name": "ci", "scopes": ["projects:read"] });
    let made = node.post("/api/v1/api-keys", &node.session(&ann).await, body).await.json();
    let (store, caller) = (node.app.store.as_ref(), Caller::key(made["token"].as_str().unwrap()));
    let turn = node.app.accounts.lock().await;
    let mut request = pin!(node.get("/api/v1/projects", &caller));
    // The clock moves once everything else waits.
    tokio::select! {
        answer = &mut request => panic!("answered without a note of the use: {}", answer.text),
        () = tokio::time::sleep(Duration::from_millis(1)) => {}
    }
    let mut keys = api_key::of_user(store, ann.id).await.unwrap();
    let mut key = keys.pop().unwrap();
    change(&mut key);
    api_key::put(store, &key).await.unwrap();
    drop(turn);
    assert_eq!(request.await.status, StatusCode::OK, "it was good when the request came");
    api_key::get(store, key.id).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_note_of_a_keys_use_undoes_no_change_that_came_between() {
    let narrowed = used_while_it_changes(|key| key.allowed_cidrs = vec!["10.1.0.0/16".to_owned()]).await;
    assert_eq!(narrowed.allowed_cidrs, ["10.1.0.0/16"]);
    assert!(narrowed.last_used_at.is_some() && narrowed.last_used_ip.is_some(), "the use is noted all the same");
    let revoked = used_while_it_changes(|key| key.revoked_at = Some(key.created_at)).await;
    assert!(revoked.revoked_at.is_some() && revoked.last_used_at.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_accepted_from_its_networks_only() {
    let node = Node::start_with(&[("trusted-proxies", "127.0.0.1")]).await;
    let ann = node.user("ann@example.org", false).await;
    let session = node.session(&ann).await;
    let body = json!({ "name": "ci", "scopes": ["projects:read"], "allowed_cidrs": ["10.1.0.0/16", "::1"] });
    let made = node.post("/api/v1/api-keys", &session, body).await.json();
    assert_eq!(made["allowed_cidrs"], json!(["10.1.0.0/16", "::1/128"]));
    let key = Caller::key(made["token"].as_str().unwrap());
    let inside = node.get("/api/v1/projects", &key.clone().with("x-forwarded-for", "10.1.2.3")).await;
    assert_eq!(inside.status, StatusCode::OK);
    let outside = node.get("/api/v1/projects", &key.clone().with("x-forwarded-for", "10.2.2.3")).await;
    assert_eq!(outside.json()["details"]["reason"], "ip_denied");
    let path = format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap());
    let lifted = node.send(&Method::PATCH, &path, &session, Some(&json!({ "allowed_cidrs": null }))).await;
    assert_eq!(lifted.json()["allowed_cidrs"], json!([]));
    let anywhere = node.get("/api/v1/projects", &key.with("x-forwarded-for", "10.2.2.3")).await;
    assert_eq!(anywhere.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_a_key_more_than_he_has() {
    let node = Node::start().await;
    let ann = node.user("ann@example.org", false).await;
    let root = node.user("root@example.org", true).await;
    let wanted = json!({ "name": "x", "scopes": ["users:read", "tasks:fly", "tasks:read"] });
    let refused = node.post("/api/v1/api-keys", &node.session(&ann).await, wanted.clone()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.json()["details"]["rejected_scopes"], json!(["users:read", "tasks:fly"]));
    let refused = node.post("/api/v1/api-keys", &node.session(&root).await, wanted).await;
    assert_eq!(refused.json()["details"]["rejected_scopes"], json!(["tasks:fly"]));
    let project = node.project("secret-project").await;
    let bound = json!({ "name": "x", "scopes": ["tasks:read"], "project_id": project.id });
    let refused = node.post("/api/v1/api-keys", &node.session(&ann).await, bound.clone()).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    let made = node.post("/api/v1/api-keys", &node.session(&root).await, bound).await;
    assert_eq!(made.json()["project_slug"], "secret-project");
}

#[tokio::test(start_paused = true)]
async fn a_valid_session_takes_precedence_over_a_key() {
    let node = Node::start().await;
    let ann = node.user("ann@example.org", false).await;
    let root = node.user("root@example.org", true).await;
    let both = Caller([node.session(&ann).await.0, node.key(&root, &["admin:*"], None).await.0].concat());
    assert_eq!(node.get("/api/v1/auth/me", &both).await.json()["email"], "ann@example.org");
    assert_eq!(node.get("/api/v1/users", &both).await.status, StatusCode::FORBIDDEN);
    let stale = Caller(
        [vec![("cookie", "z4j_session=stale".to_owned())], node.key(&root, &["admin:*"], None).await.0].concat(),
    );
    let body = json!({ "slug": "by-key", "name": "By key" });
    assert_eq!(node.post("/api/v1/projects", &stale, body).await.status, StatusCode::CREATED);
}
