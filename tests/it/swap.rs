//! Versions exchanged while requests run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, Client, Options, Reply, Stream};

const CLIENTS: usize = 8;
/// More than enough for every client to meet both versions; a client that has not by then fails the test.
const MOST_STREAMS: usize = 200;

fn request(prompt: &str, model: &str) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": true})
}

fn prompt(client: usize) -> String {
    format!("Client {client} asks about the weather")
}

/// Streams until both versions have answered; every answer must be whole and be that of the version it names.
async fn stream_until_both(
    client: Client,
    number: usize,
    versions: [String; 2],
    expected: [String; 2],
) {
    let mut seen = BTreeSet::new();
    for _ in 0..MOST_STREAMS {
        let stream = client
            .stream_completions(&request(&prompt(number), "x"))
            .await;
        assert!(stream.done, "client {number}: the stream broke off");
        let version = stream.chunks[0]["adapter"]["version"].as_str().unwrap();
        for chunk in &stream.chunks {
            let named = &chunk["adapter"]["version"];
            assert!(
                named.is_null() || named == version,
                "client {number}: one answer names two versions"
            );
        }
        let index = versions.iter().position(|known| known == version).unwrap();
        assert_eq!(
            stream.text(0),
            expected[index],
            "client {number}, version {version}"
        );
        seen.insert(index);
        if seen.len() == 2 {
            return;
        }
    }
    panic!("client {number} met one version only in {MOST_STREAMS} streams");
}

#[tokio::test]
async fn eight_clients_stream_while_versions_are_exchanged() {
    let app = App::start_with(Options {
        threads: 2,
        ..Options::default()
    })
    .await;
    let files = [
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    ];
    let versions = [files[0].version(), files[1].version()];
    app.client.upload("x", &files[0]).await.expect(201);
    app.client.replace("x", &files[1]).await;

    let finished = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut expected = [String::new(), String::new()];
        for (text, version) in expected.iter_mut().zip(&versions) {
            let body = request(&prompt(number), &format!("x@{version}"));
            let reply = app.client.completions(&body).await.expect(200);
            *text = reply["choices"][0]["text"].as_str().unwrap().to_owned();
        }
        assert_ne!(
            expected[0], expected[1],
            "the two versions must be told apart by their texts"
        );
        let (client, versions, finished) =
            (app.client.clone(), versions.clone(), Arc::clone(&finished));
        clients.push(tokio::spawn(async move {
            stream_until_both(client, number, versions, expected).await;
            finished.fetch_add(1, Ordering::Relaxed);
        }));
    }
    let mut swaps = 0;
    while finished.load(Ordering::Relaxed) < CLIENTS
        && clients.iter().any(|client| !client.is_finished())
    {
        let reply = app.client.replace("x", &files[swaps % 2]).await;
        assert_eq!(reply.status / 100, 2, "{}", reply.body);
        assert_eq!(reply.json()["active_version"], versions[swaps % 2]);
        swaps += 1;
    }
    for client in join_all(clients).await {
        client.unwrap();
    }
    let adapter = app.client.adapter("x").await.expect(200);
    for version in adapter["versions"].as_array().unwrap() {
        assert_eq!(version["in_flight"], 0, "{adapter}");
    }
}

#[tokio::test]
async fn a_request_ends_on_the_version_it_began_with() {
    let app = App::start().await;
    let (old, new) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("x", &old).await.expect(201);
    let mut body = request("The weather", "x");
    body["max_tokens"] = json!(400);
    let alone = app.client.completions(&body).await.expect(200);
    body["stream"] = json!(true);
    let begun = app
        .client
        .request(Method::POST, "/v1/completions")
        .json(&body)
        .send()
        .await
        .unwrap();
    app.client.replace("x", &new).await;
    app.client.unload("x").await.expect(204);
    let stream = Stream::parse(&Reply::read(begun).await);
    assert_eq!(stream.chunks[0]["adapter"]["version"], old.version());
    assert_eq!(
        stream.text(0),
        alone["choices"][0]["text"].as_str().unwrap()
    );
    assert!(stream.done);
}
