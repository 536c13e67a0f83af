use std::sync::Arc;

use evaluation::{CellScores, Verdict};
use serde_json::json;

use super::*;

fn version(digit: char) -> Version {
    digit.to_string().repeat(64).parse().expect("64 hex digits")
}

/// A cell and the scores behind it.
fn cell(
    version: &Version,
    (domain, metric, dataset): (&str, &str, &str),
    [own, base]: [&[f64]; 2],
) -> (CellReport, Arc<CellScores>) {
    let report = CellReport {
        adapter: "tone".to_owned(),
        version: Some(version.to_string()),
        trained_task: Some("sentiment".to_owned()),
        task: "sentiment".to_owned(),
        dataset: dataset.to_owned(),
        domain: domain.to_owned(),
        shots: 0,
        prompt: 0,
        n: own.len(),
        metric: metric.to_owned(),
        value: mean(own),
        ci95: [0.0, 1.0],
        baseline: mean(base),
        delta: mean(own) - mean(base),
        verdict: Verdict::default(),
        against: None,
        extra: json!({}),
    };
    let scores = CellScores {
        own: own.to_vec(),
        base: base.to_vec(),
        measurement: String::new(),
        baseline: String::new(),
    };
    (report, Arc::new(scores))
}

fn evaluation(measured: Vec<(CellReport, Arc<CellScores>)>) -> Evaluation {
    let (cells, scores) = measured.into_iter().unzip();
    Evaluation {
        id: "eval_1".to_owned(),
        object: "evaluation".to_owned(),
        status: Status::Completed,
        kind: "matrix".to_owned(),
        adapters: vec!["tone".to_owned()],
        cells,
        scores,
        ..Evaluation::default()
    }
}

fn gate(kind: GateKind, against: Against, min_delta: f64) -> Gate {
    Gate {
        evaluation: Some("eval_1".to_owned()),
        metric: GateMetric::Accuracy,
        kind,
        min_delta,
        against,
    }
}

const IN: (&str, &str, &str) = ("in", "accuracy", "amazon");
const OUT: (&str, &str, &str) = ("out", "accuracy", "yelp");
const ALSO_OUT: (&str, &str, &str) = ("out", "accuracy", "sst2");
const TEXTS: (&str, &str, &str) = ("out", "rouge_l", "cnn");
const RIGHT: [f64; 4] = [1.0; 4];
const WRONG: [f64; 4] = [0.0; 4];
const HALF: [f64; 4] = [1.0, 1.0, 0.0, 0.0];

/// Version b is better than a in domain and worse out of it.
fn two_versions() -> Evaluation {
    let (a, b) = (version('a'), version('b'));
    evaluation(vec![
        cell(&b, IN, [&RIGHT, &WRONG]),
        cell(&a, IN, [&WRONG, &WRONG]),
        cell(&b, OUT, [&WRONG, &WRONG]),
        cell(&b, ALSO_OUT, [&HALF, &HALF]),
        cell(&b, TEXTS, [&RIGHT, &WRONG]),
        cell(&a, OUT, [&RIGHT, &WRONG]),
        cell(&a, ALSO_OUT, [&HALF, &HALF]),
    ])
}

#[test]
fn what_counts_is_the_mean_over_the_examples_of_one_kind_and_metric() {
    let judged = |kind, against, min_delta| {
        gate(kind, against, min_delta)
            .judge(&two_versions(), &version('b'), &version('a'))
            .expect("measured")
    };
    let inside = judged(GateKind::InDomain, Against::Active, 0.5);
    assert!(inside.passed);
    assert_eq!((inside.delta, inside.delta_ci95), (1.0, [1.0, 1.0]));
    let outside = judged(GateKind::OutOfDomain, Against::Active, -0.1);
    assert!(!outside.passed);
    // Of eight examples four became wrong, and four stayed as they were.
    assert_eq!((outside.value, outside.reference), (0.25, 0.75));
    assert_eq!(
        (outside.delta, outside.n, outside.cells.len()),
        (-0.5, 8, 2)
    );
    let [low, high] = outside.delta_ci95;
    assert!((-1.0..-0.5).contains(&low) && (-0.5..=0.0).contains(&high));
    assert_eq!(outside.against_version, Some(version('a').to_string()));
    let base = judged(GateKind::OutOfDomain, Against::Base, 0.0);
    assert!(base.passed, "as good as the base everywhere");
    assert_eq!((base.delta, base.against_version), (0.0, None));
}

#[test]
fn the_lower_end_of_the_interval_decides_not_the_mean() {
    let b = version('b');
    let own = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0];
    let base = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
    let found = evaluation(vec![cell(&b, IN, [&own, &base])]);
    let report = gate(GateKind::InDomain, Against::Base, 0.0)
        .judge(&found, &b, &b)
        .expect("measured");
    assert!(report.delta > 0.1 && report.delta_ci95[0] < 0.0);
    assert!(!report.passed);
    assert!(
        report.to_string().contains("on 6 examples in 1 cells"),
        "{report}"
    );
}

#[test]
fn a_version_under_two_names_counts_once() {
    let b = version('b');
    let twice = evaluation(vec![
        cell(&b, IN, [&HALF, &WRONG]),
        cell(&b, IN, [&HALF, &WRONG]),
    ]);
    let report = gate(GateKind::InDomain, Against::Base, 0.0).judge(&twice, &b, &b);
    assert_eq!(report.expect("measured").n, 4);
}

#[test]
fn what_the_evaluation_does_not_tell_is_said() {
    let (a, b, c) = (version('a'), version('b'), version('c'));
    let code = |error: GateError| format!("{error:?}").split(' ').next().map(str::to_owned);
    let refused = |gate: Gate, found: &Evaluation, version: &Version, active: &Version| {
        code(gate.judge(found, version, active).expect_err("not told"))
    };
    let base = |kind| gate(kind, Against::Base, 0.0);
    let found = two_versions();
    let missing = refused(base(GateKind::CrossTask), &found, &b, &a);
    assert_eq!(missing.as_deref(), Some("NotMeasured"));
    let unknown = refused(base(GateKind::InDomain), &found, &c, &a);
    assert_eq!(unknown.as_deref(), Some("NotMeasured"));
    let active = gate(GateKind::InDomain, Against::Active, 0.0);
    let other = refused(active, &found, &b, &c);
    assert_eq!(other.as_deref(), Some("NotCompared"));
    let mut old = two_versions();
    old.scores.clear();
    let old = refused(base(GateKind::InDomain), &old, &b, &a);
    assert_eq!(old.as_deref(), Some("NoScores"));
    let mut running = two_versions();
    running.status = Status::Running;
    let running = refused(base(GateKind::InDomain), &running, &b, &a);
    assert_eq!(running.as_deref(), Some("NotCompleted"));
}
