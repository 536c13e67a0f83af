//! `/v1/chat/completions`.

use serde_json::{Value, json};

use crate::harness::App;

const RENDERED: &str = "<|im_start|>user\nWhat is in the box?<|im_end|>\n<|im_start|>assistant\n";

fn body() -> Value {
    let messages = [json!({"role": "user", "content": "What is in the box?"})];
    json!({"model": "tiny", "messages": messages, "max_tokens": 10, "temperature": 0})
}

#[tokio::test]
async fn a_chat_is_a_completion_of_the_rendered_template() {
    let app = App::start().await;
    let chat = app.client.chat(&body()).await.expect(200);
    let plain = json!({"prompt": RENDERED, "max_tokens": 10, "temperature": 0});
    let completion = app.client.completions(&plain).await.expect(200);
    assert_eq!(chat["object"], "chat.completion");
    assert_eq!(chat["choices"][0]["message"]["role"], "assistant");
    assert_eq!(
        chat["choices"][0]["message"]["content"],
        completion["choices"][0]["text"]
    );
    assert_eq!(
        chat["choices"][0]["finish_reason"],
        completion["choices"][0]["finish_reason"]
    );
    assert_eq!(
        chat["usage"]["prompt_tokens"],
        completion["usage"]["prompt_tokens"]
    );
    assert_eq!(chat["adapter"], Value::Null);
}

#[tokio::test]
async fn content_may_come_in_parts() {
    let app = App::start().await;
    let whole = app.client.chat(&body()).await.expect(200);
    let mut parts = body();
    parts["messages"][0]["content"] =
        json!([{"type": "text", "text": "What is in "}, {"type": "text", "text": "the box?"}]);
    assert_eq!(
        app.client.chat(&parts).await.expect(200)["choices"],
        whole["choices"]
    );
}

#[tokio::test]
async fn both_names_of_the_token_limit_work() {
    let app = App::start().await;
    let mut request = body();
    request.as_object_mut().unwrap().remove("max_tokens");
    request["max_completion_tokens"] = json!(10);
    assert_eq!(
        app.client.chat(&request).await.expect(200)["choices"],
        app.client.chat(&body()).await.expect(200)["choices"]
    );
}

#[tokio::test]
async fn log_probabilities_come_per_token_with_alternatives() {
    let app = App::start().await;
    let mut request = body();
    request["logprobs"] = json!(true);
    request["top_logprobs"] = json!(3);
    let reply = app.client.chat(&request).await.expect(200);
    let content = reply["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert!(!content.is_empty());
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(
            top[0]["token"], token["token"],
            "greedy takes the likeliest"
        );
        assert_eq!(top[0]["logprob"], token["logprob"]);
        assert!(token["bytes"].is_array());
    }
}

#[tokio::test]
async fn a_streamed_chat_opens_with_the_role_and_adds_up() {
    let app = App::start().await;
    let whole = app.client.chat(&body()).await.expect(200);
    let stream = app.client.stream_chat(&body()).await;
    assert!(stream.done);
    assert_eq!(stream.chunks[0]["object"], "chat.completion.chunk");
    assert_eq!(stream.chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(
        stream.content(0),
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    assert_eq!(
        stream.finish_reason(0).as_deref(),
        whole["choices"][0]["finish_reason"].as_str()
    );
}

#[tokio::test]
async fn an_adapter_answers_a_chat_under_its_version() {
    let app = App::with_adapters(&["one"]).await;
    let mut request = body();
    request["model"] = json!("one");
    let reply = app.client.chat(&request).await.expect(200);
    let version = app.client.adapter("one").await.expect(200)["active_version"].clone();
    assert_eq!(reply["adapter"], json!({"name": "one", "version": version}));
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused() {
    let app = App::start().await;
    let changes = [
        ("messages", json!([])),
        ("messages", json!("hello")),
        ("messages", json!([{"role": "user"}])),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "f"}}]),
        ),
        ("response_format", json!({"type": "json_object"})),
        ("top_logprobs", json!(3)),
        ("temperature", json!("hot")),
    ];
    for (field, value) in changes {
        let mut request = body();
        request[field] = value.clone();
        let reply = app.client.chat(&request).await;
        assert_eq!(reply.status, 400, "{field} = {value}: {}", reply.body);
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        let named = field.split('_').next_back().unwrap();
        assert!(
            message.contains(named) || message.contains("content"),
            "{field}: {message}"
        );
    }
}
