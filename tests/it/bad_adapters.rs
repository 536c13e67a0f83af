//! Adapters that cannot be served: each is refused with 422, a code and words that help, and leaves nothing behind.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, Random};

/// Uploads and loads by path; both must be refused alike and leave no trace.
async fn refused(app: &App, files: &AdapterDirectory, code: &str, words: &[&str]) {
    let folder = app.adapters_root().join("files");
    fs_err::create_dir_all(&folder).unwrap();
    for file in fs_err::read_dir(files.path()).unwrap() {
        let file = file.unwrap();
        fs_err::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    app.client
        .upload("x", files)
        .await
        .expect_error(422, code, words);
    app.client
        .load_path("x", "files")
        .await
        .expect_error(422, code, words);
    untouched(app).await;
}

/// The server has no adapter, keeps no file of one, and still answers.
async fn untouched(app: &App) {
    assert!(app.client.adapter_names().await.is_empty());
    assert_eq!(app.client.adapter("x").await.status, 404);
    assert_eq!(app.client.models().await.len(), 1);
    assert_eq!(app.stored_weights(), 0, "something was stored");
    let resident =
        crate::metrics::sum(&app.client.metrics().await, "quickchange_adapters_resident");
    assert_eq!(resident, 0.0);
    app.client.greedy("tiny", "a").await;
}

fn adapter(app: &App) -> AdapterDirectory {
    AdapterDirectory::random(&app.base, 1)
}

#[tokio::test]
async fn weights_cut_short_or_garbled() {
    let app = App::start().await;
    let cut = adapter(&app).edit_bytes(|bytes| bytes.truncate(bytes.len() / 2));
    refused(
        &app,
        &cut,
        "corrupt_weights",
        &["adapter_model.safetensors"],
    )
    .await;
    let headless = adapter(&app).edit_bytes(|bytes| bytes.truncate(5));
    refused(
        &app,
        &headless,
        "corrupt_weights",
        &["adapter_model.safetensors"],
    )
    .await;
    let garbled = adapter(&app).edit_bytes(|bytes| bytes[8..60].fill(b'#'));
    refused(
        &app,
        &garbled,
        "corrupt_weights",
        &["adapter_model.safetensors"],
    )
    .await;
    let empty = adapter(&app).edit_bytes(Vec::clear);
    refused(
        &app,
        &empty,
        "corrupt_weights",
        &["adapter_model.safetensors"],
    )
    .await;
    let boastful =
        adapter(&app).edit_bytes(|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    refused(
        &app,
        &boastful,
        "corrupt_weights",
        &["adapter_model.safetensors"],
    )
    .await;
}

#[tokio::test]
async fn a_config_that_is_not_one() {
    let app = App::start().await;
    let files = adapter(&app);
    fs_err::write(files.path().join("adapter_config.json"), b"{\"r\": 3").unwrap();
    refused(&app, &files, "invalid_json", &["adapter_config.json"]).await;
    let files = adapter(&app).edit_config(|config| *config = json!([1]));
    refused(&app, &files, "invalid_json", &["adapter_config.json"]).await;
    let files = adapter(&app).edit_config(|config| config["r"] = json!("three"));
    refused(&app, &files, "invalid_config", &["r"]).await;
}

#[tokio::test]
async fn tensors_of_the_wrong_shape_or_place() {
    let app = App::start().await;
    let wide = adapter(&app).edit_tensors(|tensors| {
        let (shape, values) = tensors
            .iter_mut()
            .find(|(name, _)| name.contains("layers.1.self_attn.k_proj.lora_A"))
            .unwrap()
            .1;
        shape[1] += 1;
        values.resize(shape[0] * shape[1], 0.5);
    });
    refused(
        &app,
        &wide,
        "wrong_shape",
        &["layers.1.self_attn.k_proj", "[3, 64]", "[3, 65]"],
    )
    .await;
    let missing = adapter(&app).edit_tensors(|tensors| {
        tensors.retain(|name, _| !name.contains("layers.0.mlp.up_proj.lora_B"));
    });
    refused(&app, &missing, "missing_tensors", &["layers.0.mlp.up_proj"]).await;
    let foreign = adapter(&app).edit_tensors(|tensors| {
        tensors.insert(
            "base_model.model.model.layers.0.mlp.router.lora_A.weight".to_owned(),
            (vec![3, 64], vec![0.5; 192]),
        );
    });
    refused(&app, &foreign, "unmatched_tensors", &["router"]).await;
    let deep = adapter(&app).edit_tensors(|tensors| {
        for side in ["A", "B"] {
            let tensor = tensors
                [&format!("base_model.model.model.layers.1.mlp.up_proj.lora_{side}.weight")]
                .clone();
            tensors.insert(
                format!("base_model.model.model.layers.2.mlp.up_proj.lora_{side}.weight"),
                tensor,
            );
        }
    });
    refused(&app, &deep, "unmatched_tensors", &["layers.2"]).await;
}

#[tokio::test]
async fn ranks_over_the_limit() {
    let app = App::start().await;
    let files = adapter(&app).edit_config(|config| config["r"] = json!(65));
    refused(&app, &files, "rank_too_high", &["65", "64"]).await;
    let files = adapter(&app).edit_config(|config| config["rank_pattern"] = json!({"q_proj": 900}));
    refused(&app, &files, "rank_too_high", &["900", "64"]).await;
}

#[tokio::test]
async fn values_that_are_no_numbers() {
    let app = App::start().await;
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let files = adapter(&app).edit_tensors(|tensors| {
            let (_, values) = tensors
                .iter_mut()
                .find(|(name, _)| name.contains("layers.1.mlp.down_proj.lora_B"))
                .unwrap()
                .1;
            values[17] = value;
        });
        refused(&app, &files, "not_finite", &["layers.1.mlp.down_proj"]).await;
    }
}

#[tokio::test]
async fn adapters_that_change_nothing() {
    let app = App::start().await;
    let files = adapter(&app).edit_tensors(|tensors| {
        for (name, (_, values)) in tensors.iter_mut() {
            if name.contains("lora_B") {
                values.fill(0.0);
            }
        }
    });
    refused(&app, &files, "no_effect", &["no"]).await;
}

#[tokio::test]
async fn features_of_peft_that_are_not_served_are_named() {
    let app = App::start().await;
    let cases: [(&str, Value); 8] = [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("fan_in_fan_out", json!(true)),
        ("layers_to_transform", json!([0])),
        ("target_parameters", json!(["experts"])),
        ("layer_replication", json!([[0, 2]])),
    ];
    for (field, value) in cases {
        let files = adapter(&app).edit_config(|config| config[field] = value);
        refused(&app, &files, "unsupported_adapter", &[field]).await;
    }
}

#[tokio::test]
async fn targets_the_base_does_not_have() {
    let app = App::start().await;
    let files = adapter(&app)
        .edit_config(|config| config["target_modules"] = json!(["q_proj", "query_key_value"]));
    refused(&app, &files, "unknown_target", &["query_key_value"]).await;
    let files =
        adapter(&app).edit_config(|config| config["target_modules"] = json!(["embed_tokens"]));
    refused(&app, &files, "unknown_target", &["embed_tokens"]).await;
}

#[tokio::test]
async fn adapters_of_another_base() {
    let app = App::start().await;
    let mut other = Random::new(&app.base, 1);
    other.manifest.base_digest = Some("ab".repeat(32));
    refused(&app, &other.write(), "wrong_base", &["abab"]).await;
    let mut bigger = app.base.clone();
    bigger.layers = 3;
    refused(
        &app,
        &AdapterDirectory::random(&bigger, 1),
        "unmatched_tensors",
        &["layers.2"],
    )
    .await;
}

#[tokio::test]
async fn pickled_weights() {
    let app = App::start().await;
    let folder = app.adapters_root().join("pickled");
    let files = adapter(&app);
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::write(folder.join("adapter_config.json"), files.config()).unwrap();
    fs_err::write(folder.join("adapter_model.bin"), b"\x80\x02}q\x00.").unwrap();
    app.client.load_path("x", "pickled").await.expect_error(
        422,
        "pickled_weights",
        &["adapter_model.bin", "safetensors"],
    );
    untouched(&app).await;
    let disguised = adapter(&app)
        .edit_bytes(|bytes| *bytes = b"PK\x03\x04 a zip that torch.save made".to_vec());
    assert_eq!(app.client.upload("x", &disguised).await.status, 422);
    untouched(&app).await;
}

#[tokio::test]
async fn paths_that_leave_the_root() {
    let app = App::start().await;
    fs_err::create_dir_all(app.outside()).unwrap();
    Random::new(&app.base, 1).write_to(&app.outside().join("files"));
    let absolute = app.outside().join("files");
    std::os::unix::fs::symlink(app.outside(), app.adapters_root().join("link")).unwrap();
    for path in [
        "../outside/files",
        "link/files",
        "a/../../outside/files",
        absolute.to_str().unwrap(),
        "/etc",
        "..",
    ] {
        app.client
            .load_path("x", path)
            .await
            .expect_error(422, "path_escapes", &["adapters"]);
        let body = json!({"lora_name": "x", "lora_path": path});
        let reply = app.client.post("/v1/load_lora_adapter", &body).await;
        assert_eq!(reply.status, 422, "{path}: {}", reply.body);
        assert!(!reply.body.contains("successfully"));
    }
    untouched(&app).await;
}

#[tokio::test]
async fn paths_and_names_that_no_folder_has() {
    let app = App::start().await;
    fs_err::create_dir_all(app.outside()).unwrap();
    Random::new(&app.base, 1).write_to(&app.outside().join("files"));
    let long = "a/".repeat(5000);
    for path in [
        "files\0",
        "\0",
        "\u{ff0e}\u{ff0e}/outside/files",
        "\u{2024}\u{2024}/outside/files",
        "..\\outside\\files",
        "%2e%2e/outside/files",
        "\u{202e}selif",
        "",
        long.as_str(),
    ] {
        for (route, body) in [
            ("/v1/adapters", json!({"name": "x", "path": path})),
            (
                "/v1/load_lora_adapter",
                json!({"lora_name": "x", "lora_path": path}),
            ),
        ] {
            let reply = app.client.post(route, &body).await;
            assert!(
                matches!(reply.status, 400 | 404 | 422),
                "{path:?}: {} {}",
                reply.status,
                reply.body
            );
        }
    }
    let files = adapter(&app);
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a\0b",
        "\u{e9}t\u{e9}",
        "a b",
        "-a",
        "\u{202e}a",
    ] {
        let reply = app.client.upload(name, &files).await;
        assert_eq!(reply.status, 400, "{name:?}: {}", reply.body);
    }
    untouched(&app).await;
}

#[tokio::test]
async fn paths_with_nothing_there() {
    let app = App::start().await;
    let reply = app.client.load_path("x", "nothing-here").await;
    assert!(matches!(reply.status, 404 | 422), "{}", reply.body);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("nothing-here"),
        "{}",
        reply.body
    );
    fs_err::create_dir_all(app.adapters_root().join("empty")).unwrap();
    let reply = app.client.load_path("x", "empty").await;
    assert_eq!(reply.status, 422, "{}", reply.body);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("adapter_config.json"),
        "{}",
        reply.body
    );
    untouched(&app).await;
}

#[tokio::test]
async fn a_bad_replacement_leaves_the_good_version_in_place() {
    let app = App::start().await;
    let good = adapter(&app);
    app.client.upload("x", &good).await.expect(201);
    let before = app.client.adapter("x").await.expect(200);
    let text = app.client.greedy("x", "The weather").await;
    let bad =
        AdapterDirectory::random(&app.base, 2).edit_bytes(|bytes| bytes.truncate(bytes.len() - 4));
    app.client
        .replace("x", &bad)
        .await
        .expect_error(422, "corrupt_weights", &[]);
    assert_eq!(app.client.adapter("x").await.expect(200), before);
    assert_eq!(app.client.greedy("x", "The weather").await, text);
}
