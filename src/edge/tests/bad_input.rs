//! Requests that are wrong in every way a body can be.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::node::{Answer, Caller, Node};

async fn world() -> (Node, Caller) {
    let node = Node::start().await;
    let root = node.user("root@example.org", true).await;
    node.project("billing").await;
    let session = node.session(&root).await;
    (node, session)
}

async fn mint(node: &Node, caller: &Caller, kind: Option<&str>, body: Vec<u8>) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri("/api/v1/projects/billing/agents");
    for (name, value) in &caller.0 {
        request = request.header(*name, value);
    }
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    node.answer(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn everything_wrong_with_a_body_is_named_at_once() {
    let (node, session) = world().await;
    let body = json!({ "user_id": "no", "surprise": 1 });
    let answer = node.post("/api/v1/projects/billing/memberships", &session, body).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    insta::assert_json_snapshot!("invalid", answer.json(), { ".request_id" => "[request]" });
}

#[tokio::test(start_paused = true)]
async fn a_vicious_body_is_refused_and_mints_nothing() {
    let (node, session) = world().await;
    let json_type = Some("application/json");
    for (body, kind) in [
        (&b"{\"name\":\"a\",\"name\":\"b\"}"[..], "duplicate_key"),
        (b"{\"name\":\"a\\u0000\"}", "string_nul"),
        (b"{\"name\":\"\xff\"}", "json_invalid"),
        (b"{\"name\":", "json_invalid"),
        (b"", "missing"),
        (b"[]", "model_type"),
        (b"null", "model_type"),
        (b"{\"name\":5}", "string_type"),
        (b"{\"name\":null}", "string_type"),
        (b"{\"name\":\"\"}", "string_too_short"),
        (b"{\"name\":\"  \"}", "string_blank"),
        (b"{}", "missing"),
        (b"{\"name\":\"a\",\"x\":1e999}", "json_invalid"),
        ("[".repeat(10_000).as_bytes(), "json_depth"),
    ] {
        let answer = mint(&node, &session, json_type, body.to_vec()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{kind}");
        assert_eq!(answer.json()["detail"][0]["type"], kind, "{}", answer.text);
        assert_eq!(answer.json()["detail"][0]["loc"][0], "body");
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("text/json")] {
        let answer = mint(&node, &session, kind, b"{\"name\":\"a\"}".to_vec()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
    let big = mint(&node, &session, json_type, vec![b' '; crate::edge::BODY_MAX + 1]).await;
    assert_eq!((big.status, big.json()["error"].clone()), (StatusCode::PAYLOAD_TOO_LARGE, json!("payload_too_large")));
    let fits = [b"{\"name\":\"a\"}".to_vec(), vec![b' '; 1000]].concat();
    let agents = node.get("/api/v1/projects/billing/agents", &session).await.json();
    assert_eq!(agents, json!([]));
    let answer = mint(&node, &session, Some("application/json; charset=utf-8"), fits).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_methods_wear_the_envelope() {
    let (node, session) = world().await;
    for path in ["/", "/api/v1/nope", "/api/v1/projects/billing/nope", "/%ff", "/api/v1/projects/%00/agents"] {
        let answer = node.get(path, &session).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.json()["error"], "not_found");
    }
    for method in [Method::PUT, Method::OPTIONS, Method::from_bytes(b"BREW").unwrap()] {
        let answer = node.send(&method, "/api/v1/projects", &session, None).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers["allow"], "GET, HEAD, POST");
        assert_eq!(answer.json()["error"], "method_not_allowed");
    }
    let id = node.send(&Method::DELETE, "/api/v1/projects/billing/agents/no-uuid", &session, None).await;
    assert_eq!(
        id.json()["detail"],
        json!([{"loc": ["path", "id"], "msg": "Input should be a valid UUID", "type": "uuid_parsing"}])
    );
}

#[tokio::test(start_paused = true)]
async fn the_document_describes_every_error() {
    let (node, _) = world().await;
    let document: Value = node.get("/api/v1/openapi.json", &Caller::nobody()).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mint = &document["paths"]["/api/v1/projects/{slug}/agents"]["post"];
    assert_eq!(
        mint["responses"]["201"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Minted"
    );
    for status in ["401", "403", "404", "409", "422"] {
        let name = format!("Error{status}");
        assert_eq!(mint["responses"][status]["$ref"], format!("#/components/responses/{name}"));
        assert!(document["components"]["responses"][name]["content"]["application/problem+json"].is_object());
    }
}
