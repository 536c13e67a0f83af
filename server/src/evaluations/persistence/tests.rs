//! Records on disk, across restarts.

use evaluation::{ModelVersion, PlannedModel, Progress, Scoring};
use tasks::{EvaluationKind, PlanRequest};

use super::*;

fn record(id: &str, status: Status) -> Evaluation {
    Evaluation {
        id: id.to_owned(),
        object: "evaluation".to_owned(),
        status,
        kind: "matrix".to_owned(),
        adapters: vec!["base".to_owned()],
        limit: Some(12),
        seed: 3,
        datasets: [("sentiment/amazon".to_owned(), "ab".repeat(32))].into(),
        created: 1_700_000_000,
        started: Some(1_700_000_001),
        progress: Progress {
            cells_done: 1,
            cells_total: 4,
            examples_done: 12,
            examples_total: 48,
            estimated_seconds_left: Some(3.5),
        },
        scores: vec![Arc::new(CellScores {
            own: vec![1.0, 0.25],
            base: vec![0.0, 0.5],
            measurement: "a1".to_owned(),
            baseline: "b2".to_owned(),
        })],
        plan: Some(Arc::new(plan())),
        ..Evaluation::default()
    }
}

fn plan() -> EvaluationPlan {
    EvaluationPlan {
        request: PlanRequest::new(EvaluationKind::Matrix),
        scoring: Scoring::default(),
        models: vec![PlannedModel {
            model: ModelVersion::adapter("tone", "ab".repeat(32)),
            trained_task: None,
            cells: Vec::new(),
        }],
        against: Some(ModelVersion::base()),
        datasets: Default::default(),
    }
}

#[test]
fn what_was_running_waits_again_after_a_restart_and_what_was_paused_stays_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let statuses = [
        ("eval_1", Status::Completed),
        ("eval_2", Status::Running),
        ("eval_3", Status::Queued),
        ("eval_4", Status::Paused),
    ];
    for (id, status) in statuses {
        write(folder.path(), &record(id, status)).expect("written");
    }
    fs_err::write(folder.path().join("eval_5.json"), "{\"id\": tr").expect("written");
    let loaded = load_all(folder.path()).expect("readable");
    let found: Vec<_> = loaded
        .iter()
        .map(|record| (record.id.as_str(), record.status))
        .collect();
    assert_eq!(
        found,
        [
            ("eval_1", Status::Completed),
            ("eval_2", Status::Queued),
            ("eval_3", Status::Queued),
            ("eval_4", Status::Paused)
        ]
    );
    assert_eq!(loaded[0], record("eval_1", Status::Completed));
    // It is on disk too, not only in memory.
    let again = load_all(folder.path()).expect("readable");
    assert_eq!(again, loaded);
}

#[test]
fn a_record_without_a_plan_cannot_be_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let earlier = Evaluation {
        plan: None,
        ..record("eval_2", Status::Running)
    };
    write(folder.path(), &earlier).expect("written");
    let loaded = load_all(folder.path()).expect("readable");
    assert_eq!(loaded[0].status, Status::Failed);
    let reason = loaded[0].error.as_deref();
    assert!(reason.is_some_and(|reason| reason.contains("stopped")));
    assert_eq!(loaded[0].progress.examples_done, 12);
}
