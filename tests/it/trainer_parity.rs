//! `trainer evaluate` runs the same plan as the server, without one, and finds the same figures.

use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};
use trainer::evaluate::{EvaluateArguments, evaluate};
use trainer::evaluation_card::{CardArguments, card};

use crate::harness::App;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: EvaluateArguments,
}

#[tokio::test]
async fn the_trainer_finds_what_the_server_finds() {
    let app = App::with_moods().await;
    let other = app.moods(2);
    app.client.upload("other", &other).await.expect(201);
    let body = json!({
        "kind": "matrix", "adapters": ["base", "moods"], "against": "other", "tasks": ["sentiment", "question"],
        "shots": [0, 1], "limit": 5, "seed": 3, "label_scoring": "first_token", "calibrate": true
    });
    let served = app.client.evaluate_to_the_end(&body).await;

    let folder = tempfile::tempdir().unwrap();
    let moods = app.moods(1).copy_to(&folder.path().join("moods"));
    let other = other.copy_to(&folder.path().join("other"));
    let out = folder.path().join("out");
    let model = app.base.path.display().to_string();
    let line = [
        "evaluate",
        &moods,
        "--base",
        "--against",
        &other,
        "--model",
        &model,
        "--kind",
        "matrix",
        "--tasks",
        "sentiment,question",
        "--shots",
        "0,1",
        "--limit",
        "5",
        "--seed",
        "3",
        "--label-scoring",
        "first_token",
        "--calibrate",
        "--card",
        "--out",
        &out.display().to_string(),
    ];
    let arguments = Line::parse_from(line).arguments;
    let measured = tokio::task::spawn_blocking(move || evaluate(&arguments).unwrap());
    let markdown = measured.await.unwrap();

    let written = fs_err::read(out.join("evaluation.json")).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["cells"], served["cells"]);
    assert_eq!(written["datasets"], served["datasets"]);
    assert_eq!(
        fs_err::read_to_string(out.join("report.md")).unwrap(),
        markdown
    );
    for report in ["report.csv", "report.html"] {
        assert!(out.join(report).is_file(), "{report}");
    }
    let own = card_of(&folder.path().join("moods"));
    assert!(
        own.contains("## Evaluation") && own.contains("amazon"),
        "{own}"
    );
    cards_of_the_servers_evaluation(&app, folder.path(), &served, &own);
}

fn card_of(adapter: &Path) -> String {
    fs_err::read_to_string(adapter.join("README.md")).unwrap()
}

/// `trainer card` makes of the server's evaluation what `trainer evaluate --card` writes, in the place of what a card had.
fn cards_of_the_servers_evaluation(app: &App, folder: &Path, served: &Value, own: &str) {
    let evaluation = folder.join("served.json");
    fs_err::write(&evaluation, served.to_string()).unwrap();
    let copy = folder.join("copy");
    app.moods(1).copy_to(&copy);
    fs_err::write(copy.join("README.md"), "# Moods\n\n## Evaluation\nold").unwrap();
    let said = own.split('`').nth(1).unwrap();
    let arguments = |adapter: &Path| CardArguments {
        adapter: adapter.to_path_buf(),
        evaluations: vec![evaluation.clone()],
        kernels: own
            .split("kernels: ")
            .nth(1)
            .unwrap()
            .split(')')
            .next()
            .unwrap()
            .to_owned(),
        command: said.to_owned(),
    };
    card(&arguments(&copy)).unwrap();
    assert_eq!(card_of(&copy), format!("# Moods\n\n{own}"));
    let strange = folder.join("strange");
    app.moods(7).copy_to(&strange);
    let error = card(&arguments(&strange)).unwrap_err().to_string();
    assert!(
        error.contains("strange") && error.contains("no cell"),
        "{error}"
    );
    fs_err::write(&evaluation, "[]").unwrap();
    let error = card(&arguments(&copy)).unwrap_err().to_string();
    assert!(
        error.contains("served.json") && error.contains("/v1/evaluations"),
        "{error}"
    );
}
