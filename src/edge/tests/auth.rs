//! Logging in, staying in, being kept out.

use std::time::Duration;

use axum::http::StatusCode;
use cql::accounts::user::{self, Failures};
use serde_json::{Value, json};
use tokio::time::{Instant, advance};

use super::node::{Caller, Node, PASSWORD};

async fn log_in(node: &Node, email: &str, password: &str) -> super::node::Answer {
    node.post("/api/v1/auth/login", &Caller::nobody(), json!({ "email": email, "password": password })).await
}

fn secret_of(answer: &super::node::Answer) -> String {
    let cookie = answer.cookie("z4j_session").unwrap();
    cookie.split(['=', ';']).nth(1).unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_login_sets_both_cookies_and_opens_the_account() {
    let node = Node::start().await;
    node.user("Ann@Example.org", false).await;
    let answer = log_in(&node, "ann@example.ORG", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    insta::assert_json_snapshot!("logged_in", answer.json(), { ".user.id" => "[id]" });
    let session = answer.cookie("z4j_session").unwrap();
    assert!(session.ends_with("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax"), "{session}");
    let csrf = answer.cookie("z4j_csrf").unwrap();
    assert!(csrf.ends_with("; Path=/; Max-Age=604800; SameSite=Strict"), "{csrf}");
    let me = node.get("/api/v1/auth/me", &Caller::session(&secret_of(&answer))).await;
    insta::assert_json_snapshot!("me", me.json(), { ".id" => "[id]" });
    assert_eq!(me.headers["cache-control"], "no-store");
}

#[tokio::test(start_paused = true)]
async fn over_https_the_cookies_are_bound_to_the_host() {
    let node = Node::start_with(&[("public-url", "https://thalamus.example.org")]).await;
    node.user("ann@example.org", false).await;
    let answer = log_in(&node, "ann@example.org", PASSWORD).await;
    for name in ["__Host-z4j_session", "__Host-z4j_csrf"] {
        assert!(answer.cookie(name).unwrap().ends_with("; Secure"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_failure_looks_alike_costs_one_hash_and_takes_the_same_time() {
    let node = Node::start().await;
    let store = node.app.store.as_ref();
    let mut gone = node.user("gone@example.org", false).await;
    gone.is_active = false;
    user::put(store, &gone).await.unwrap();
    let (_, locked) = (node.user("ann@example.org", false).await, node.user("locked@example.org", false).await);
    let now = node.app.clock.now();
    let failures = Failures { count: 10, last_at: now, locked_until: Some(now.plus_secs(900)) };
    user::put_failures(store, locked.id, failures).await.unwrap();
    let (mut bodies, mut times) = (Vec::new(), Vec::new());
    for (email, password) in [
        ("ann@example.org", "wrong"),
        ("nobody@example.org", PASSWORD),
        ("nobody@example.org", "wrong"),
        ("gone@example.org", PASSWORD),
        ("gone@example.org", "wrong"),
        ("locked@example.org", PASSWORD),
        ("locked@example.org", "wrong"),
    ] {
        let (begun, computed) = (Instant::now(), node.app.passwords.computed());
        let answer = log_in(&node, email, password).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        // What a guess costs us is what its time could tell: it is the hash, which must not depend on who is named.
        assert_eq!(node.app.passwords.computed() - computed, 1, "{email} {password}");
        times.push(begun.elapsed().as_millis());
        assert!(answer.cookie("z4j_session").is_none());
        bodies.push(answer.text_without_request_id());
    }
    // The clock stands still but for what is slept, so these are exact; timers tick in milliseconds.
    assert!(times.iter().all(|time| (300..=301).contains(time)), "{times:?}");
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let computed = node.app.passwords.computed();
    assert_eq!(log_in(&node, "ann@example.org", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(node.app.passwords.computed() - computed, 1, "and so it costs to get in");
    let body: Value = serde_json::from_str(&bodies[0]).unwrap();
    insta::assert_json_snapshot!("login_refused", body);
}

#[tokio::test(start_paused = true)]
async fn ten_failures_lock_the_account_for_a_quarter_of_an_hour() {
    let node = Node::start().await;
    node.user("ann@example.org", false).await;
    for _ in 0..10 {
        assert_eq!(log_in(&node, "ann@example.org", "wrong").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(log_in(&node, "ann@example.org", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    advance(Duration::from_secs(899)).await;
    assert_eq!(log_in(&node, "ann@example.org", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    advance(Duration::from_secs(2)).await;
    assert_eq!(log_in(&node, "ann@example.org", PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_twenty_first_attempt_in_a_minute_is_told_to_wait() {
    let node = Node::start_with(&[("login-limit-per-minute", "3")]).await;
    for _ in 0..3 {
        assert_eq!(log_in(&node, "a@b", "x").await.status, StatusCode::UNAUTHORIZED);
    }
    let answer = log_in(&node, "a@b", "x").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(answer.headers["ratelimit-policy"], "3;w=60");
    advance(Duration::from_secs(wait)).await;
    assert_eq!(log_in(&node, "a@b", "x").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_idle_and_after_a_week() {
    let node = Node::start().await;
    let user = node.user("ann@example.org", false).await;
    let caller = node.session(&user).await;
    for _ in 0..4 {
        advance(Duration::from_secs(1700)).await;
        assert_eq!(node.get("/api/v1/auth/me", &caller).await.status, StatusCode::OK);
    }
    advance(Duration::from_secs(1801)).await;
    assert_eq!(node.get("/api/v1/auth/me", &caller).await.status, StatusCode::UNAUTHORIZED);
    let caller = node.session(&user).await;
    for _ in 0..360 {
        advance(Duration::from_secs(1700)).await;
        node.get("/api/v1/auth/me", &caller).await;
    }
    assert_eq!(node.get("/api/v1/auth/me", &caller).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn logging_out_ends_the_session_on_the_server() {
    let node = Node::start().await;
    let user = node.user("ann@example.org", false).await;
    let caller = node.session(&user).await;
    let answer = node.post("/api/v1/auth/logout", &caller, json!({})).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.cookie("z4j_session").unwrap().contains("Max-Age=0"));
    assert_eq!(node.get("/api/v1/auth/me", &caller).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn a_new_password_ends_the_other_sessions() {
    let node = Node::start().await;
    let user = node.user("ann@example.org", false).await;
    let (here, there) = (node.session(&user).await, node.session(&user).await);
    let change = |current: &str, new: &str| json!({ "current_password": current, "new_password": new });
    let path = "/api/v1/auth/change-password";
    let wrong = node.post(path, &here, change("wrong", "Brand-New-Horse-8")).await;
    assert_eq!(wrong.json()["detail"][0]["loc"], json!(["body", "current_password"]));
    let weak = node.post(path, &here, change(PASSWORD, "short")).await;
    assert_eq!(weak.json()["detail"][0]["type"], "password_policy");
    assert_eq!(node.post(path, &here, change(PASSWORD, "Brand-New-Horse-8")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.get("/api/v1/auth/me", &here).await.status, StatusCode::OK);
    assert_eq!(node.get("/api/v1/auth/me", &there).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in(&node, "ann@example.org", "Brand-New-Horse-8").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_and_revoked_one_by_one_or_all_others() {
    let node = Node::start().await;
    let user = node.user("ann@example.org", false).await;
    let stranger = node.user("bob@example.org", false).await;
    let (here, there) = (node.session(&user).await, node.session(&user).await);
    advance(Duration::from_millis(5)).await;
    let third = node.session(&user).await;
    let listed = node.get("/api/v1/auth/sessions", &here).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed.as_array().unwrap().iter().filter(|session| session["is_current"] == true).count(), 1);
    let newest = format!("/api/v1/auth/sessions/{}/revoke", listed[0]["id"].as_str().unwrap());
    let bob = node.session(&stranger).await;
    assert_eq!(node.post(&newest, &bob, json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.post(&newest, &here, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.get("/api/v1/auth/me", &third).await.status, StatusCode::UNAUTHORIZED);
    let others = node.post("/api/v1/auth/sessions/revoke-others", &here, json!({})).await;
    assert_eq!(others.status, StatusCode::NO_CONTENT);
    assert_eq!(node.get("/api/v1/auth/me", &there).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(node.get("/api/v1/auth/me", &here).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn metrics_need_their_token_unless_bound_to_loopback() {
    let open = Node::start().await;
    assert_eq!(open.get("/metrics", &Caller::nobody()).await.status, StatusCode::OK);
    let token = "a-metrics-token-of-some-length";
    let closed = Node::start_with(&[("metrics-token", token)]).await;
    assert_eq!(closed.get("/metrics", &Caller::nobody()).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(closed.get("/metrics", &Caller::key("another")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(closed.get("/metrics", &Caller::key(token)).await.status, StatusCode::OK);
    let public = Node::start_with(&[("listen", "0.0.0.0:7700"), ("allow-plain-http", "true")]).await;
    assert_eq!(public.get("/metrics", &Caller::nobody()).await.status, StatusCode::UNAUTHORIZED);
}
