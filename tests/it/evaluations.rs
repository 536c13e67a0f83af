//! Evaluations as background jobs, on the tiny model and the built-in data.

use serde_json::{Value, json};
use tasks::{Catalog, Task};

use crate::harness::App;
use crate::metrics::sum;

fn cells(evaluation: &Value) -> &[Value] {
    evaluation["cells"].as_array().unwrap()
}

/// What must hold of every finished evaluation of `base` and `moods`.
#[track_caller]
fn check_finished(evaluation: &Value) {
    assert_eq!(evaluation["object"], "evaluation");
    assert_eq!(evaluation["status"], "completed", "{evaluation}");
    let progress = &evaluation["progress"];
    assert_eq!(progress["cells_done"], progress["cells_total"]);
    assert_eq!(progress["examples_done"], progress["examples_total"]);
    assert_eq!(progress["cells_total"], cells(evaluation).len());
    let key =
        |cell: &Value| ["task", "dataset", "shots", "prompt"].map(|field| cell[field].to_string());
    for cell in cells(evaluation) {
        let value = cell["value"].as_f64().unwrap();
        let (low, high) = (
            cell["ci95"][0].as_f64().unwrap(),
            cell["ci95"][1].as_f64().unwrap(),
        );
        assert!(
            (0.0..=1.0).contains(&value) && low <= value && value <= high,
            "{cell}"
        );
        let base = cells(evaluation)
            .iter()
            .find(|other| other["adapter"] == "base" && key(other) == key(cell))
            .unwrap();
        assert_eq!(cell["baseline"], base["value"], "{cell}");
        let delta = cell["delta"].as_f64().unwrap();
        assert!(
            (delta - (value - base["value"].as_f64().unwrap())).abs() < 1e-9,
            "{cell}"
        );
        if cell["adapter"] == "moods" {
            assert_eq!(cell["trained_task"], "sentiment");
            assert_eq!(cell["version"].as_str().unwrap().len(), 64);
        }
        match cell["metric"].as_str().unwrap() {
            "accuracy" => assert!(cell["extra"]["macro_f1"].is_number(), "{cell}"),
            "rouge_l" => assert!(
                cell["extra"]["rouge_1"].is_number() && cell["extra"]["bleu"].is_number(),
                "{cell}"
            ),
            other => panic!("unknown metric {other}"),
        }
    }
}

fn column<'a>(evaluation: &'a Value, field: &str) -> std::collections::BTreeSet<&'a str> {
    cells(evaluation)
        .iter()
        .map(|cell| cell[field].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn in_domain() {
    let app = App::with_moods().await;
    let body = json!({"kind": "in_domain", "adapters": ["base", "moods"], "tasks": ["sentiment"], "shots": [0, 2], "limit": 4});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    check_finished(&evaluation);
    assert_eq!(
        column(&evaluation, "dataset"),
        ["amazon", "amazonfood"].into()
    );
    assert_eq!(column(&evaluation, "domain"), ["in"].into());
    assert!(cells(&evaluation).iter().all(|cell| cell["n"] == 4));
    let adapter = app.client.adapter("moods").await.expect(200);
    assert_eq!(
        adapter["versions"][0]["evaluations"],
        json!([evaluation["id"]])
    );
    let listed = app.client.get("/v1/evaluations").await.expect(200);
    assert_eq!(listed["data"][0]["id"], evaluation["id"]);
}

#[tokio::test]
async fn out_of_domain() {
    let app = App::with_moods().await;
    let body =
        json!({"adapters": ["base", "moods"], "tasks": ["sentiment"], "shots": [0], "limit": 3});
    let started = app
        .client
        .post("/v1/evaluations/ood", &body)
        .await
        .expect(202);
    assert!(started["id"].as_str().unwrap().starts_with("eval_"));
    let id = started["id"].as_str().unwrap();
    let events = app.client.evaluation_events(id).await;
    assert!(!events.chunks.is_empty());
    let evaluation = app.client.evaluation(id).await.expect(200);
    check_finished(&evaluation);
    assert_eq!(evaluation["kind"], "out_of_domain");
    assert_eq!(column(&evaluation, "dataset"), ["sst2", "yelp"].into());
    assert_eq!(column(&evaluation, "domain"), ["out"].into());
}

#[tokio::test]
async fn across_tasks() {
    let app = App::with_moods().await;
    let body = json!({"adapters": ["base", "moods"], "tasks": ["summary", "question", "inference"], "limit": 2});
    let started = app
        .client
        .post("/v1/evaluations/cross-task", &body)
        .await
        .expect(202);
    app.client
        .evaluation_events(started["id"].as_str().unwrap())
        .await;
    let evaluation = app
        .client
        .evaluation(started["id"].as_str().unwrap())
        .await
        .expect(200);
    check_finished(&evaluation);
    assert_eq!(
        column(&evaluation, "task"),
        ["inference", "question", "summary"].into()
    );
    assert_eq!(column(&evaluation, "domain"), ["cross"].into());
    let shots: Vec<u64> = cells(&evaluation)
        .iter()
        .filter(|cell| cell["task"] == "summary")
        .map(|cell| cell["shots"].as_u64().unwrap())
        .collect();
    assert!(
        !shots.is_empty() && !shots.contains(&0),
        "generation across tasks needs demonstrations: {shots:?}"
    );
}

#[tokio::test]
async fn the_base_is_asked_once_whichever_evaluation_is_first() {
    let app = App::with_moods().await;
    let steps = async || {
        sum(
            &app.client.metrics().await,
            "quickchange_engine_steps_total",
        )
    };
    let mut body = json!({"kind": "in_domain", "adapters": ["base"], "tasks": ["sentiment"], "shots": [0, 2], "limit": 4});
    let first = app.client.evaluate_to_the_end(&body).await;
    let asked = steps().await;
    assert!(asked > 0.0);
    let second = app.client.evaluate_to_the_end(&body).await;
    check_finished(&second);
    assert_eq!(cells(&first), cells(&second));
    assert_eq!(steps().await, asked, "the base was asked again");
    body["limit"] = json!(5);
    let more = app.client.evaluate_to_the_end(&body).await;
    check_finished(&more);
    assert!(steps().await > asked, "other examples were not asked");
}

#[tokio::test]
async fn the_whole_matrix() {
    let app = App::with_moods().await;
    let body = json!({"kind": "matrix", "adapters": ["base", "moods"], "shots": [0], "limit": 1});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    check_finished(&evaluation);
    assert!(
        column(&evaluation, "task").len() >= 3,
        "{:?}",
        column(&evaluation, "task")
    );
    assert!(
        column(&evaluation, "dataset").len() >= 8,
        "{:?}",
        column(&evaluation, "dataset")
    );
}

#[tokio::test]
async fn a_cell_is_what_classifying_the_same_examples_gives() {
    let app = App::with_moods().await;
    let examples = Catalog::open(None)
        .unwrap()
        .test(Task::Sentiment, "amazon")
        .unwrap();
    let inputs: Vec<Value> = examples
        .iter()
        .map(|example| serde_json::to_value(&example.fields).unwrap()["input"].clone())
        .collect();
    let reply = app
        .client
        .classify(&json!({"model": "moods", "inputs": inputs}))
        .await
        .expect(200);
    let right = examples
        .iter()
        .zip(reply["results"].as_array().unwrap())
        .filter(|(example, result)| result["label"] == example.output)
        .count();
    let body =
        json!({"kind": "in_domain", "adapters": ["moods"], "datasets": ["amazon"], "shots": [0]});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let cell = cells(&evaluation)
        .iter()
        .find(|cell| cell["adapter"] == "moods")
        .unwrap();
    assert_eq!(cell["n"], examples.len());
    let expected = right as f64 / examples.len() as f64;
    assert!(
        (cell["value"].as_f64().unwrap() - expected).abs() < 1e-9,
        "{cell} against {expected}"
    );
}

#[tokio::test]
async fn bad_plans_are_refused() {
    let app = App::with_moods().await;
    for (body, status, word) in [
        (json!({"adapters": ["moods"]}), 400, "kind"),
        (
            json!({"kind": "sideways", "adapters": ["moods"]}),
            400,
            "sideways",
        ),
        (json!({"kind": "in_domain"}), 400, "adapters"),
        (
            json!({"kind": "in_domain", "adapters": []}),
            400,
            "adapters",
        ),
        (
            json!({"kind": "in_domain", "adapters": ["nobody"]}),
            404,
            "nobody",
        ),
        (
            json!({"kind": "in_domain", "adapters": ["moods"], "tasks": ["poetry"]}),
            404,
            "poetry",
        ),
        (
            json!({"kind": "in_domain", "adapters": ["moods"], "datasets": ["imdb"]}),
            404,
            "imdb",
        ),
        (
            json!({"kind": "in_domain", "adapters": ["moods"], "limit": 0}),
            400,
            "limit",
        ),
        (
            json!({"kind": "in_domain", "adapters": ["moods"], "prompts": [7]}),
            400,
            "prompt",
        ),
        (
            json!({"kind": "in_domain", "adapters": "moods"}),
            400,
            "adapters",
        ),
    ] {
        let reply = app.client.evaluate(&body).await;
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
    let listed = app.client.get("/v1/evaluations").await.expect(200);
    assert_eq!(listed["data"], json!([]));
}

#[tokio::test]
async fn the_tasks_are_described() {
    let app = App::start().await;
    let listed = app.client.get("/v1/tasks").await.expect(200);
    let described: Vec<String> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| {
            let count = |domain: &str| {
                task["datasets"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|set| set["domain"] == domain)
                    .count()
            };
            assert!(
                task["datasets"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|set| set["present"] == true && set["examples"].as_u64() > Some(0)),
                "{task}"
            );
            format!(
                "{} {} {} {} {}+{}",
                task["id"],
                task["kind"],
                task["metric"],
                task["trained_on"],
                count("in"),
                count("out")
            )
        })
        .collect();
    insta::assert_snapshot!(described.join("\n").replace('"', ""), @r"
    summary generation rouge_l xsum 2+2
    question generation rouge_l socialqa 1+2
    sentiment classification accuracy amazon 2+2
    detection classification accuracy paws 1+2
    inference classification accuracy multinli 2+2
    ");
}
