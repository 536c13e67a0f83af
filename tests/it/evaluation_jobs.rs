//! Evaluations as jobs: reports, cancelling, restarts, and users who are served meanwhile.

use serde_json::{Value, json};

use crate::harness::App;

#[tokio::test]
async fn reports_say_what_the_cells_say() {
    let app = App::with_moods().await;
    let body = json!({"kind": "in_domain", "adapters": ["base", "moods"], "datasets": ["amazon"], "shots": [0], "limit": 4});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let id = evaluation["id"].as_str().unwrap();
    let json = app.client.evaluation_report(id, "json").await.expect(200);
    assert_eq!(json["cells"], evaluation["cells"]);
    let csv = app.client.evaluation_report(id, "csv").await;
    assert_eq!(csv.status, 200);
    assert!(csv.header("content-type").unwrap().starts_with("text/csv"));
    let lines: Vec<&str> = csv.body.lines().collect();
    assert_eq!(
        lines.len(),
        1 + evaluation["cells"].as_array().unwrap().len()
    );
    assert!(lines[0].starts_with("adapter,"), "{}", lines[0]);
    let markdown = app.client.evaluation_report(id, "md").await;
    assert_eq!(markdown.status, 200);
    assert!(
        markdown
            .header("content-type")
            .unwrap()
            .starts_with("text/markdown")
    );
    assert!(
        markdown.body.contains("moods") && markdown.body.contains("amazon"),
        "{}",
        markdown.body
    );
    app.client.evaluation_report(id, "html").await.expect_error(
        400,
        "not_supported",
        &["format", "json, csv or md"],
    );
    assert_eq!(app.client.evaluation_report(id, "pdf").await.status, 400);
    assert_eq!(
        app.client
            .evaluation_report("eval_nothing", "json")
            .await
            .status,
        404
    );
}

/// More work than can be done before the next request arrives.
fn endless() -> Value {
    json!({"kind": "matrix", "adapters": ["base", "moods"]})
}

#[tokio::test]
async fn a_cancelled_evaluation_stops_and_stays_on_record() {
    let app = App::with_moods().await;
    let started = app.client.evaluate(&endless()).await.expect(202);
    let id = started["id"].as_str().unwrap();
    let cancelled = app.client.cancel_evaluation(id).await;
    assert_eq!(cancelled.status / 100, 2, "{}", cancelled.body);
    app.client.evaluation_events(id).await;
    let evaluation = app.client.evaluation(id).await.expect(200);
    assert_eq!(evaluation["status"], "cancelled");
    assert!(
        evaluation["progress"]["cells_done"].as_u64()
            < evaluation["progress"]["cells_total"].as_u64(),
        "{}",
        evaluation["progress"]
    );
    app.client.greedy("moods", "The engine is free").await;
}

#[tokio::test]
async fn a_restart_does_not_lose_an_evaluation() {
    let app = App::with_moods().await;
    let finished = json!({"kind": "in_domain", "adapters": ["moods"], "datasets": ["amazon"], "shots": [0], "limit": 2});
    let finished = app.client.evaluate_to_the_end(&finished).await;
    let begun = app.client.evaluate(&endless()).await.expect(202);
    let app = app.restart().await;
    let kept = app
        .client
        .evaluation(finished["id"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(kept["cells"], finished["cells"]);
    let broken = app
        .client
        .evaluation(begun["id"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(broken["status"], "failed", "{broken}");
    assert!(broken.to_string().contains("stopped before"), "{broken}");
}

#[tokio::test]
async fn users_are_served_while_an_evaluation_runs() {
    let app = App::with_moods().await;
    let alone = app.client.greedy("moods", "The weather").await;
    let started = app.client.evaluate(&endless()).await.expect(202);
    let id = started["id"].as_str().unwrap();
    for _ in 0..5 {
        assert_eq!(app.client.greedy("moods", "The weather").await, alone);
    }
    app.client.cancel_evaluation(id).await;
    app.client.evaluation_events(id).await;
}
