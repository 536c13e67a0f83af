//! Receipts: what an answer was made of, and the answer made again.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App};

fn sampled(model: &str) -> Value {
    json!({"model": model, "prompt": "I think that", "max_tokens": 12, "temperature": 1.0, "ignore_eos": true})
}

#[tokio::test]
async fn a_sampled_answer_is_made_again_after_a_swap_and_a_restart() {
    let app = App::with_adapters(&["tone"]).await;
    let request = sampled("tone");
    let reply = app.client.completions(&request).await;
    let text = reply.expect(200)["choices"][0]["text"].clone();
    let receipt = reply.receipt();
    for field in [
        "base",
        "template",
        "tokenizer",
        "kernels",
        "server",
        "adapter",
        "seed",
    ] {
        assert!(receipt.get(field).is_some(), "{field} is not in {receipt}");
    }
    assert_eq!(receipt["base"], app.base.digest.as_str());
    let other = AdapterDirectory::random(&app.base, 9);
    app.client.replace("tone", &other).await.expect(200);
    let app = app.restart().await;
    let again = app.client.replay(&request, &receipt).await.expect(200);
    assert_eq!(again["choices"][0]["text"], text);
    assert_eq!(again["adapter"], receipt["adapter"]);
    assert_eq!(again["model"], "tone");
    // Without the receipt's seed another text comes, or the same once in very many.
    let fresh = app.client.completions(&request).await;
    assert_ne!(fresh.receipt()["seed"], receipt["seed"]);
}

#[tokio::test]
async fn streams_chats_blends_scores_and_labels_have_receipts_too() {
    let app = App::with_adapters(&["tone", "style"]).await;
    let mut stream = sampled("tone");
    stream["stream"] = json!(true);
    let reply = app.client.completions(&stream).await;
    let text = crate::harness::Stream::parse(&reply).text(0);
    let again = app
        .client
        .replay(&stream, &reply.receipt())
        .await
        .expect(200);
    assert_eq!(again["choices"][0]["text"], text.as_str());

    let chat =
        json!({"model": "style", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8});
    let blend = json!({"adapter_weights": {"tone": 0.3, "style": -0.5}, "prompt": "I", "max_tokens": 8, "n": 2});
    let score = json!({"model": "tone", "pairs": [{"context": "a", "continuation": "b"}]});
    let classify = json!({"model": "tone", "task": "sentiment", "inputs": ["good", "bad"]});
    for (path, request) in [
        ("/v1/chat/completions", chat),
        ("/v1/completions", blend),
        ("/v1/score", score),
        ("/v1/classify", classify),
    ] {
        let reply = app.client.post(path, &request).await;
        let mut first = reply.expect(200);
        let mut again = app
            .client
            .replay(&request, &reply.receipt())
            .await
            .expect(200);
        for answer in [&mut first, &mut again] {
            for changing in ["id", "created", "usage"] {
                answer.as_object_mut().unwrap().remove(changing);
            }
        }
        assert_eq!(again, first, "{path}");
    }
}

#[tokio::test]
async fn what_is_gone_is_named() {
    let app = App::with_adapters(&["tone"]).await;
    let request = sampled("tone");
    let reply = app.client.completions(&request).await;
    let version = reply.expect(200)["adapter"]["version"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut receipt = reply.receipt();
    app.client.unload("tone").await.expect(204);
    receipt["kernels"] = json!("abacus");
    let refused = app.client.replay(&request, &receipt).await;
    refused.expect_error(
        409,
        "not_reproducible",
        &["abacus", &version, "tone", "is gone"],
    );
    assert_eq!(refused.json()["error"]["gone"].as_array().unwrap().len(), 2);
    receipt["seed"] = json!("one");
    app.client
        .replay(&request, &receipt)
        .await
        .expect_error(400, "invalid_value", &["receipt"]);
    app.client
        .post("/v1/replay", &json!({"request": request}))
        .await
        .expect_error(400, "missing_field", &["receipt"]);
    let base = app.client.completions(&sampled("tiny")).await.receipt();
    app.client.replay(&json!({}), &base).await.expect_error(
        400,
        "missing_field",
        &["messages", "prompt"],
    );
}
