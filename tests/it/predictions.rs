//! The answers behind an evaluation's figures, and the ways of choosing a label.

use serde_json::{Value, json};

use crate::harness::{App, Options};

/// Both kinds of task, the base and an adapter.
fn both_kinds() -> Value {
    json!({"kind": "matrix", "adapters": ["base", "moods"], "datasets": ["amazon", "tweetqa"], "shots": [1], "limit": 5})
}

fn mean(lines: &[&Value], field: &str) -> f64 {
    let values = lines.iter().map(|line| line[field].as_f64().unwrap());
    values.sum::<f64>() / lines.len() as f64
}

#[tokio::test]
async fn every_figure_can_be_traced_to_its_predictions() {
    let app = App::with_moods().await;
    let evaluation = app.client.evaluate_to_the_end(&both_kinds()).await;
    let id = evaluation["id"].as_str().unwrap();
    let lines = app.client.predictions(id, "").await;
    let cells = evaluation["cells"].as_array().unwrap();
    assert_eq!(lines.len(), 5 * cells.len());
    for (place, cell) in cells.iter().enumerate() {
        let own: Vec<&Value> = lines.iter().filter(|line| line["cell"] == place).collect();
        let indices: Vec<u64> = own
            .iter()
            .map(|line| line["index"].as_u64().unwrap())
            .collect();
        assert_eq!(indices, [0, 1, 2, 3, 4]);
        for field in ["adapter", "version", "task", "dataset", "shots", "prompt"] {
            assert!(own.iter().all(|line| line[field] == cell[field]), "{field}");
        }
        let close = |a: f64, b: &Value| (a - b.as_f64().unwrap()).abs() < 1e-12;
        assert!(close(mean(&own, "score"), &cell["value"]));
        assert!(close(mean(&own, "baseline_score"), &cell["baseline"]));
        for line in own {
            if cell["metric"] == "accuracy" {
                let right = line["prediction"] == line["gold"];
                assert_eq!(line["score"], f64::from(u8::from(right)));
                let logprobs = line["logprobs"].as_object().unwrap();
                let best = logprobs
                    .iter()
                    .max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()));
                assert_eq!(line["prediction"], best.unwrap().0.as_str());
            } else {
                assert!(line["logprobs"].is_null());
            }
        }
    }
    let one = app.client.predictions(id, "?cell=1").await;
    assert_eq!(one, lines[5..10]);
    let none = format!("/v1/evaluations/{id}/predictions?cell=99");
    let none = app.client.get(&none).await;
    none.expect_error(404, "not_found", &["99", "numbered from 0"]);
}

#[tokio::test]
async fn no_more_predictions_are_kept_than_asked_for() {
    let app = App::start_with(Options {
        retain_predictions: 1,
        ..Options::default()
    })
    .await;
    let body = json!({"kind": "in_domain", "adapters": ["base"], "datasets": ["amazon"], "shots": [0], "limit": 2});
    let mut ids = Vec::new();
    for _ in 0..3 {
        let evaluation = app.client.evaluate_to_the_end(&body).await;
        ids.push(evaluation["id"].as_str().unwrap().to_owned());
    }
    // The third has ended, so that those of the first are gone.
    let gone = format!("/v1/evaluations/{}/predictions", ids[0]);
    let gone = app.client.get(&gone).await;
    gone.expect_error(404, "not_found", &["retain-predictions", "newest 1"]);
    assert_eq!(app.client.predictions(&ids[2], "").await.len(), 2);
    let figures = app.client.evaluation(&ids[0]).await.expect(200);
    assert_eq!(figures["cells"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn labels_can_be_chosen_by_their_first_token_and_relative_to_an_empty_input() {
    let app = App::with_moods().await;
    let ask = |more: Value| {
        let mut body = json!({"kind": "in_domain", "adapters": ["moods"], "tasks": ["inference"], "datasets": ["multinli"], "shots": [0]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body["kind"] = "cross_task".into();
        body
    };
    let mut predicted = Vec::new();
    for more in [
        json!({}),
        json!({"label_scoring": "first_token"}),
        json!({"calibrate": true}),
    ] {
        let evaluation = app.client.evaluate_to_the_end(&ask(more.clone())).await;
        assert_eq!(evaluation["status"], "completed", "{evaluation}");
        let lines = app
            .client
            .predictions(evaluation["id"].as_str().unwrap(), "")
            .await;
        // The same by POST /v1/classify, input by input.
        let inputs: Vec<Value> = tasks::Catalog::open(None)
            .unwrap()
            .test(tasks::Task::Inference, "multinli")
            .unwrap()
            .iter()
            .map(|example| json!(example.fields))
            .collect();
        let mut body = json!({"model": "moods", "task": "inference", "shots": 0, "inputs": inputs});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let classified = app.client.classify(&body).await.expect(200);
        let labels = classified["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| &result["label"]);
        let labels: Vec<&Value> = labels.collect();
        let own: Vec<&Value> = lines.iter().map(|line| &line["prediction"]).collect();
        assert_eq!(own, labels, "{more}");
        predicted.push(json!(own));
    }
    assert_ne!(predicted[0], predicted[1]);
    assert_ne!(predicted[0], predicted[2]);
    let unknown = ask(json!({"label_scoring": "longest"}));
    let refused = app.client.evaluate(&unknown).await;
    refused.expect_error(400, "invalid_value", &["label_scoring", "first_token"]);
}

#[tokio::test]
async fn another_adapter_can_be_compared_with_in_every_cell() {
    let app = App::with_moods().await;
    app.client.upload("other", &app.moods(2)).await.expect(201);
    let body = json!({"kind": "in_domain", "adapters": ["moods"], "against": "other", "datasets": ["amazon"], "shots": [0, 2]});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let alone = json!({"kind": "in_domain", "adapters": ["other"], "datasets": ["amazon"], "shots": [0, 2]});
    let alone = app.client.evaluate_to_the_end(&alone).await;
    for place in 0..2 {
        let (cell, other) = (&evaluation["cells"][place], &alone["cells"][place]);
        let against = &cell["against"];
        assert_eq!(against["adapter"], "other");
        assert_eq!(against["version"], other["version"]);
        assert_eq!(against["value"], other["value"]);
        let delta = cell["value"].as_f64().unwrap() - other["value"].as_f64().unwrap();
        assert!((against["delta"].as_f64().unwrap() - delta).abs() < 1e-12);
        let [low, high] = [0, 1].map(|end| against["delta_ci95"][end].as_f64().unwrap());
        assert!(low <= delta && delta <= high);
        assert!(["gains", "keeps", "loses"].contains(&against["verdict"].as_str().unwrap()));
    }
    let progress = &evaluation["progress"];
    assert_eq!(progress["examples_done"], progress["examples_total"]);
    let unknown = json!({"kind": "in_domain", "adapters": ["moods"], "against": "nobody"});
    assert_eq!(app.client.evaluate(&unknown).await.status, 404);
}
