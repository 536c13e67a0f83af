//! Two models beside each other.

use serde_json::json;

use crate::harness::App;

#[tokio::test]
async fn two_adapters_are_compared_token_by_token() {
    let app = App::with_adapters(&["one", "two"]).await;
    let body = json!({"models": ["one", "two"], "prompts": ["I think that", "We"], "max_tokens": 8, "ignore_eos": true});
    let comparison = app.client.compare(&body).await.expect(200);
    assert_eq!(comparison["object"], "comparison");
    assert_eq!(comparison["models"], json!(["one", "two"]));
    assert_eq!(comparison["adapters"][1]["name"], "two");
    let results = comparison["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let outputs = result["outputs"].as_array().unwrap();
        let tokens = |at: usize| outputs[at]["tokens"].as_array().unwrap().clone();
        let (one, other) = (tokens(0), tokens(1));
        assert_eq!((one.len(), other.len()), (8, 8));
        let differ = one
            .iter()
            .zip(&other)
            .filter(|(one, other)| one != other)
            .count();
        assert_eq!(
            result["disagreement"].as_f64().unwrap(),
            differ as f64 / 8.0
        );
        let first = one.iter().zip(&other).position(|(one, other)| one != other);
        assert_eq!(result["first_difference"], json!(first));
        let by_token = result["kl_by_token"].as_array().unwrap();
        assert_eq!(by_token.len(), 8);
        let mean = by_token
            .iter()
            .map(|value| value.as_f64().unwrap())
            .sum::<f64>()
            / 8.0;
        assert!((result["kl"].as_f64().unwrap() - mean).abs() < 1e-12);
        assert!(mean > 0.0);
    }
    let prompt = results[0]["prompt"].as_str().unwrap();
    let mut alone = json!({"model": "one", "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": true});
    let completion = app.client.completions(&alone).await.expect(200);
    assert_eq!(
        results[0]["outputs"][0]["text"],
        completion["choices"][0]["text"]
    );
    alone["model"] = json!("two");
    let completion = app.client.completions(&alone).await.expect(200);
    assert_eq!(
        results[0]["outputs"][1]["text"],
        completion["choices"][0]["text"]
    );
}

#[tokio::test]
async fn a_model_agrees_with_itself_even_when_it_is_sampled() {
    let app = App::with_adapters(&["one"]).await;
    let body =
        json!({"models": ["one", "tiny:one"], "prompts": ["I think that"], "temperature": 1.0});
    let comparison = app.client.compare(&body).await.expect(200);
    assert_eq!(comparison["disagreement"], 0.0);
    assert_eq!(comparison["kl"], 0.0);
    assert_eq!(comparison["results"][0]["first_difference"], json!(null));
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    let app = App::with_adapters(&["one"]).await;
    let refused = async |body: serde_json::Value| app.client.compare(&body).await;
    refused(json!({"models": ["one"], "prompts": ["I"]}))
        .await
        .expect_error(400, "invalid_value", &["1 names", "two"]);
    refused(json!({"models": ["one", "tiny"], "prompts": []}))
        .await
        .expect_error(400, "invalid_value", &["prompts"]);
    refused(json!({"models": ["one", "tiny"]}))
        .await
        .expect_error(400, "missing_field", &["prompts"]);
    refused(json!({"models": ["one", "none"], "prompts": ["I"]}))
        .await
        .expect_error(404, "model_not_found", &["none"]);
    refused(json!({"models": ["one", "tiny"], "prompts": ["I"], "max_tokens": 257}))
        .await
        .expect_error(400, "invalid_value", &["257"]);
}
