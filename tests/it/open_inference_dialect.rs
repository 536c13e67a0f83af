//! The Open Inference Protocol, with the bodies that `tritonclient.http` sends.

use serde_json::{Value, json};

use crate::harness::{App, Reply};

const TEXTS: [&str; 2] = ["The weather in the north", "é, positive"];

/// What `tritonclient` sends with `binary_data=False`.
fn body() -> Value {
    json!({"id": "7", "inputs": [{"name": "text_input", "shape": [2], "datatype": "BYTES", "data": TEXTS}],
        "outputs": [{"name": "text_output", "parameters": {"binary_data": false}}], "parameters": {"max_tokens": 12, "temperature": 0.0}})
}

async fn expected(app: &App, model: &str) -> Value {
    let mut texts = Vec::new();
    for text in TEXTS {
        texts.push(app.client.greedy_choice(model, text, 12).await["text"].clone());
    }
    json!(texts)
}

#[track_caller]
fn refused(reply: &Reply, status: u16, word: &str) {
    let body = reply.expect(status);
    assert!(
        body["error"].as_str().unwrap().contains(word),
        "{word}: {body}"
    );
}

#[tokio::test]
async fn each_text_is_continued_as_in_the_other_interfaces() {
    let app = App::with_adapters(&["one"]).await;
    let version = app.client.adapter("one").await.expect(200)["active_version"].clone();
    for (model, version) in [("one", version), ("tiny", json!(app.base.digest))] {
        let answer = app.client.infer(model, &body()).await.expect(200);
        let outputs = json!([{"name": "text_output", "datatype": "BYTES", "shape": [2], "data": expected(&app, model).await}]);
        assert_eq!(
            answer,
            json!({"model_name": model, "model_version": version, "id": "7", "outputs": outputs})
        );
    }
}

#[tokio::test]
async fn texts_may_follow_the_json_as_bytes() {
    let app = App::start().await;
    let bytes: Vec<u8> = TEXTS
        .iter()
        .flat_map(|text| {
            [
                &u32::try_from(text.len()).unwrap().to_le_bytes(),
                text.as_bytes(),
            ]
            .concat()
        })
        .collect();
    let json = json!({"inputs": [{"name": "text_input", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": bytes.len()}}],
        "parameters": {"binary_data_output": true, "max_tokens": 12, "temperature": 0}});
    let answer = app
        .client
        .infer_bytes("tiny", &json, &bytes)
        .await
        .expect(200);
    assert_eq!(answer["outputs"][0]["data"], expected(&app, "tiny").await);
    refused(
        &app.client.infer_bytes("tiny", &json, &bytes[1..]).await,
        400,
        "binary_data_size",
    );
}

#[tokio::test]
async fn other_names_dimensions_and_places_for_parameters_are_understood() {
    let app = App::start().await;
    for name in ["prompt", "text"] {
        let request = json!({"inputs": [{"name": name, "shape": [2, 1], "datatype": "BYTES", "data": [[TEXTS[0]], [TEXTS[1]]]}],
            "max_tokens": 12, "temperature": 0});
        let answer = app.client.infer("tiny", &request).await.expect(200);
        assert_eq!(answer["outputs"][0]["shape"], json!([2, 1]));
        assert_eq!(answer["outputs"][0]["data"], expected(&app, "tiny").await);
        assert!(answer.get("id").is_none());
    }
    let mut request = body();
    let text = expected(&app, "tiny").await[0].as_str().unwrap().to_owned();
    let stop: String = text.chars().skip(3).take(2).collect();
    request["parameters"]["stop"] = json!(stop);
    let answer = app.client.infer("tiny", &request).await.expect(200);
    assert_eq!(
        answer["outputs"][0]["data"][0],
        text[..text.find(&stop).unwrap()]
    );
}

#[tokio::test]
async fn a_version_is_named_by_its_first_digits() {
    let app = App::with_adapters(&["one"]).await;
    let version = app.client.adapter("one").await.expect(200)["active_version"]
        .as_str()
        .unwrap()
        .to_owned();
    let prefix = &version[..8];
    let answer = app
        .client
        .infer(&format!("one/versions/{prefix}"), &body())
        .await
        .expect(200);
    assert_eq!(
        (&answer["model_name"], &answer["model_version"]),
        (&json!("one"), &json!(version))
    );
    assert_eq!(answer["outputs"][0]["data"], expected(&app, "one").await);
    let base = &app.base.digest[..8];
    let answer = app
        .client
        .infer(&format!("tiny/versions/{base}"), &body())
        .await
        .expect(200);
    assert_eq!(answer["model_version"], app.base.digest);
    refused(
        &app.client.infer("one/versions/00000000", &body()).await,
        404,
        "00000000",
    );
    refused(
        &app.client.infer("tiny/versions/1", &body()).await,
        404,
        &app.base.digest,
    );
}

#[tokio::test]
async fn health_and_metadata_are_told() {
    let app = App::with_adapters(&["one"]).await;
    let version = app.client.adapter("one").await.expect(200)["active_version"].clone();
    assert_eq!(
        app.client.get("/v2/health/live").await.expect(200),
        json!({"live": true})
    );
    assert_eq!(
        app.client.get("/v2/health/ready").await.expect(200),
        json!({"ready": true})
    );
    let server = app.client.get("/v2").await.expect(200);
    assert_eq!(server["name"], "quickchange");
    assert_eq!(
        server["extensions"],
        json!(["model_repository", "binary_tensor_data"])
    );

    let tensor = |name: &str| json!([{"name": name, "datatype": "BYTES", "shape": [-1]}]);
    let metadata = json!({"name": "one", "versions": [version], "platform": "quickchange",
        "inputs": tensor("text_input"), "outputs": tensor("text_output")});
    assert_eq!(
        app.client.open_inference_model("one", "").await.expect(200),
        metadata
    );
    let own = format!("/versions/{}", version.as_str().unwrap());
    assert_eq!(
        app.client
            .open_inference_model("one", &own)
            .await
            .expect(200),
        metadata
    );
    for rest in ["/ready", &format!("{own}/ready")] {
        let ready = app
            .client
            .open_inference_model("one", rest)
            .await
            .expect(200);
        assert_eq!(ready, json!({"name": "one", "ready": true}));
    }
    assert_eq!(
        app.client
            .open_inference_model("tiny", "/ready")
            .await
            .status,
        200
    );
    for rest in [
        "",
        "/ready",
        "/versions/12345678",
        "/versions/12345678/ready",
    ] {
        refused(
            &app.client.open_inference_model("nobody", rest).await,
            404,
            "nobody",
        );
    }

    app.drain().await;
    assert_eq!(app.client.get("/v2/health/live").await.status, 200);
    assert_eq!(app.client.get("/v2/health/ready").await.status, 503);
    assert_eq!(
        app.client
            .open_inference_model("one", "/ready")
            .await
            .status,
        503
    );
}

#[tokio::test]
async fn the_repository_lists_loads_and_unloads() {
    let app = App::start().await;
    let version = app.place("one", 3);
    let entry = |name: &str, version: &str| json!({"name": name, "version": version, "state": "READY", "reason": ""});
    assert_eq!(
        app.client.repository_index().await,
        json!([entry("tiny", &app.base.digest)])
    );

    let loaded = app.client.repository_load("one", &json!({})).await;
    assert_eq!(loaded.status, 200, "{}", loaded.body);
    assert_eq!(
        app.client.repository_index().await,
        json!([entry("tiny", &app.base.digest), entry("one", &version)])
    );
    assert_eq!(
        app.client.repository_load("one", &json!({})).await.status,
        200
    );
    assert_eq!(
        app.client.repository_load("tiny", &json!({})).await.status,
        200
    );

    let other = app.place("other", 4);
    let path = json!({"parameters": {"path": "other"}});
    assert_eq!(app.client.repository_load("one", &path).await.status, 200);
    assert_eq!(
        app.client.adapter("one").await.expect(200)["active_version"],
        other
    );
    // An uploaded adapter has no folder of its name, and is loaded all the same.
    let files = crate::harness::AdapterDirectory::random(&app.base, 5);
    app.client.upload("uploaded", &files).await.expect(201);
    assert_eq!(
        app.client
            .repository_load("uploaded", &json!({}))
            .await
            .status,
        200
    );

    let unload = json!({"parameters": {"unload_dependents": false}});
    assert_eq!(
        app.client.repository_unload("one", &unload).await.status,
        200
    );
    assert_eq!(app.client.adapter("one").await.status, 404);
    refused(
        &app.client.repository_unload("one", &unload).await,
        404,
        "one",
    );
}

#[tokio::test]
async fn the_repository_refuses_what_it_cannot_load() {
    let app = App::start().await;
    refused(
        &app.client.repository_load("missing", &json!({})).await,
        404,
        "missing",
    );
    let outside = json!({"parameters": {"path": "../outside"}});
    refused(
        &app.client.repository_load("x", &outside).await,
        422,
        "outside",
    );
    // What `load_model` sends with a `config`.
    let config = json!({"parameters": {"config": "{\"parameters\":{}}"}});
    refused(
        &app.client.repository_load("x", &config).await,
        400,
        "config",
    );
    refused(
        &app.client.repository_unload("tiny", &json!({})).await,
        404,
        "tiny",
    );
}

#[tokio::test]
async fn tensors_that_are_not_texts_are_refused() {
    let app = App::start().await;
    let tensor = |field: &str, value: Value| {
        let mut body = body();
        body["inputs"][0][field] = value;
        body
    };
    let mut output = body();
    output["outputs"][0]["name"] = json!("logits");
    let mut hot = body();
    hot["parameters"]["temperature"] = json!(3);
    for (request, word) in [
        (tensor("datatype", json!("INT32")), "BYTES"),
        (tensor("name", json!("image")), "text_input"),
        (tensor("shape", json!([3])), "shape"),
        (tensor("data", json!([1, 2])), "data"),
        (tensor("data", json!(["", ""])), "text_input"),
        (json!({"inputs": []}), "inputs"),
        (json!({}), "inputs"),
        (output, "logits"),
        (hot, "temperature"),
    ] {
        refused(&app.client.infer("tiny", &request).await, 400, word);
    }
    refused(&app.client.infer("nobody", &body()).await, 404, "nobody");
}
