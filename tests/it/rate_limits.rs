//! What a key may use at most: requests at a time, requests and tokens a minute.

use std::num::NonZeroU32;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use server::access::{KeyLimits, Scope};

use crate::harness::client::send;
use crate::harness::{App, Client, Keys, Made, Options, Reply};

/// Requests after which something that happens in the background has happened, or never will.
const MOST_ATTEMPTS: usize = 20_000;

/// A server with one limited key and one that is not.
struct Limited {
    keys: Keys,
    app: App,
    made: Made,
    client: Client,
    admin: Client,
}

impl Limited {
    async fn start(limits: KeyLimits) -> Self {
        let keys = Keys::new();
        let made = keys.add_limited(Scope::Inference, limits);
        let admin = keys.add(Scope::Admin);
        let app = App::start_with(Options {
            keys: Some(keys.path()),
            ..Options::default()
        })
        .await;
        Self {
            client: app.client.with_key(&made.key),
            admin: app.client.with_key(&admin.key),
            keys,
            app,
            made,
        }
    }

    /// How often a limit refused the key.
    async fn refused(&self, limit: &str) -> f64 {
        let metrics = self.admin.metrics().await;
        let series = format!(
            "quickchange_rate_limited_total{{key=\"{}\",limit=\"{limit}\"}} ",
            self.made.id
        );
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series)?.parse().ok());
        value.unwrap_or_default()
    }
}

fn at_once(most: u32) -> KeyLimits {
    KeyLimits {
        max_concurrent: NonZeroU32::new(most),
        ..KeyLimits::default()
    }
}

fn requests(most: u32) -> KeyLimits {
    KeyLimits {
        requests_per_minute: NonZeroU32::new(most),
        ..KeyLimits::default()
    }
}

fn tokens(most: u32) -> KeyLimits {
    KeyLimits {
        tokens_per_minute: NonZeroU32::new(most),
        ..KeyLimits::default()
    }
}

fn short() -> Value {
    json!({"prompt": "a", "max_tokens": 1})
}

/// A stream that does not end while nobody reads it: it is longer than what lies between server and client takes in.
async fn unread_stream(client: &Client) -> Response {
    let body = json!({"prompt": "a", "max_tokens": 4000, "n": 2, "logprobs": 20, "stream": true, "ignore_eos": true});
    let request = client.request(Method::POST, "/v1/completions").json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

/// The first answer that is no 429.
async fn when_let_in(client: &Client) -> Reply {
    for _ in 0..MOST_ATTEMPTS {
        let reply = client.completions(&short()).await;
        if reply.status != 429 {
            return reply;
        }
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn one_request_more_than_may_be_under_way_is_refused_and_the_place_comes_back_however_it_ends()
 {
    let limited = Limited::start(at_once(2)).await;
    let client = &limited.client;
    let streams = [unread_stream(client).await, unread_stream(client).await];
    let refused = client.completions(&short()).await;
    let words = ["2 requests under way at a time", "max_concurrent"];
    refused.expect_error(429, "rate_limited", &words);
    assert_eq!(refused.header("retry-after"), Some("1"));
    // What runs no model has no limit, and another key has its own.
    assert_eq!(client.get("/v1/models").await.status, 200);
    assert_eq!(limited.admin.completions(&short()).await.status, 200);
    // The client is gone.
    drop(streams);
    when_let_in(client).await.expect(200);
    // The answer is whole, whole as a stream, refused, and not understood.
    for _ in 0..4 {
        client.completions(&short()).await.expect(200);
        assert!(client.stream_completions(&short()).await.done);
        let unknown = json!({"model": "nobody", "prompt": "a"});
        client.completions(&unknown).await.expect(404);
        client.completions(&json!({"prompt": ""})).await.expect(400);
        client
            .completions(&json!({"prompt": 3.5}))
            .await
            .expect(400);
    }
    assert!(limited.refused("max_concurrent").await >= 1.0);
}

#[tokio::test]
async fn requests_of_a_minute_are_counted_over_every_interface() {
    let limited = Limited::start(requests(6)).await;
    let client = &limited.client;
    client.completions(&short()).await.expect(200);
    let messages = [json!({"role": "user", "content": "a"})];
    let chat = json!({"messages": messages, "max_tokens": 1});
    client.chat(&chat).await.expect(200);
    let classify = json!({"task": "sentiment", "inputs": ["a"]});
    client.classify(&classify).await.expect(200);
    let pairs = [json!({"context": "a", "continuation": "b"})];
    client.score(&json!({"pairs": pairs})).await.expect(200);
    let compare = json!({"models": ["tiny", "tiny"], "prompts": ["a"], "max_tokens": 1});
    client.compare(&compare).await.expect(200);
    // One request, however many prompts and models it has.
    let batch = json!({"text": ["a", "b", "c"], "sampling_params": {"max_new_tokens": 1}});
    client.generate(&batch).await.expect(200);
    let refused = client.completions(&short()).await;
    let words = ["6 requests a minute", "requests_per_minute"];
    refused.expect_error(429, "rate_limited", &words);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    // One comes free every ten seconds.
    assert!((1..=10).contains(&wait), "{wait}");
    for (path, body, pointer) in [
        ("/", json!({"inputs": "a"}), "/error_type"),
        ("/generate", json!({"text": "a"}), "/error"),
        ("/completion", json!({"prompt": "a"}), "/error/code"),
    ] {
        let refused = client.post(path, &body).await;
        assert_eq!(refused.status, 429, "{path}: {}", refused.body);
        assert!(refused.json().pointer(pointer).is_some(), "{path}");
        assert!(refused.header("retry-after").is_some(), "{path}");
    }
    assert_eq!(client.tokenize("a").await.len(), 1);
    assert_eq!(limited.refused("requests_per_minute").await, 4.0);
}

#[tokio::test]
async fn tokens_are_those_of_the_prompts_and_the_most_that_may_be_generated() {
    let limited = Limited::start(tokens(600)).await;
    let client = &limited.client;
    let prompt = client.tokenize("The weather").await.len();
    let most = 500 - prompt;
    // Cut short by its stop, and not given back for that.
    let body = json!({"prompt": "The weather", "max_tokens": most, "stop": ["e", "a", " "], "temperature": 0});
    client.completions(&body).await.expect(200);
    let refused = client.completions(&body).await;
    let words = [
        "600 tokens a minute",
        "the 500 of this request",
        "tokens_per_minute",
    ];
    refused.expect_error(429, "rate_limited", &words);
    // 400 are missing, and ten come back each second; what came back meanwhile is off.
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=40).contains(&wait), "{wait}");
    // What is left is enough for less.
    client.completions(&short()).await.expect(200);
    assert_eq!(limited.refused("tokens_per_minute").await, 1.0);
}

#[tokio::test]
async fn choices_and_models_cost_their_tokens_each() {
    let limited = Limited::start(tokens(100)).await;
    let client = &limited.client;
    let words = ["it will never fit", "tokens_per_minute"];
    let never = async |path: &str, body: Value, needed: &str| {
        let refused = client.post(path, &body).await;
        refused.expect_error(413, "exceeds_rate_limit", &words);
        assert!(refused.body.contains(needed), "{}", refused.body);
        assert_eq!(refused.header("retry-after"), None);
    };
    let several = json!({"prompt": "a", "max_tokens": 50, "n": 2});
    never("/v1/completions", several, "101 tokens").await;
    let prompts = json!({"prompt": ["a", "a"], "max_tokens": 50});
    never("/v1/completions", prompts, "102 tokens").await;
    let models = json!({"models": ["tiny", "tiny"], "prompts": ["a"], "max_tokens": 50});
    never("/v1/compare", models, "102 tokens").await;
    let messages = [json!({"role": "user", "content": "a"})];
    // Without a number of its own, an answer may fill the context.
    never(
        "/v1/chat/completions",
        json!({ "messages": messages }),
        "4096 tokens",
    )
    .await;
    let pairs = vec![json!({"context": "a", "continuation": "b"}); 51];
    never("/v1/score", json!({ "pairs": pairs }), "102 tokens").await;
    let batch = json!({"text": ["a", "a"], "sampling_params": {"max_new_tokens": 50}});
    let refused = client.generate(&batch).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("102 tokens"), "{}", refused.body);
    // Nothing of it was charged.
    let all = json!({"prompt": "a", "max_tokens": 99});
    client.completions(&all).await.expect(200);
}

#[tokio::test]
async fn a_reload_neither_gives_back_what_was_used_nor_forgets_what_is_under_way() {
    let both = KeyLimits {
        requests_per_minute: NonZeroU32::new(2),
        ..at_once(2)
    };
    let limited = Limited::start(both).await;
    let client = &limited.client;
    let stream = unread_stream(client).await;
    limited.app.reload().await;
    client.completions(&short()).await.expect(200);
    let refused = client.completions(&short()).await;
    refused.expect_error(429, "rate_limited", &["2 requests a minute"]);
    // Another limit begins anew; the request under way still counts.
    limited.keys.edit(&limited.made, |key| {
        key.limits.requests_per_minute = NonZeroU32::new(1000);
        key.limits.max_concurrent = NonZeroU32::new(1);
    });
    limited.app.reload().await;
    let refused = client.completions(&short()).await;
    refused.expect_error(429, "rate_limited", &["1 requests under way"]);
    drop(stream);
    when_let_in(client).await.expect(200);
}

#[tokio::test]
async fn the_metrics_of_a_key_go_with_it() {
    let limited = Limited::start(requests(1)).await;
    limited.client.completions(&short()).await.expect(200);
    limited.client.completions(&short()).await.expect(429);
    assert_eq!(limited.refused("requests_per_minute").await, 1.0);
    limited.keys.revoke(&limited.made);
    limited.app.reload().await;
    let metrics = limited.admin.metrics().await;
    assert!(!metrics.contains(&limited.made.id), "{metrics}");
    let request = limited.client.request(Method::GET, "/v1/models");
    assert_eq!(send(request).await.status, 401);
}
