//! Panics and the engine's death, as clients and supervisors see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Fault, FaultHook};
use serde_json::{Value, json};

use crate::harness::{App, Options, Stream};

const POISON: &str = "a snowman: ☃";

/// A server whose engine panics over every step that computes a token of [`POISON`]'s end, which is in no other text.
async fn poisoned() -> App {
    let plain = App::start().await;
    let tokens = plain.client.tokenize(POISON).await;
    let last = u32::try_from(*tokens.last().unwrap()).unwrap();
    let hook = FaultHook::new(move |fault| {
        if let Fault::Step(sequences) = fault {
            let found = sequences.iter().any(|tokens| tokens.contains(&last));
            assert!(!found, "a panic of this test");
        }
    });
    App::start_with(Options {
        fault_hook: Some(hook),
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_request_that_makes_the_engine_panic_fails_alone() {
    let app = poisoned().await;
    let bad = json!({"prompt": POISON, "max_tokens": 4});
    let good = json!({"prompt": "a word", "max_tokens": 30, "temperature": 0, "ignore_eos": true});
    let expected = app.client.completions(&good).await.expect(200);
    let (before, failed, after) = tokio::join!(
        app.client.completions(&good),
        app.client.completions(&bad),
        app.client.completions(&good),
    );
    failed.expect_error(500, "engine_panicked", &["log"]);
    assert!(failed.header("x-request-id").is_some());
    for answer in [before, after] {
        assert_eq!(answer.expect(200)["choices"], expected["choices"]);
    }
    let mut streamed = bad.clone();
    streamed["stream"] = json!(true);
    let reply = app.client.post("/v1/completions", &streamed).await;
    let stream = Stream::parse(&reply);
    assert_eq!(
        stream.chunks.last().unwrap()["error"]["code"],
        "engine_panicked"
    );
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": POISON}]}),
        ),
        (
            "/v1/classify",
            json!({"task": "sentiment", "inputs": [POISON]}),
        ),
        (
            "/v1/score",
            json!({"pairs": [{"context": POISON, "continuation": "a"}]}),
        ),
    ] {
        let reply = app.client.post(path, &body).await;
        reply.expect_error(500, "engine_panicked", &[]);
    }
    assert!(app.client.metric("quickchange_engine_panics_total").await >= 5.0);
    assert_eq!(app.client.get("/ready").await.status, 200);
    app.engine_is_idle().await;
}

#[tokio::test]
async fn an_engine_that_is_gone_ends_the_server_with_an_error() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let mut app = App::start_with(Options {
        fault_hook: Some(FaultHook::new(move |fault| {
            let turn = matches!(fault, Fault::Turn);
            assert!(
                !(turn && breaks.load(Ordering::SeqCst)),
                "a panic of this test"
            );
        })),
        ..Options::default()
    })
    .await;
    let body = json!({"prompt": "a", "max_tokens": 2});
    app.client.completions(&body).await.expect(200);
    broken.store(true, Ordering::SeqCst);
    let reply = app.client.completions(&body).await;
    reply.expect_error(500, "engine_stopped", &[]);
    let ended = app.ended_by_itself().await;
    let error = ended.expect_err("a supervisor must hear of it");
    assert!(error.to_string().contains("engine"), "{error}");
}

#[tokio::test]
async fn an_evaluation_beside_a_panic_goes_on() {
    let app = poisoned().await;
    let body =
        json!({"kind": "in_domain", "adapters": ["base"], "tasks": ["sentiment"], "limit": 3});
    let evaluation = app.client.post("/v1/evaluations", &body).await.expect(202);
    let bad = json!({"prompt": POISON, "max_tokens": 4});
    app.client
        .completions(&bad)
        .await
        .expect_error(500, "engine_panicked", &[]);
    let id = evaluation["id"].as_str().unwrap();
    let events = app
        .client
        .get(&format!("/v1/evaluations/{id}/events"))
        .await;
    assert_eq!(events.status, 200);
    let ended: Value = app
        .client
        .get(&format!("/v1/evaluations/{id}"))
        .await
        .expect(200);
    assert_eq!(ended["status"], "completed", "{ended}");
}
