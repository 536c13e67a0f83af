//! An answer does not depend on what else the server is doing.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, Options, real_model};

const ADAPTERS: u64 = 8;

/// A server with eight adapters, `a0` to `a7`, of different weights.
async fn with_eight(options: Options) -> App {
    let app = App::start_with(options).await;
    for seed in 0..ADAPTERS {
        let files = AdapterDirectory::random(&app.base, 100 + seed);
        app.client
            .upload(&format!("a{seed}"), &files)
            .await
            .expect(201);
    }
    app
}

/// The requests whose answers are compared: greedy and sampled, on the base and on an adapter, short and over one step's worth of rows.
fn watched(base: &str, long: usize) -> Vec<Value> {
    let long = "The north wind and the sun. ".repeat(long);
    ["a0", base]
        .iter()
        .flat_map(|model| {
            [
                json!({"model": model, "prompt": "The weather in the north", "temperature": 0}),
                json!({"model": model, "prompt": long, "temperature": 1.0, "seed": 9}),
            ]
        })
        .map(|mut body| {
            body["max_tokens"] = json!(12);
            body["logprobs"] = json!(5);
            body["echo"] = json!(true);
            body["ignore_eos"] = json!(true);
            body
        })
        .collect()
}

/// Eight requests, each on an adapter of its own, of different lengths.
fn others(round: usize) -> Vec<Value> {
    (0..ADAPTERS as usize)
        .map(|index| {
            let prompt = format!("Request {index} of round {round}. ").repeat(1 + 3 * index);
            json!({"model": format!("a{index}"), "prompt": prompt, "max_tokens": 5 + 4 * index, "temperature": 0.8, "seed": index, "ignore_eos": true})
        })
        .collect()
}

/// Each watched request alone on one server; then together with the others on another: every float of every log-probability is the same.
async fn check(alone: Options, mixed: Options, long: usize, rounds: usize) {
    let watched = watched(alone.base.name, long);
    let alone = with_eight(alone).await;
    let mut expected = Vec::new();
    for body in &watched {
        expected.push(alone.client.completions(body).await.expect(200)["choices"].clone());
    }
    drop(alone);
    let mixed = with_eight(mixed).await;
    for round in 0..rounds {
        let bodies: Vec<Value> = others(round).into_iter().chain(watched.clone()).collect();
        let replies = join_all(bodies.iter().map(|body| mixed.client.completions(body))).await;
        for (reply, expected) in replies[ADAPTERS as usize..].iter().zip(&expected) {
            assert_eq!(reply.expect(200)["choices"], *expected, "round {round}");
        }
    }
}

#[tokio::test]
async fn alone_and_among_eight_others_the_bits_are_the_same() {
    let two_threads = Options {
        threads: 2,
        ..Options::default()
    };
    check(Options::default(), two_threads, 60, 3).await;
}

#[tokio::test]
async fn one_sequence_at_a_time_gives_the_same_bits_too() {
    let narrow = Options {
        max_running: 1,
        ..Options::default()
    };
    check(narrow, Options::default(), 60, 1).await;
}

#[tokio::test]
async fn on_the_real_model_the_bits_are_the_same() {
    let Some(base) = real_model("on_the_real_model_the_bits_are_the_same") else {
        return;
    };
    let options = || Options {
        base: base.clone(),
        threads: 2,
        ..Options::default()
    };
    check(options(), options(), 10, 1).await;
}
