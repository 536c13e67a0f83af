//! The memory that adapters share: who leaves when it is full, and how they come back.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, Options};

/// A server with room for `adapters` of the usual adapters, and half a one.
async fn with_room_for(adapters: usize) -> App {
    let measuring = App::with_adapters(&["one"]).await;
    let bytes = measuring
        .client
        .metric("quickchange_adapter_memory_bytes")
        .await;
    assert!(bytes > 1_000.0);
    App::start_with(Options {
        adapter_memory_bytes: bytes as usize * adapters + bytes as usize / 2,
        ..Options::default()
    })
    .await
}

async fn resident(app: &App) -> Vec<String> {
    let list = app.client.get("/v1/adapters").await.expect(200);
    let is_resident = |card: &&Value| card["versions"][0]["resident"] == true;
    let data = list["data"].as_array().unwrap();
    data.iter()
        .filter(is_resident)
        .map(|card| card["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_longest_unused_leaves_and_comes_back_with_the_same_answers() {
    let app = with_room_for(2).await;
    let mut cold = Vec::new();
    for (seed, name) in ["one", "two", "three", "four"].iter().enumerate() {
        let files = AdapterDirectory::random(&app.base, seed as u64);
        app.client.upload(name, &files).await.expect(201);
        cold.push((*name, app.client.greedy(name, "I think that").await));
    }
    assert_eq!(resident(&app).await, ["four", "three"]);
    assert_eq!(app.client.adapter_names().await.len(), 4);
    for round in 0..3 {
        for (name, text) in &cold {
            assert_eq!(
                app.client.greedy(name, "I think that").await,
                *text,
                "{round}"
            );
            let used = app.client.metric("quickchange_adapter_memory_bytes").await;
            let budget = app
                .client
                .metric("quickchange_adapter_memory_budget_bytes")
                .await;
            assert!(used <= budget, "{used} of {budget}");
        }
    }
    // Each of twelve requests came after two others, so none found its weights; the four before did.
    assert_eq!(
        app.client
            .metric("quickchange_adapter_residency_misses_total")
            .await,
        12.0
    );
    assert_eq!(
        app.client
            .metric("quickchange_adapter_residency_load_seconds_count")
            .await,
        12.0
    );
    assert_eq!(
        app.client
            .metric("quickchange_adapter_residency_hits_total")
            .await,
        4.0
    );
    assert_eq!(
        app.client.metric("quickchange_adapters_registered").await,
        4.0
    );
    assert_eq!(
        app.client.metric("quickchange_adapters_resident").await,
        2.0
    );
    assert_eq!(
        app.client
            .metric("quickchange_adapter_residency_evictions_total")
            .await,
        14.0
    );
}

#[tokio::test]
async fn a_pinned_adapter_stays_and_a_restart_keeps_the_pin() {
    let app = with_room_for(2).await;
    for (seed, name) in ["one", "two", "three"].iter().enumerate() {
        let files = AdapterDirectory::random(&app.base, seed as u64);
        app.client.upload(name, &files).await.expect(201);
    }
    assert_eq!(resident(&app).await, ["three", "two"]);
    assert_eq!(app.client.pin("one").await.expect(200)["pinned"], true);
    for name in ["two", "three", "two", "three"] {
        app.client.greedy(name, "I think that").await;
        assert_eq!(resident(&app).await, ["one", name]);
    }
    let app = app.restart().await;
    assert!(resident(&app).await.contains(&"one".to_owned()));
    assert_eq!(app.client.adapter("one").await.expect(200)["pinned"], true);
    assert_eq!(app.client.unpin("one").await.expect(200)["pinned"], false);
    for name in ["two", "three"] {
        app.client.greedy(name, "I think that").await;
    }
    assert_eq!(resident(&app).await, ["three", "two"]);
    app.client
        .pin("four")
        .await
        .expect_error(404, "adapter_not_found", &["four"]);
}

#[tokio::test]
async fn many_requests_for_an_absent_adapter_load_it_once() {
    let app = with_room_for(1).await;
    for (seed, name) in ["one", "two"].iter().enumerate() {
        let files = AdapterDirectory::random(&app.base, seed as u64);
        app.client.upload(name, &files).await.expect(201);
    }
    let body = json!({"model": "one", "prompt": "I think that", "max_tokens": 4, "temperature": 0});
    let requests = (0..8).map(|_| app.client.completions(&body));
    let replies = futures_util::future::join_all(requests).await;
    let texts: Vec<String> = replies
        .iter()
        .map(|reply| reply.expect(200)["choices"][0]["text"].to_string())
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(
        app.client
            .metric("quickchange_adapter_residency_load_seconds_count")
            .await,
        1.0
    );
}

#[tokio::test]
async fn an_adapter_larger_than_the_memory_is_refused_and_not_kept() {
    let app = App::start_with(Options {
        adapter_memory_bytes: 1_000,
        ..Options::default()
    })
    .await;
    let files = AdapterDirectory::random(&app.base, 1);
    let reply = app.client.upload("one", &files).await;
    reply.expect_error(
        422,
        "exceeds_memory",
        &["one", "1000", "--adapter-memory-bytes"],
    );
    assert_eq!(app.stored_weights(), 0);
}

#[tokio::test]
async fn an_activation_loads_the_version_first() {
    let app = with_room_for(1).await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &first).await.expect(201);
    app.client.replace("one", &second).await.expect(200);
    let card = app
        .client
        .activate("one", &json!({"version": first.version()}))
        .await
        .expect(200);
    assert_eq!(card["versions"][0]["resident"], true, "{card}");
    assert_eq!(card["versions"][1]["resident"], false, "{card}");
}
