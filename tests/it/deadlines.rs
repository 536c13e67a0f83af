//! How long a request may take: what its header says, within what the server grants.

use std::time::{Duration, Instant};

use engine::{Fault, FaultHook};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::send;
use crate::harness::{App, Options, Reply, Stream};

const HEADER: &str = "x-request-timeout";

/// Every route that costs work, with a request that takes a while.
fn routes() -> Vec<(&'static str, Value)> {
    let long = json!({"prompt": "a", "max_tokens": 3000, "ignore_eos": true});
    let tensor = json!({"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]});
    vec![
        ("/v1/completions", long),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3000, "ignore_eos": true}),
        ),
        (
            "/v1/classify",
            json!({"task": "sentiment", "inputs": vec!["a b c"; 100]}),
        ),
        (
            "/v1/score",
            json!({"pairs": vec![json!({"context": "a b c", "continuation": "d e"}); 100]}),
        ),
        (
            "/v1/compare",
            json!({"models": ["tiny", "tiny"], "prompts": ["a"], "max_tokens": 256}),
        ),
        (
            "/generate",
            json!({"inputs": "a", "parameters": {"max_new_tokens": 2000}}),
        ),
        (
            "/completion",
            json!({"prompt": "a", "n_predict": 2000, "ignore_eos": true}),
        ),
        (
            "/v2/models/tiny/infer",
            json!({"inputs": [tensor], "parameters": {"max_tokens": 2000}}),
        ),
    ]
}

async fn within(app: &App, seconds: &str, path: &str, body: &Value) -> Reply {
    send(
        app.client
            .request(Method::POST, path)
            .header(HEADER, seconds)
            .json(body),
    )
    .await
}

#[tokio::test]
async fn a_time_that_is_over_is_a_504_on_every_route() {
    let app = App::start().await;
    for (path, body) in routes() {
        let reply = within(&app, "0.000001", path, &body).await;
        assert_eq!(reply.status, 504, "{path}: {}", reply.body);
        assert!(reply.body.contains("time"), "{path}: {}", reply.body);
        let reply = within(&app, "soon", path, &body).await;
        assert!(
            matches!(reply.status, 400 | 422),
            "{path}: {} {}",
            reply.status,
            reply.body
        );
        assert!(reply.body.contains(HEADER), "{path}: {}", reply.body);
    }
    app.engine_is_idle().await;
    app.client.greedy("tiny", "still there").await;
}

/// A server whose engine takes its time over a token.
async fn slow(max_request_seconds: u64) -> App {
    let hook = FaultHook::new(|fault| {
        if let Fault::Step(_) = fault {
            let end = Instant::now() + Duration::from_millis(20);
            while Instant::now() < end {}
        }
    });
    App::start_with(Options {
        fault_hook: Some(hook),
        draft_tokens: 0,
        max_request_seconds,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn what_is_not_complete_in_time_is_given_up() {
    let app = slow(600).await;
    let body = json!({"prompt": "a", "max_tokens": 3000, "temperature": 0, "ignore_eos": true});
    let reply = within(&app, "0.3", "/v1/completions", &body).await;
    reply.expect_error(504, "deadline_exceeded", &["time"]);
    app.engine_is_idle().await;
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let stream = Stream::parse(&within(&app, "0.3", "/v1/completions", &streamed).await);
    let (last, tokens) = stream.chunks.split_last().unwrap();
    assert_eq!(last["error"]["code"], "deadline_exceeded");
    assert!(
        (1..100).contains(&tokens.len()),
        "{} tokens in 0.3 s",
        tokens.len()
    );
    app.engine_is_idle().await;
}

#[tokio::test]
async fn the_server_grants_no_more_than_it_says() {
    let app = slow(1).await;
    let body = json!({"prompt": "a", "max_tokens": 3000, "ignore_eos": true});
    for seconds in ["3600", "1.5"] {
        let reply = within(&app, seconds, "/v1/completions", &body).await;
        reply.expect_error(504, "deadline_exceeded", &[]);
        app.engine_is_idle().await;
    }
    app.client
        .completions(&body)
        .await
        .expect_error(504, "deadline_exceeded", &[]);
}

#[tokio::test]
async fn a_request_that_could_not_be_complete_in_time_is_told_when_it_could() {
    let app = slow(600).await;
    let long = json!({"prompt": "a b c", "max_tokens": 400, "temperature": 0, "ignore_eos": true, "stream": true});
    // What tokens take is learnt.
    app.client
        .completions(&json!({"prompt": "a b c", "max_tokens": 8, "ignore_eos": true}))
        .await
        .expect(200);
    let mut crowd = Vec::new();
    for _ in 0..6 {
        let request = app
            .client
            .request(Method::POST, "/v1/completions")
            .json(&long);
        crowd.push(request.send().await.unwrap());
    }
    let hasty = json!({"prompt": "d", "max_tokens": 200});
    let refused = within(&app, "1", "/v1/completions", &hasty).await;
    refused.expect_error(429, "too_late", &["try again"]);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    // Each of the 200 steps takes 20 ms or more.
    assert!((3..=30).contains(&seconds), "{seconds}");
    // Two tokens are there in time, however many others there are.
    let short = json!({"prompt": "d", "max_tokens": 2});
    within(&app, "1", "/v1/completions", &short)
        .await
        .expect(200);
    drop(crowd);
}

#[tokio::test]
async fn more_tokens_than_may_wait_are_refused() {
    let app = App::start_with(Options {
        max_queue_tokens: 500,
        ..Options::default()
    })
    .await;
    let long = json!({"prompt": "a", "max_tokens": 3000, "ignore_eos": true, "stream": true});
    let request = app
        .client
        .request(Method::POST, "/v1/completions")
        .json(&long);
    let held = request.send().await.unwrap();
    let refused = app
        .client
        .completions(&json!({"prompt": "b", "max_tokens": 1}))
        .await;
    refused.expect_error(429, "too_much_work", &["500"]);
    assert!(refused.header("retry-after").is_some());
    drop(held);
}
