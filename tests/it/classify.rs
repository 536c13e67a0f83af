//! `/v1/classify`.

use ::adapters::{Manifest, Method};
use serde_json::{Value, json};

use crate::harness::{App, Random};

/// Probabilities sum to one over the labels, follow from the log-probabilities, and the label is the likeliest.
fn check_result(result: &Value, labels: &[&str]) {
    let probs = result["probs"].as_object().unwrap();
    assert_eq!(probs.len(), labels.len());
    let total: f64 = labels
        .iter()
        .map(|label| result["logprobs"][label].as_f64().unwrap().exp())
        .sum();
    for label in labels {
        let expected = result["logprobs"][label].as_f64().unwrap().exp() / total;
        let got = probs[*label].as_f64().unwrap();
        assert!(
            (got - expected).abs() < 1e-5,
            "{label}: {got} against {expected}"
        );
    }
    let best = labels
        .iter()
        .max_by(|a, b| {
            probs[**a]
                .as_f64()
                .unwrap()
                .total_cmp(&probs[**b].as_f64().unwrap())
        })
        .unwrap();
    assert_eq!(result["label"], *best);
    assert_eq!(result["ood"]["max_prob"], probs[*best]);
    assert!(result["ood"]["energy"].is_number());
}

#[tokio::test]
async fn labels_are_scored_as_continuations_of_the_prompt() {
    let app = App::start().await;
    let body = json!({"task": "sentiment", "inputs": ["It fits and sounds fine.", "Broke on the first day."]});
    let reply = app.client.classify(&body).await.expect(200);
    assert_eq!(reply["object"], "classification");
    assert_eq!(reply["task"], "sentiment");
    assert_eq!(reply["labels"], json!(["positive", "negative"]));
    for (index, input) in ["It fits and sounds fine.", "Broke on the first day."]
        .iter()
        .enumerate()
    {
        let result = &reply["results"][index];
        assert_eq!(result["index"], index);
        check_result(result, &["positive", "negative"]);
        let context = format!("### Input:\n{input}\n### Sentiment:");
        let pairs = ["positive", "negative"]
            .map(|label| json!({"context": context, "continuation": label}));
        let scores = app.client.score(&json!({"pairs": pairs})).await.expect(200);
        for (position, label) in ["positive", "negative"].iter().enumerate() {
            let scored = scores["data"][position]["logprob"].as_f64().unwrap();
            let classified = result["logprobs"][label].as_f64().unwrap();
            assert!(
                (scored - classified).abs() < 1e-4,
                "{label}: {scored} against {classified}"
            );
        }
    }
    assert_ne!(
        reply["results"][0]["logprobs"],
        reply["results"][1]["logprobs"]
    );
}

#[tokio::test]
async fn two_part_inputs_go_with_the_tasks_that_have_two() {
    let app = App::start().await;
    let inputs = [json!({"input_1": "A man eats.", "input_2": "Somebody eats."})];
    let reply = app
        .client
        .classify(&json!({"task": "inference", "inputs": inputs}))
        .await
        .expect(200);
    let labels: Vec<&str> = reply["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label.as_str().unwrap())
        .collect();
    assert_eq!(labels.len(), 3);
    check_result(&reply["results"][0], &labels);
    let wrong = app
        .client
        .classify(&json!({"task": "inference", "inputs": ["A man eats."]}))
        .await;
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    assert!(
        wrong.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("input_1"),
        "{}",
        wrong.body
    );
}

#[tokio::test]
async fn labels_and_demonstrations_can_be_chosen() {
    let app = App::start().await;
    let body =
        json!({"task": "sentiment", "inputs": ["Fine."], "labels": ["good", "bad", "so so"]});
    let reply = app.client.classify(&body).await.expect(200);
    check_result(&reply["results"][0], &["good", "bad", "so so"]);

    let with = |shots: u64| json!({"task": "sentiment", "inputs": ["Fine."], "shots": shots});
    let none = app.client.classify(&with(0)).await.expect(200);
    let two = app.client.classify(&with(2)).await.expect(200);
    assert!(
        two["usage"]["prompt_tokens"].as_u64() > none["usage"]["prompt_tokens"].as_u64(),
        "{two}"
    );
    assert_ne!(
        two["results"][0]["logprobs"],
        none["results"][0]["logprobs"]
    );
}

#[tokio::test]
async fn the_prompt_can_be_chosen() {
    let app = App::start().await;
    let with = |prompt: u64| json!({"task": "sentiment", "inputs": ["Fine."], "prompt": prompt});
    let plain = app.client.classify(&with(0)).await.expect(200);
    let sentence = app.client.classify(&with(1)).await.expect(200);
    assert_ne!(
        plain["results"][0]["logprobs"],
        sentence["results"][0]["logprobs"]
    );
    let missing = app.client.classify(&with(2)).await;
    assert_eq!(missing.status, 400, "{}", missing.body);
}

#[tokio::test]
async fn an_adapter_brings_its_task_labels_and_demonstrations() {
    let app = App::start().await;
    let mut adapter = Random::new(&app.base, 1);
    adapter.manifest = Manifest {
        task: Some("sentiment".to_owned()),
        method: Method::Fticl,
        base_model: "tiny".to_owned(),
        labels: vec!["positive".to_owned(), "negative".to_owned()],
        shots: 2,
        trained_on: Some("amazon".to_owned()),
        ..Manifest::default()
    };
    let files = adapter.write();
    app.client.upload("moods", &files).await.expect(201);
    let short = app
        .client
        .classify(&json!({"model": "moods", "inputs": ["Fine."]}))
        .await
        .expect(200);
    assert_eq!(short["task"], "sentiment");
    assert_eq!(
        short["adapter"],
        json!({"name": "moods", "version": files.version()})
    );
    let long = json!({"model": "moods", "inputs": ["Fine."], "task": "sentiment", "labels": ["positive", "negative"], "prompt": 0, "shots": 2});
    let long = app.client.classify(&long).await.expect(200);
    assert_eq!(short["results"], long["results"]);
    let base = app
        .client
        .classify(&json!({"inputs": ["Fine."], "task": "sentiment", "shots": 2}))
        .await
        .expect(200);
    assert_ne!(base["results"], short["results"]);
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let app = App::start().await;
    let cases = [
        (json!({"inputs": ["a"]}), 400, "task"),
        (json!({"inputs": ["a"], "task": "poetry"}), 404, "poetry"),
        (
            json!({"inputs": ["a"], "task": "sentiment", "model": "nobody"}),
            404,
            "nobody",
        ),
        (json!({"task": "sentiment"}), 400, "inputs"),
        (json!({"inputs": [], "task": "sentiment"}), 400, "inputs"),
        (json!({"inputs": [7], "task": "sentiment"}), 400, "inputs"),
        (
            json!({"inputs": ["a"], "task": "sentiment", "labels": ["one"]}),
            400,
            "labels",
        ),
        (
            json!({"inputs": ["a"], "task": "sentiment", "labels": ["one", ""]}),
            400,
            "labels",
        ),
        (
            json!({"inputs": ["a"], "task": "sentiment", "shots": 4000}),
            400,
            "4000",
        ),
        (json!({"inputs": ["a"], "task": "summary"}), 400, "label"),
    ];
    for (body, status, word) in cases {
        let reply = app.client.classify(&body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(word),
            "{body}: {}",
            reply.body
        );
    }
}
