//! The life of an adapter: loaded, replaced, activated, rolled back, removed, and still there after a restart.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, client};

const PROMPT: &str = "The weather in the north";

fn active(adapter: &Value) -> &str {
    adapter["active_version"].as_str().unwrap()
}

#[tokio::test]
async fn an_upload_is_served_at_once_and_described() {
    let app = App::start().await;
    let files = AdapterDirectory::random(&app.base, 1);
    let created = app.client.upload("one", &files).await.expect(201);
    assert_eq!(created["id"], "one");
    assert_eq!(created["object"], "adapter");
    assert_eq!(active(&created), files.version());
    assert_eq!(created["report"]["tensors_matched"], 28);
    assert_eq!(created["report"]["tensors_unmatched"], json!([]));
    assert_eq!(created["report"]["modules"], 14);
    assert!(
        created["report"]["effect_kl"].as_f64().unwrap() > 1e-3,
        "{created}"
    );
    assert!(created["report"]["load_ms"].is_number());

    let got = app.client.adapter("one").await.expect(200);
    let version = &got["versions"][0];
    assert_eq!(version["version"], files.version());
    assert_eq!(version["active"], true);
    assert_eq!(version["resident"], true);
    assert_eq!(version["in_flight"], 0);
    assert_eq!(version["rank"], 3);
    assert_eq!(version["alpha"], 6.0);
    assert_eq!(version["method"], "external");
    assert_eq!(version["base_model"], "tiny");
    assert_eq!(version["target_modules"].as_array().unwrap().len(), 7);
    assert_eq!(version["evaluations"], json!([]));
    assert_eq!(version["bytes"], files.weights().len());
    assert_eq!(app.client.adapter_names().await, ["one"]);
    assert_ne!(
        app.client.greedy("one", PROMPT).await,
        app.client.greedy("tiny", PROMPT).await
    );
}

#[tokio::test]
async fn a_name_in_use_is_a_conflict_and_nothing_changes() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &first).await.expect(201);
    let before = app.client.adapter("one").await.expect(200);
    app.client
        .upload("one", &second)
        .await
        .expect_error(409, "adapter_already_loaded", &["one"]);
    app.place("two", 2);
    app.client
        .load_path("one", "two")
        .await
        .expect_error(409, "adapter_already_loaded", &["one"]);
    assert_eq!(app.client.adapter("one").await.expect(200), before);
}

#[tokio::test]
async fn the_same_content_is_the_same_version_under_any_name() {
    let app = App::start().await;
    let files = AdapterDirectory::random(&app.base, 1);
    app.client.upload("one", &files).await.expect(201);
    app.client.upload("two", &files).await.expect(201);
    let one = app.client.adapter("one").await.expect(200);
    assert_eq!(
        active(&one),
        active(&app.client.adapter("two").await.expect(200))
    );
    let again = app.client.replace("one", &files).await;
    assert!(matches!(again.status, 200 | 201), "{}", again.body);
    assert_eq!(
        app.client.adapter("one").await.expect(200)["versions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn versions_are_replaced_activated_and_rolled_back() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &first).await.expect(201);
    let first_text = app.client.greedy("one", PROMPT).await;
    let replaced = app.client.replace("one", &second).await;
    assert!(matches!(replaced.status, 200 | 201), "{}", replaced.body);
    assert_eq!(active(&replaced.json()), second.version());
    let second_text = app.client.greedy("one", PROMPT).await;
    assert_ne!(first_text, second_text);

    app.client.rollback("one").await.expect(200);
    assert_eq!(
        active(&app.client.adapter("one").await.expect(200)),
        first.version()
    );
    assert_eq!(app.client.greedy("one", PROMPT).await, first_text);

    app.client
        .activate("one", &json!({"version": &second.version()[..10]}))
        .await
        .expect(200);
    assert_eq!(app.client.greedy("one", PROMPT).await, second_text);
    assert_eq!(
        app.client
            .greedy(&format!("one@{}", first.version()), PROMPT)
            .await,
        first_text
    );
}

#[tokio::test]
async fn a_lost_compare_and_swap_changes_nothing() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &first).await.expect(201);
    app.client.replace("one", &second).await;
    let lost = json!({"version": first.version(), "expected": first.version()});
    app.client.activate("one", &lost).await.expect_error(
        409,
        "compare_and_swap_lost",
        &[&second.version()[..8]],
    );
    assert_eq!(
        active(&app.client.adapter("one").await.expect(200)),
        second.version()
    );
    let won = json!({"version": first.version(), "expected": second.version()});
    app.client.activate("one", &won).await.expect(200);
    assert_eq!(
        active(&app.client.adapter("one").await.expect(200)),
        first.version()
    );
}

#[tokio::test]
async fn there_must_be_something_to_activate_or_to_go_back_to() {
    let app = App::with_adapters(&["one"]).await;
    app.client
        .rollback("one")
        .await
        .expect_error(409, "nothing_to_roll_back", &["one"]);
    app.client
        .rollback("nobody")
        .await
        .expect_error(404, "adapter_not_found", &["nobody"]);
    let unknown = json!({"version": "0123456789abcdef"});
    app.client.activate("one", &unknown).await.expect_error(
        404,
        "version_not_found",
        &["0123456789abcdef"],
    );
    app.client.activate("nobody", &unknown).await.expect_error(
        404,
        "adapter_not_found",
        &["nobody"],
    );
    assert_eq!(app.client.activate("one", &json!({})).await.status, 400);
    assert_eq!(
        app.client
            .replace("nobody", &AdapterDirectory::random(&app.base, 9))
            .await
            .status
            / 100,
        2
    );
}

#[tokio::test]
async fn removing_frees_the_name_and_the_version() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &first).await.expect(201);
    app.client.replace("one", &second).await;
    let refused = app.client.unload_version("one", &second.version()).await;
    refused.expect_error(409, "version_is_active", &["one"]);
    app.client
        .unload_version("one", &first.version())
        .await
        .expect(204);
    let left = app.client.adapter("one").await.expect(200);
    assert_eq!(left["versions"].as_array().unwrap().len(), 1);
    app.client
        .rollback("one")
        .await
        .expect_error(409, "nothing_to_roll_back", &["one"]);

    app.client.unload("one").await.expect(204);
    assert_eq!(app.client.adapter("one").await.status, 404);
    assert_eq!(app.client.unload("one").await.status, 404);
    assert!(app.client.adapter_names().await.is_empty());
    let body = json!({"model": "one", "prompt": "a"});
    assert_eq!(app.client.completions(&body).await.status, 404);
    app.client.upload("one", &first).await.expect(201);
    assert_eq!(app.stored_weights(), 1);
}

#[tokio::test]
async fn a_directory_under_the_root_loads_by_path() {
    let app = App::start().await;
    let version = app.place("moods/first", 3);
    let created = app.client.load_path("one", "moods/first").await.expect(201);
    assert_eq!(active(&created), version);
    let second = app.place("moods/second", 4);
    let replaced = app
        .client
        .put("/v1/adapters/one", &json!({"path": "moods/second"}))
        .await;
    assert!(matches!(replaced.status, 200 | 201), "{}", replaced.body);
    assert_eq!(active(&replaced.json()), second);
}

#[tokio::test]
async fn uploads_survive_a_restart_with_their_history() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &first).await.expect(201);
    app.client.replace("one", &second).await;
    app.client.upload("gone", &first).await.expect(201);
    app.client.unload("gone").await.expect(204);
    let text = app.client.greedy("one", PROMPT).await;

    let app = app.restart().await;
    assert_eq!(app.client.adapter_names().await, ["one"]);
    assert_eq!(app.client.greedy("one", PROMPT).await, text);
    app.client.rollback("one").await.expect(200);
    assert_eq!(
        active(&app.client.adapter("one").await.expect(200)),
        first.version()
    );
    let app = app.restart().await;
    assert_eq!(
        active(&app.client.adapter("one").await.expect(200)),
        first.version()
    );
}

#[tokio::test]
async fn names_are_checked_and_some_are_taken() {
    let app = App::start().await;
    let files = AdapterDirectory::random(&app.base, 1);
    let long = "x".repeat(65);
    for name in [
        "",
        "base",
        "tiny",
        "with space",
        "-dash",
        ".dot",
        "a/b",
        "a@b",
        "a:b",
        "größe",
        &long,
    ] {
        let reply = app.client.upload(name, &files).await;
        assert_eq!(reply.status, 400, "{name:?}: {}", reply.body);
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("name"),
            "{name:?}: {}",
            reply.body
        );
    }
    assert!(app.client.adapter_names().await.is_empty());
    app.client.upload(&long[..64], &files).await.expect(201);
}

#[tokio::test]
async fn an_upload_must_be_whole() {
    let app = App::start().await;
    let files = AdapterDirectory::random(&app.base, 1);
    let post = |form| {
        client::send(
            app.client
                .request(reqwest::Method::POST, "/v1/adapters")
                .multipart(form),
        )
    };
    let part = |bytes| reqwest::multipart::Part::bytes(bytes).file_name("file");
    let nameless = post(client::form(&files)).await;
    assert_eq!(nameless.status, 400, "{}", nameless.body);
    assert!(nameless.body.contains("name"), "{}", nameless.body);
    let form = reqwest::multipart::Form::new()
        .text("name", "one")
        .part("config", part(files.config()));
    let weightless = post(form).await;
    assert_eq!(weightless.status, 400, "{}", weightless.body);
    assert!(weightless.body.contains("weights"), "{}", weightless.body);
    let form = reqwest::multipart::Form::new()
        .text("name", "one")
        .part("weights", part(files.weights()));
    let formless = post(form).await;
    assert_eq!(formless.status, 400, "{}", formless.body);
    assert!(formless.body.contains("config"), "{}", formless.body);
    assert!(app.client.adapter_names().await.is_empty());
}
