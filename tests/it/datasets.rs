//! Users' data sets: added, evaluated on, kept over a restart, removed, and refused with what is wrong in them.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::harness::{App, Options, Reply};

/// Six reviews of ferries, two of them to be shown.
fn ferries() -> Value {
    json!({
        "name": "ferries", "task": "sentiment", "domain": "out",
        "examples": [
            {"id": 1, "input": "The crossing was calm and the crew were kind.", "output": "positive"},
            {"id": 2, "input": "Two hours late, and no word of it.", "output": "negative"},
            {"id": 3, "input": "Cold soup, wet seats.", "output": "negative"},
            {"id": 4, "input": "I would sail with them again.", "output": "positive"}
        ],
        "demonstrations": [
            {"input": "A fine view from the deck.", "output": "positive"},
            {"input": "The engine failed twice.", "output": "negative"}
        ]
    })
}

async fn add(app: &App, body: &Value) -> Reply {
    app.client.post("/v1/datasets", body).await
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = ferries();
    change(&mut body);
    body
}

#[tokio::test]
async fn a_data_set_is_evaluated_on_in_its_role() {
    let app = App::with_moods().await;
    let added = add(&app, &ferries()).await.expect(201);
    assert_eq!(added["id"], "ferries");
    assert_eq!(added["task"], "sentiment");
    assert_eq!(added["domain"], "out");
    assert_eq!(added["examples"], 4);
    assert_eq!(added["uploaded"], true);
    let digest = added["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest.len(), 64);
    // The same again changes nothing.
    assert_eq!(add(&app, &ferries()).await.expect(200), added);
    let got = app.client.get("/v1/datasets/ferries").await.expect(200);
    assert_eq!(got, added);

    let body = json!({"kind": "out_of_domain", "adapters": ["moods"], "shots": [0, 2], "limit": 4});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let on = |dataset: &str| {
        let cells = evaluation["cells"].as_array().unwrap().iter();
        cells
            .filter(|cell| cell["dataset"] == dataset)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(on("ferries").len(), 2, "{evaluation}");
    assert!(
        on("ferries")
            .iter()
            .all(|cell| cell["domain"] == "out" && cell["n"] == 4)
    );
    assert_eq!(on("yelp").len(), 2);
    assert_eq!(evaluation["datasets"]["sentiment/ferries"], digest.as_str());

    let named = json!({"kind": "in_domain", "adapters": ["moods"], "datasets": ["ferries"]});
    let refused = app.client.evaluate(&named).await;
    refused.expect_error(400, "nothing_to_evaluate", &["in-domain"]);

    let tasks = app.client.get("/v1/tasks").await.expect(200);
    let sentiment = tasks["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["id"] == "sentiment");
    let listed = sentiment.unwrap()["datasets"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(
        *listed,
        json!({"id": "ferries", "domain": "out", "examples": 4, "present": true, "uploaded": true})
    );
}

#[tokio::test]
async fn a_data_set_outlives_the_server_until_it_is_removed() {
    let app = App::with_moods().await;
    let added = add(&app, &ferries()).await.expect(201);
    let app = app.restart().await;
    let kept = app.client.get("/v1/datasets/ferries").await.expect(200);
    assert_eq!(kept, added);
    let many = json!({"kind": "matrix", "adapters": ["base", "moods"]});
    let running = app.client.evaluate(&many).await.expect(202);
    let id = running["id"].as_str().unwrap();
    let held = app.client.delete("/v1/datasets/ferries").await;
    held.expect_error(409, "dataset_in_use", &["ferries", id]);
    app.client.cancel_evaluation(id).await;
    assert_eq!(app.client.delete("/v1/datasets/ferries").await.status, 204);
    for reply in [
        app.client.get("/v1/datasets/ferries").await,
        app.client.delete("/v1/datasets/ferries").await,
    ] {
        reply.expect_error(404, "not_found", &["ferries", "/v1/datasets"]);
    }
    let own = app.client.delete("/v1/datasets/amazon").await;
    own.expect_error(409, "dataset_in_use", &["amazon", "experiment"]);
    let app = app.restart().await;
    assert_eq!(app.client.get("/v1/datasets/ferries").await.status, 404);
    let listed = app.client.get("/v1/datasets").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 18);
}

#[tokio::test]
async fn files_come_as_a_form_one_record_a_line() {
    let app = App::start().await;
    let lines = |records: &Value| {
        let lines = records.as_array().unwrap().iter().map(Value::to_string);
        Part::text(lines.collect::<Vec<_>>().join("\n"))
    };
    let form = Form::new()
        .text("name", "ferries")
        .text("task", "sentiment")
        .text("domain", "out")
        .part("examples", lines(&ferries()["examples"]))
        .part("demonstrations", lines(&ferries()["demonstrations"]));
    let added = app.client.post_form("/v1/datasets", form).await.expect(201);
    let other = App::start().await;
    let same = add(&other, &ferries()).await.expect(201);
    assert_eq!(added["digest"], same["digest"]);
    let form = Form::new()
        .text("name", "ferries")
        .text("task", "sentiment")
        .text("domain", "out");
    let refused = app.client.post_form("/v1/datasets", form).await;
    refused.expect_error(400, "missing_field", &["examples"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_data_set_is_named() {
    let app = App::start().await;
    let refusals: [(Value, u16, &str, &[&str]); 9] = [
        (
            with(|body| body["examples"][1] = json!({"input": "a"})),
            422,
            "dataset_missing_field",
            &["record 1", "output"],
        ),
        (
            with(|body| body["examples"][2]["output"] = json!("mixed")),
            422,
            "dataset_unknown_label",
            &["record 2", "mixed", "positive, negative"],
        ),
        (
            with(|body| body["examples"][3]["id"] = json!(1)),
            422,
            "dataset_duplicate_id",
            &["record 3", "record 0"],
        ),
        (
            with(|body| body["examples"][0]["input"] = json!(7)),
            422,
            "dataset_not_a_string",
            &["record 0", "a number", "input"],
        ),
        (
            with(|body| body["demonstrations"][0] = json!({"output": "positive"})),
            422,
            "dataset_missing_field",
            &["demonstrations", "record 0", "input"],
        ),
        (
            with(|body| body["examples"] = json!([])),
            422,
            "dataset_empty",
            &["no examples"],
        ),
        (
            with(|body| body["domain"] = json!("cross")),
            400,
            "invalid_value",
            &["domain", "in or out"],
        ),
        (
            with(|body| body["name"] = json!("../ferries")),
            400,
            "invalid_dataset_name",
            &["../ferries", "letters"],
        ),
        (
            with(|body| body["name"] = json!("amazon")),
            409,
            "dataset_name_taken",
            &["amazon", "experiment"],
        ),
    ];
    for (body, status, code, words) in refusals {
        add(&app, &body).await.expect_error(status, code, words);
    }
    let record = with(|body| body["examples"][1] = json!({"input": "a"}));
    let refused = add(&app, &record).await.json();
    assert_eq!(refused["error"]["param"], "examples[1].output");
    let shown = with(|body| body["demonstrations"][1]["output"] = json!("mixed"));
    let refused = add(&app, &shown).await.json();
    assert_eq!(refused["error"]["param"], "demonstrations[1].output");
    let unknown = with(|body| body["task"] = json!("poetry"));
    assert_eq!(add(&app, &unknown).await.status, 404);
    let broken = app
        .client
        .post_bytes("/v1/datasets", b"{\"name\": ".to_vec())
        .await;
    assert_eq!(broken.status, 400);
    let missing = with(|body| drop(body.as_object_mut().unwrap().remove("examples")));
    add(&app, &missing)
        .await
        .expect_error(400, "missing_field", &["examples"]);
    let listed = app.client.get("/v1/datasets").await.expect(200);
    let uploaded = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|set| set["uploaded"] == true);
    assert_eq!(uploaded.count(), 0);
    // Other content does not take the place of what evaluations were made on.
    add(&app, &ferries()).await.expect(201);
    let other = with(|body| body["examples"][0]["input"] = json!("Another text."));
    add(&app, &other)
        .await
        .expect_error(409, "dataset_name_taken", &["other content"]);
}

#[tokio::test]
async fn a_data_set_over_the_limit_is_refused_and_the_answer_arrives() {
    let app = App::start_with(Options {
        max_dataset_bytes: 4096,
        ..Options::default()
    })
    .await;
    let long = with(|body| body["examples"][0]["input"] = json!("x".repeat(1 << 20)));
    add(&app, &long)
        .await
        .expect_error(413, "body_too_large", &["4096"]);
    let form = Form::new()
        .text("name", "ferries")
        .part("examples", Part::bytes(vec![b'x'; 1 << 20]))
        .text("task", "sentiment")
        .text("domain", "in");
    let refused = app.client.post_form("/v1/datasets", form).await;
    refused.expect_error(413, "body_too_large", &["4096"]);
    add(&app, &ferries()).await.expect(201);
}
