//! vLLM's two routes for adapters.

use serde_json::{Value, json};

use crate::harness::{App, Reply};

async fn load(app: &App, body: Value) -> Reply {
    app.client.post("/v1/load_lora_adapter", &body).await
}

async fn unload(app: &App, name: &str) -> Reply {
    app.client
        .post("/v1/unload_lora_adapter", &json!({"lora_name": name}))
        .await
}

#[tokio::test]
async fn an_adapter_comes_and_goes_with_the_words_clients_look_for() {
    let app = App::start().await;
    let version = app.place("files", 3);
    let loaded = load(&app, json!({"lora_name": "x", "lora_path": "files"})).await;
    assert_eq!(loaded.status, 200);
    assert_eq!(loaded.body, "Success: LoRA adapter 'x' added successfully.");
    assert_eq!(
        app.client.adapter("x").await.expect(200)["active_version"],
        version
    );
    let unloaded = unload(&app, "x").await;
    assert_eq!(unloaded.status, 200);
    assert_eq!(
        unloaded.body,
        "Success: LoRA adapter 'x' removed successfully."
    );
    assert_eq!(app.client.adapter("x").await.status, 404);
}

#[tokio::test]
async fn a_name_in_use_needs_load_inplace() {
    let app = App::start().await;
    app.place("first", 3);
    let second = app.place("second", 4);
    load(&app, json!({"lora_name": "x", "lora_path": "first"})).await;
    let refused = load(&app, json!({"lora_name": "x", "lora_path": "second"})).await;
    refused.expect_error(
        400,
        "adapter_already_loaded",
        &["The lora adapter 'x' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."],
    );
    let replaced = load(
        &app,
        json!({"lora_name": "x", "lora_path": "second", "load_inplace": true}),
    )
    .await;
    assert_eq!(replaced.status, 200, "{}", replaced.body);
    assert_eq!(
        app.client.adapter("x").await.expect(200)["active_version"],
        second
    );
}

#[tokio::test]
async fn extra_fields_of_the_sidecar_are_ignored() {
    let app = App::start().await;
    app.place("files", 3);
    let body = json!({"lora_name": "x", "lora_path": "files", "base_model_name": "whatever", "tags": ["a"]});
    assert_eq!(load(&app, body).await.status, 200);
}

#[tokio::test]
async fn missing_names_and_paths_are_refused() {
    let app = App::start().await;
    for (body, word) in [
        (json!({}), "lora_name"),
        (json!({"lora_name": "x"}), "lora_path"),
        (json!({"lora_name": 7, "lora_path": "files"}), "lora_name"),
    ] {
        let reply = load(&app, body.clone()).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(reply.body.contains(word), "{body}: {}", reply.body);
    }
    unload(&app, "nobody").await.expect_error(
        404,
        "adapter_not_found",
        &["The lora adapter 'nobody' cannot be found."],
    );
}
