//! Health, readiness, version, unknown routes, request ids.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::harness::{App, client};

#[tokio::test]
async fn a_started_server_is_healthy_and_ready() {
    let app = App::start().await;
    assert_eq!(app.client.get("/health").await.status, 200);
    assert_eq!(app.client.get("/ready").await.status, 200);
}

#[tokio::test]
async fn the_version_names_the_model_and_the_kernels() {
    let app = App::start().await;
    let version = app.client.get("/version").await.expect(200);
    let text = version.to_string();
    assert!(text.contains(&app.base.digest), "{version}");
    let kernels = version["kernels"].as_str().unwrap();
    match std::env::var("QUICKCHANGE_KERNELS") {
        Ok(forced) => assert_eq!(kernels, forced),
        Err(_) => assert!(
            ["portable", "avx2", "avx512vnni"].contains(&kernels),
            "{kernels}"
        ),
    }
}

#[tokio::test]
async fn an_unknown_route_is_a_404_in_the_usual_shape() {
    let app = App::start().await;
    let reply = app.client.get("/v1/nothing").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["error"]["type"], "not_found_error");
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/v1/nothing"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn a_route_called_with_the_wrong_method_does_not_answer_200() {
    let app = App::start().await;
    for (method, path) in [
        (Method::GET, "/v1/completions"),
        (Method::DELETE, "/v1/tasks"),
        (Method::PUT, "/v1/adapters"),
    ] {
        let reply = client::send(app.client.request(method.clone(), path)).await;
        assert!(
            matches!(reply.status, 404 | 405),
            "{method} {path}: {}",
            reply.status
        );
        assert!(
            reply.json()["error"]["message"].is_string(),
            "{method} {path}: {}",
            reply.body
        );
    }
}

#[tokio::test]
async fn every_reply_carries_its_own_request_id() {
    let app = App::start().await;
    let mut ids = BTreeSet::new();
    for path in ["/health", "/v1/models", "/v1/nothing"] {
        let reply = app.client.get(path).await;
        ids.insert(reply.header("x-request-id").unwrap().to_owned());
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_draining_server_is_alive_but_takes_nothing_new() {
    let app = App::start().await;
    app.drain().await;
    assert_eq!(app.client.get("/health").await.status, 200);
    let ready = app.client.get("/ready").await;
    ready.expect_error(503, "draining", &["draining"]);
    let refused = app.client.completions(&json!({"prompt": "a"})).await;
    refused.expect_error(503, "draining", &["draining"]);
    assert!(refused.header("retry-after").is_some());
}
