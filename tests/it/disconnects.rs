//! Clients that hang up before their answer: on every route that costs work, the work ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Fault, FaultHook};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::harness::{App, Options};

/// Every route that costs work, with a request that takes steps for as long as it is wanted.
fn routes() -> Vec<(&'static str, Value)> {
    let tensor = json!({"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]});
    let completion = json!({"prompt": "a", "max_tokens": 3000, "ignore_eos": true});
    let with = |name: &str, value: Value| {
        let mut body = completion.clone();
        body[name] = value;
        body
    };
    vec![
        ("/v1/completions", completion.clone()),
        ("/v1/completions", with("stream", json!(true))),
        ("/v1/completions", with("n", json!(4))),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3000, "ignore_eos": true}),
        ),
        (
            "/v1/classify",
            json!({"task": "sentiment", "inputs": vec!["a b c"; 200]}),
        ),
        (
            "/v1/score",
            json!({"pairs": vec![json!({"context": "a b c", "continuation": "d e"}); 200]}),
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
            "/generate_stream",
            json!({"inputs": "a", "parameters": {"max_new_tokens": 2000}}),
        ),
        (
            "/generate",
            json!({"text": "a", "sampling_params": {"max_new_tokens": 2000, "ignore_eos": true}}),
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

#[tokio::test]
async fn work_ends_with_the_client_on_every_route() {
    // Each step waits for a permit until the client has gone; the request is then still far from its end.
    let permits = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&permits);
    let (stepped, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let app = App::start_with(Options {
        fault_hook: Some(FaultHook::new(move |fault| {
            if let Fault::Step(_) = fault {
                let _ = stepped.send(());
                // A permit too many only lets a step pass at once.
                let start = Instant::now();
                while held.available_permits() == 0 && start.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
            }
        })),
        draft_tokens: 0,
        ..Options::default()
    })
    .await;
    for (path, body) in routes() {
        let mut connection = TcpStream::connect(app.client.address().trim_start_matches("http://"))
            .await
            .unwrap();
        while steps.try_recv().is_ok() {}
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        steps.recv().await.unwrap();
        drop(connection);
        // The server hears of it, and then the engine is let on.
        app.nobody_is_served().await;
        permits.add_permits(1);
        app.engine_is_idle().await;
        let mut taken = 0;
        while steps.try_recv().is_ok() {
            taken += 1;
        }
        assert!(taken < 20, "{path}: {taken} steps for nobody");
        permits.forget_permits(1);
    }
}
