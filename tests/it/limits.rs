//! Bodies, prompts and uploads over their limits.

use serde_json::json;

use crate::harness::{AdapterDirectory, App};

#[tokio::test]
async fn a_body_of_100_megabytes_is_refused() {
    let app = App::start().await;
    let mut body = b"{\"prompt\": \"".to_vec();
    body.resize(100 << 20, b'a');
    body.extend_from_slice(b"\"}");
    let reply = app.client.post_bytes("/v1/completions", body).await;
    reply.expect_error(413, "body_too_large", &["bytes"]);
    assert_eq!(app.client.get("/health").await.status, 200);
}

#[tokio::test]
async fn an_upload_of_100_megabytes_is_refused_and_not_kept() {
    let app = App::start().await;
    let files =
        AdapterDirectory::random(&app.base, 1).edit_bytes(|bytes| bytes.resize(100 << 20, 7));
    let reply = app.client.upload("x", &files).await;
    assert_eq!(reply.status, 413, "{}", reply.body);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("bytes"),
        "{}",
        reply.body
    );
    assert!(app.client.adapter_names().await.is_empty());
    assert_eq!(app.stored_weights(), 0);
}

#[tokio::test]
async fn a_prompt_of_10_000_tokens_does_not_fit_and_says_what_would() {
    let app = App::start().await;
    let prompt = " positive".repeat(10_000);
    assert!(app.client.tokenize(&prompt).await.len() >= 10_000);
    let reply = app
        .client
        .completions(&json!({"prompt": prompt, "max_tokens": 1}))
        .await;
    assert_eq!(reply.status, 413, "{}", reply.body);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("4096"),
        "{}",
        reply.body
    );
    let messages = [json!({"role": "user", "content": prompt})];
    assert_eq!(
        app.client.chat(&json!({"messages": messages})).await.status,
        413
    );
    let pairs = [json!({"context": prompt, "continuation": "a"})];
    assert_eq!(app.client.score(&json!({"pairs": pairs})).await.status, 413);
    assert_eq!(
        app.client
            .classify(&json!({"task": "sentiment", "inputs": [prompt]}))
            .await
            .status,
        413
    );
    app.client.greedy("tiny", "still there").await;
}

#[tokio::test]
async fn answers_end_where_the_context_ends() {
    let app = App::start().await;
    let ids = vec![7_u64; 4090];
    let body = json!({"prompt": ids, "max_tokens": 6, "temperature": 0, "ignore_eos": true});
    let reply = app.client.completions(&body).await.expect(200);
    assert_eq!(reply["usage"]["completion_tokens"], 6);
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
}
