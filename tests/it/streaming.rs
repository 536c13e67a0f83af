//! Streamed completions.

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{App, Options, Stream};

const PROMPT: &str = "The weather in the north";

fn body() -> Value {
    json!({"prompt": PROMPT, "max_tokens": 20, "temperature": 1.0, "seed": 4, "ignore_eos": true})
}

#[tokio::test]
async fn the_pieces_are_the_whole() {
    let app = App::start().await;
    let whole = app.client.completions(&body()).await.expect(200);
    let stream = app.client.stream_completions(&body()).await;
    assert!(stream.done);
    assert_eq!(
        stream.text(0),
        whole["choices"][0]["text"].as_str().unwrap()
    );
    assert_eq!(stream.finish_reason(0).as_deref(), Some("length"));
    assert!(
        stream
            .chunks
            .iter()
            .all(|chunk| chunk["object"] == "text_completion")
    );
    assert!(
        stream
            .chunks
            .iter()
            .all(|chunk| chunk["id"] == stream.chunks[0]["id"])
    );
    assert!(
        (20..=22).contains(&stream.chunks.len()),
        "{} chunks for 20 tokens",
        stream.chunks.len()
    );
}

#[tokio::test]
async fn usage_comes_only_when_asked_for_and_with_no_choices() {
    let app = App::start().await;
    let without = app.client.stream_completions(&body()).await;
    assert!(
        without
            .chunks
            .iter()
            .all(|chunk| chunk["usage"].is_null() && chunk["choices"] != json!([]))
    );

    let mut asked = body();
    asked["stream_options"] = json!({"include_usage": true});
    let with = app.client.stream_completions(&asked).await;
    let last = with.chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 20);
    assert_eq!(
        with.chunks
            .iter()
            .filter(|chunk| !chunk["usage"].is_null())
            .count(),
        1
    );
}

#[tokio::test]
async fn the_first_piece_names_the_adapter() {
    let app = App::with_adapters(&["one"]).await;
    let version = app.client.adapter("one").await.expect(200)["active_version"].clone();
    let mut request = body();
    request["model"] = json!("one");
    let stream = app.client.stream_completions(&request).await;
    assert_eq!(
        stream.chunks[0]["adapter"],
        json!({"name": "one", "version": version})
    );
    request["model"] = json!("tiny");
    let stream = app.client.stream_completions(&request).await;
    assert_eq!(stream.chunks[0].get("adapter"), Some(&Value::Null));
}

#[tokio::test]
async fn several_choices_stream_side_by_side() {
    let app = App::start().await;
    let mut request = body();
    request["n"] = json!(2);
    let whole = app.client.completions(&request).await.expect(200);
    let stream = app.client.stream_completions(&request).await;
    for index in 0..2 {
        assert_eq!(
            stream.text(index),
            whole["choices"][index as usize]["text"].as_str().unwrap()
        );
        assert_eq!(stream.finish_reason(index).as_deref(), Some("length"));
    }
    assert_ne!(stream.text(0), stream.text(1));
}

#[tokio::test]
async fn nothing_of_a_stop_string_leaks() {
    let app = App::start().await;
    let positive = app.client.tokenize("positive").await[0].to_string();
    let negative = app.client.tokenize(" to").await[0].to_string();
    let mut request = json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "logit_bias": {positive: 60, negative: 60}});
    let whole = app.client.completions(&request).await.expect(200);
    let text = whole["choices"][0]["text"].as_str().unwrap().to_owned();
    let stop = &text[3..12.min(text.len())];
    request["stop"] = json!(stop);
    let stream = app.client.stream_completions(&request).await;
    assert_eq!(stream.text(0), text[..text.find(stop).unwrap()]);
    assert_eq!(stream.finish_reason(0).as_deref(), Some("stop"));
}

#[tokio::test]
async fn streamed_log_probabilities_are_those_of_the_whole() {
    let app = App::start().await;
    let mut request = body();
    request["logprobs"] = json!(2);
    let whole = app.client.completions(&request).await.expect(200);
    let stream = app.client.stream_completions(&request).await;
    let streamed: Vec<Value> = stream
        .chunks
        .iter()
        .flat_map(|chunk| {
            chunk["choices"][0]["logprobs"]["token_logprobs"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .collect();
    assert_eq!(
        json!(streamed),
        whole["choices"][0]["logprobs"]["token_logprobs"]
    );
}

#[tokio::test]
async fn a_bad_request_is_an_error_and_not_a_stream() {
    let app = App::start().await;
    let reply = app
        .client
        .completions(&json!({"prompt": "a", "stream": true, "model": "nobody"}))
        .await;
    assert_eq!(reply.status, 404);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("nobody")
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_place() {
    let app = App::start_with(Options {
        max_running: 1,
        ..Options::default()
    })
    .await;
    let long = json!({"prompt": PROMPT, "max_tokens": 4000, "temperature": 0, "ignore_eos": true, "stream": true});
    let response = app
        .client
        .request(Method::POST, "/v1/completions")
        .json(&long)
        .send()
        .await
        .unwrap();
    let mut pieces = response.bytes_stream();
    pieces.next().await.unwrap().unwrap();
    drop(pieces);

    // One sequence at a time: this is answered only after the long one has made room.
    let reply = app
        .client
        .completions(&json!({"prompt": PROMPT, "max_tokens": 1, "temperature": 0}))
        .await;
    reply.expect(200);
    let generated = crate::metrics::sum(
        &app.client.metrics().await,
        "quickchange_generation_tokens_total",
    );
    assert!(
        generated < 2000.0,
        "{generated} tokens were generated for a client that had gone"
    );
}

#[tokio::test]
async fn a_full_queue_answers_429_at_once() {
    let app = App::start_with(Options {
        max_running: 1,
        max_queue: 1,
        ..Options::default()
    })
    .await;
    let long = json!({"prompt": PROMPT, "max_tokens": 2000, "temperature": 0, "ignore_eos": true, "stream": true});
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..8 {
        let response = app
            .client
            .request(Method::POST, "/v1/completions")
            .json(&long)
            .send()
            .await
            .unwrap();
        if response.status() == 429 {
            refused = Some(crate::harness::Reply::read(response).await);
            break;
        }
        held.push(response);
    }
    let refused = refused.expect("eight long requests do not fit in one place and a queue of one");
    refused.expect_error(429, "queue_full", &["1"]);
    assert!(
        refused
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u64>().is_ok())
    );
    for response in held {
        let stream = Stream::parse(&crate::harness::Reply::read(response).await);
        assert!(stream.done);
    }
}
