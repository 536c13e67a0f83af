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
    let page = app.client.evaluation_report(id, "html").await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(
        page.header("content-security-policy"),
        Some("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    );
    assert!(
        page.body.contains("moods") && page.body.contains("amazon"),
        "{}",
        page.body
    );
    app.client.evaluation_report(id, "pdf").await.expect_error(
        400,
        "invalid_value",
        &["format", "json, csv, md or html"],
    );
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

/// Some seconds of work in several cells.
fn several_cells() -> Value {
    json!({"kind": "matrix", "adapters": ["base", "moods"], "tasks": ["sentiment", "question"], "shots": [0, 1]})
}

fn cells_done(evaluation: &Value) -> u64 {
    evaluation["progress"]["cells_done"].as_u64().unwrap()
}

#[tokio::test]
async fn a_restart_goes_on_with_an_evaluation_and_finds_the_same_figures() {
    let app = App::with_moods().await;
    let whole = app.client.evaluate_to_the_end(&several_cells()).await;
    let begun = app.client.evaluate(&several_cells()).await.expect(202);
    let app = app.restart().await;
    let kept = app
        .client
        .evaluation(whole["id"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(kept["cells"], whole["cells"]);
    let id = begun["id"].as_str().unwrap();
    let before = app
        .client
        .evaluation_once(id, |now| cells_done(now) >= 3)
        .await;
    assert!(before["finished"].is_null(), "{before}");
    let app = app.restart().await;
    app.client.evaluation_events(id).await;
    let resumed = app.client.evaluation(id).await.expect(200);
    assert_eq!(resumed["status"], "completed", "{resumed}");
    assert_eq!(resumed["cells"], whole["cells"]);
    assert_eq!(
        resumed["progress"]["examples_done"],
        whole["progress"]["examples_done"]
    );
    assert_eq!(resumed["progress"]["estimated_seconds_left"], Value::Null);
}

#[tokio::test]
async fn a_paused_evaluation_lets_others_pass_and_goes_on_where_it_was() {
    let app = App::with_moods().await;
    let whole = App::with_moods().await;
    let whole = whole.client.evaluate_to_the_end(&several_cells()).await;
    let begun = app.client.evaluate(&several_cells()).await.expect(202);
    let id = begun["id"].as_str().unwrap();
    app.client
        .evaluation_once(id, |now| cells_done(now) >= 2)
        .await;
    let paused = app.client.pause_evaluation(id).await.expect(200);
    assert_eq!(paused["status"], "paused");
    assert!(cells_done(&paused) >= 2, "{paused}");
    // Asked twice, it is paused all the same.
    app.client.pause_evaluation(id).await.expect(200);
    let other = json!({"kind": "in_domain", "adapters": ["moods"], "datasets": ["amazon"], "shots": [0], "limit": 2});
    let other = app.client.evaluate_to_the_end(&other).await;
    assert_eq!(other["status"], "completed");
    // A pause outlives the server.
    let app = app.restart().await;
    let still = app.client.evaluation(id).await.expect(200);
    assert_eq!(still["status"], "paused");
    let resumed = app.client.resume_evaluation(id).await.expect(200);
    assert_ne!(resumed["status"], "paused");
    app.client.evaluation_events(id).await;
    let ended = app.client.evaluation(id).await.expect(200);
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["cells"], whole["cells"]);
    for reply in [
        app.client.pause_evaluation(id).await,
        app.client.resume_evaluation(id).await,
    ] {
        reply.expect_error(409, "evaluation_ended", &["completed", id]);
    }
    let unknown = app.client.pause_evaluation("eval_nothing").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn time_is_told_by_stage() {
    let app = App::with_moods().await;
    let evaluation = app.client.evaluate_to_the_end(&several_cells()).await;
    let seconds = |stage: &str| {
        evaluation["stages"][format!("{stage}_seconds")]
            .as_f64()
            .unwrap()
    };
    for stage in [
        "preparing",
        "classification",
        "generation",
        "scoring",
        "saving",
    ] {
        assert!(seconds(stage) > 0.0, "{stage}: {}", evaluation["stages"]);
    }
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
