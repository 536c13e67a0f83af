//! Linear combinations of adapters on a request.

use ::adapters::Manifest;
use serde_json::{Value, json};

use crate::harness::{App, Random};

fn request(weights: Value) -> Value {
    json!({"prompt": "I think that", "max_tokens": 12, "temperature": 0, "ignore_eos": true, "logprobs": 0, "adapter_weights": weights})
}

async fn logprobs(app: &App, body: &Value) -> Vec<f64> {
    let reply = app.client.completions(body).await.expect(200);
    let values = reply["choices"][0]["logprobs"]["token_logprobs"]
        .as_array()
        .unwrap()
        .clone();
    values.iter().map(|value| value.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn a_blend_of_one_is_the_adapter_and_half_of_it_twice_too() {
    let app = App::with_adapters(&["one", "two"]).await;
    let mut plain = request(json!(null));
    plain["model"] = json!("one");
    let expected = logprobs(&app, &plain).await;
    let alone = logprobs(&app, &request(json!({"one": 1.0}))).await;
    assert_eq!(alone, expected);
    let version = app.client.adapter("one").await.expect(200)["active_version"].clone();
    let by_version = format!("one@{}", version.as_str().unwrap());
    let halves = logprobs(&app, &request(json!({"one": 0.5, by_version: 0.5}))).await;
    for (halves, whole) in halves.iter().zip(&expected) {
        // Packed in bytes, halves round otherwise than the whole.
        assert!((halves - whole).abs() < 0.05, "{halves} {whole}");
    }
}

#[tokio::test]
async fn a_blend_says_what_it_is_made_of_and_differs_from_its_parts() {
    let app = App::with_adapters(&["one", "two"]).await;
    let reply = app
        .client
        .completions(&request(json!({"one": 0.5, "two": 0.5})))
        .await;
    let answer = reply.expect(200);
    let adapter = &answer["adapter"];
    assert_eq!(adapter["name"], "0.5*one + 0.5*two");
    assert_eq!(adapter["blend"].as_array().unwrap().len(), 2);
    assert_eq!(adapter["blend"][1]["name"], "two");
    assert_eq!(adapter["blend"][1]["weight"], 0.5);
    let again = app
        .client
        .completions(&request(json!({"two": 0.5, "one": 0.5})))
        .await
        .expect(200);
    assert_eq!(again["adapter"], *adapter);
    assert_eq!(again["choices"][0]["text"], answer["choices"][0]["text"]);
    let text = answer["choices"][0]["text"].as_str().unwrap();
    for name in ["one", "two", "tiny"] {
        let mut alone = request(json!(null));
        alone["model"] = json!(name);
        let alone = app.client.completions(&alone).await.expect(200);
        assert_ne!(alone["choices"][0]["text"], text, "{name}");
    }
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "adapter_weights": {"one": 2.0}});
    assert_eq!(
        app.client.chat(&chat).await.expect(200)["adapter"]["name"],
        "2*one"
    );
    let score =
        json!({"pairs": [{"context": "a", "continuation": "b"}], "adapter_weights": {"one": -1.0}});
    assert_eq!(
        app.client.score(&score).await.expect(200)["adapter"]["name"],
        "-1*one"
    );
    let classify = json!({"inputs": ["good"], "task": "sentiment", "adapter_weights": {"one": 1.0, "two": 1.0}});
    assert_eq!(
        app.client.classify(&classify).await.expect(200)["adapter"]["blend"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn a_replaced_part_makes_another_blend() {
    let app = App::with_adapters(&["one", "two"]).await;
    let body = request(json!({"one": 0.5, "two": 0.5}));
    let before = app.client.completions(&body).await.expect(200);
    let next = Random::new(&app.base, 9).write();
    app.client.replace("one", &next).await.expect(200);
    let after = app.client.completions(&body).await.expect(200);
    assert_ne!(after["adapter"]["version"], before["adapter"]["version"]);
    assert_ne!(after["choices"][0]["text"], before["choices"][0]["text"]);
}

#[tokio::test]
async fn what_cannot_be_blended_is_refused() {
    let app = App::with_adapters(&["one", "two"]).await;
    for (name, base) in [
        ("instruct", "org/tiny-instruct"),
        ("plain", "org/tiny-plain"),
    ] {
        let mut random = Random::new(&app.base, 7);
        random.manifest = Manifest {
            base_model: base.to_owned(),
            ..Manifest::default()
        };
        app.client.upload(name, &random.write()).await.expect(201);
    }
    let refused = async |weights: Value| app.client.completions(&request(weights)).await;
    let reply = refused(json!({"instruct": 0.5, "plain": 0.5})).await;
    reply.expect_error(
        422,
        "blend_bases_differ",
        &["org/tiny-instruct", "org/tiny-plain"],
    );
    refused(json!({}))
        .await
        .expect_error(400, "blend_count", &["0"]);
    refused(json!({"one": 0.0}))
        .await
        .expect_error(400, "blend_weight", &["one", "0"]);
    refused(json!({"one": 1e9}))
        .await
        .expect_error(400, "blend_weight", &["one"]);
    refused(json!({"one": "much"}))
        .await
        .expect_error(400, "invalid_value", &["adapter_weights"]);
    refused(json!({"none": 1.0}))
        .await
        .expect_error(404, "model_not_found", &["none"]);
    refused(json!({"tiny": 0.5}))
        .await
        .expect_error(400, "invalid_value", &["base model"]);
    let mut both = request(json!({"one": 1.0}));
    both["model"] = json!("two");
    app.client
        .completions(&both)
        .await
        .expect_error(400, "invalid_value", &["model", "two"]);
}
