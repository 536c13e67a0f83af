//! `/v1/models` and what a name in the `model` field means.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App};

#[tokio::test]
async fn the_base_is_listed_first_and_adapters_name_their_parent() {
    let app = App::with_adapters(&["one", "two"]).await;
    let models = app.client.models().await;
    let ids: Vec<&str> = models
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["tiny", "one", "two"]);
    for model in &models {
        assert_eq!(model["object"], "model");
        assert_eq!(model["max_model_len"], 4096);
        assert!(
            model["created"].is_u64() && model["owned_by"].is_string() && model["root"].is_string(),
            "{model}"
        );
        assert_eq!(
            app.client
                .get(&format!("/v1/models/{}", model["id"].as_str().unwrap()))
                .await
                .expect(200),
            *model
        );
    }
    assert_eq!(models[0]["parent"], Value::Null);
    assert_eq!(models[1]["parent"], "tiny");
    assert_eq!(app.client.get("/v1/models/nobody").await.status, 404);
}

#[tokio::test]
async fn every_way_to_name_a_model_reaches_its_version() {
    let app = App::start().await;
    let (old, new) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("one", &old).await.expect(201);
    app.client.replace("one", &new).await;
    let (old, new) = (old.version(), new.version());
    let cases = [
        ("tiny".to_owned(), None),
        (String::new(), None),
        ("one".to_owned(), Some(&new)),
        ("tiny:one".to_owned(), Some(&new)),
        (format!("one@{new}"), Some(&new)),
        (format!("one@{}", &old[..8]), Some(&old)),
        (format!("one@{old}"), Some(&old)),
        (format!("tiny:one@{}", &old[..12]), Some(&old)),
    ];
    for (model, version) in cases {
        let body = json!({"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0});
        let reply = app.client.completions(&body).await.expect(200);
        let expected = version.map_or(
            Value::Null,
            |version| json!({"name": "one", "version": version}),
        );
        assert_eq!(reply["adapter"], expected, "model {model:?}");
    }
    let absent = app
        .client
        .completions(&json!({"prompt": "a", "max_tokens": 1}))
        .await
        .expect(200);
    assert_eq!(absent["adapter"], Value::Null);
}

#[tokio::test]
async fn names_that_mean_nothing_are_a_404_on_every_route() {
    let app = App::with_adapters(&["one"]).await;
    let version = app.client.adapter("one").await.expect(200)["active_version"]
        .as_str()
        .unwrap()
        .to_owned();
    let short = format!("one@{}", &version[..7]);
    for model in [
        "nobody",
        "nobody:one",
        "tiny:nobody",
        "one@0123456789abcdef",
        "one@",
        &short,
        "one@not-hex-at-all",
    ] {
        let completion = app
            .client
            .completions(&json!({"model": model, "prompt": "a"}))
            .await;
        assert_eq!(completion.status, 404, "{model}: {}", completion.body);
        assert_eq!(
            completion.json()["error"]["type"],
            "not_found_error",
            "{model}"
        );
        let messages = [json!({"role": "user", "content": "a"})];
        assert_eq!(
            app.client
                .chat(&json!({"model": model, "messages": messages}))
                .await
                .status,
            404,
            "{model}"
        );
        let pairs = [json!({"context": "a", "continuation": "b"})];
        assert_eq!(
            app.client
                .score(&json!({"model": model, "pairs": pairs}))
                .await
                .status,
            404,
            "{model}"
        );
        let classify = json!({"model": model, "task": "sentiment", "inputs": ["a"]});
        assert_eq!(app.client.classify(&classify).await.status, 404, "{model}");
    }
}
