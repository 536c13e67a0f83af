//! `/tokenize`, `/detokenize`, `/tokenizer_info`.

use serde_json::json;

use crate::harness::App;

#[tokio::test]
async fn text_survives_the_way_to_ids_and_back() {
    let app = App::start().await;
    for text in [
        "positive",
        " and the\n\n### Input:\n",
        "größer 東京 🦀",
        "2026 tokens, 10%",
        "<|im_start|>user\nhi<|im_end|>\n",
    ] {
        let reply = app
            .client
            .post("/tokenize", &json!({"prompt": text}))
            .await
            .expect(200);
        let tokens: Vec<u64> = reply["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap())
            .collect();
        assert_eq!(reply["count"], tokens.len());
        assert_eq!(reply["max_model_len"], 4096);
        let back = app.client.detokenize(&tokens).await.expect(200);
        assert_eq!(back["prompt"], text);
    }
}

#[tokio::test]
async fn digits_are_split_one_by_one_and_merges_apply() {
    let app = App::start().await;
    assert_eq!(app.client.tokenize("2026").await.len(), 4);
    assert_eq!(app.client.tokenize("positive").await.len(), 1);
    assert_eq!(app.client.tokenize("<|im_start|>").await, [1]);
}

#[tokio::test]
async fn no_text_is_no_tokens() {
    let app = App::start().await;
    assert!(app.client.tokenize("").await.is_empty());
}

#[tokio::test]
async fn the_tokenizer_tells_its_special_tokens_and_template() {
    let app = App::start().await;
    let information = app.client.get("/tokenizer_info").await.expect(200);
    assert_eq!(information["bos_token"], "<|im_start|>");
    assert_eq!(information["eos_token"], "<|im_end|>");
    assert_eq!(information["pad_token"], "<|im_end|>");
    assert!(
        information["chat_template"]
            .as_str()
            .unwrap()
            .contains("add_generation_prompt")
    );
}

#[tokio::test]
async fn ids_outside_the_vocabulary_are_refused() {
    let app = App::start().await;
    let reply = app.client.detokenize(&[7, 320]).await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("320"),
        "{}",
        reply.body
    );
}
