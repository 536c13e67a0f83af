//! Keys and their scopes.

use serde_json::json;

use crate::harness::{App, Options};

async fn guarded() -> App {
    let options = Options {
        api_key: vec!["for-inference".to_owned()],
        admin_key: vec!["for-everything".to_owned()],
        ..Options::default()
    };
    App::start_with(options).await
}

#[tokio::test]
async fn without_a_key_only_health_is_answered() {
    let app = guarded().await;
    assert_eq!(app.client.get("/health").await.status, 200);
    assert_eq!(app.client.get("/ready").await.status, 200);
    for path in ["/v1/models", "/v1/adapters", "/v1/evaluations"] {
        assert_eq!(app.client.get(path).await.status, 401, "{path}");
    }
    let reply = app
        .client
        .completions(&json!({"prompt": "a", "max_tokens": 1}))
        .await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.json()["error"]["type"], "authentication_error");
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let app = guarded().await;
    let reply = app.client.with_key("for-nothing").get("/v1/models").await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn a_key_opens_the_routes_of_its_scope_and_no_others() {
    let app = guarded().await;
    let inference = app.client.with_key("for-inference");
    let body = json!({"prompt": "a", "max_tokens": 1});
    assert_eq!(inference.completions(&body).await.status, 200);
    let refused = inference.load_path("x", "x").await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert_eq!(refused.json()["error"]["type"], "authentication_error");

    let admin = app.client.with_key("for-everything");
    assert_eq!(admin.completions(&body).await.status, 200);
    app.place("x", 3);
    assert_eq!(admin.load_path("x", "x").await.status, 201);
}

#[tokio::test]
async fn metrics_need_a_key_where_keys_are_and_an_admin_key_will_do() {
    let app = guarded().await;
    app.client.get("/metrics").await.expect_error(
        401,
        "invalid_api_key",
        &["Authorization: Bearer"],
    );
    let inference = app.client.with_key("for-inference");
    let words = ["has the scope `inference`", "needs the scope `metrics`"];
    let refused = inference.get("/metrics").await;
    refused.expect_error(403, "insufficient_scope", &words);
    let admin = app.client.with_key("for-everything");
    assert!(admin.metrics().await.contains("quickchange_requests_total"));
    assert_eq!(App::start().await.client.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn other_interfaces_ask_for_the_same_keys_in_their_own_words() {
    let app = guarded().await;
    let inference = app.client.with_key("for-inference");
    let load = json!({"lora_name": "x", "lora_path": "x"});
    for (path, body) in [
        ("/load_lora_adapter", load.clone()),
        ("/unload_lora_adapter", load),
        ("/lora-adapters", json!([])),
        ("/v2/repository/models/x/load", json!({})),
        ("/v2/repository/models/x/unload", json!({})),
    ] {
        let refused = inference.post(path, &body).await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.body);
    }
    let tensor = json!({"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]});
    for (path, body, error) in [
        ("/", json!({"inputs": "a"}), "/error_type"),
        ("/generate", json!({"inputs": "a"}), "/error_type"),
        ("/generate", json!({"text": "a"}), "/error"),
        ("/generate_stream", json!({"inputs": "a"}), "/error_type"),
        (
            "/completion",
            json!({"prompt": "a", "n_predict": 1}),
            "/error/code",
        ),
        (
            "/completions",
            json!({"prompt": "a", "n_predict": 1}),
            "/error/code",
        ),
        (
            "/v2/models/tiny/infer",
            json!({ "inputs": [tensor] }),
            "/error",
        ),
        ("/v2/repository/index", json!({}), "/error"),
    ] {
        let refused = app.client.post(path, &body).await;
        assert_eq!(refused.status, 401, "{path}: {}", refused.body);
        assert!(
            refused.json().pointer(error).is_some(),
            "{path}: {}",
            refused.body
        );
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{path}");
        assert_eq!(inference.post(path, &body).await.status, 200, "{path}");
    }
    assert_eq!(app.client.get("/lora-adapters").await.status, 401);
    assert_eq!(inference.get("/lora-adapters").await.status, 200);
    assert_eq!(app.client.get("/v2/models/tiny").await.status, 401);
    for path in ["/info", "/v2", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(app.client.get(path).await.status, 200, "{path}");
    }
}
