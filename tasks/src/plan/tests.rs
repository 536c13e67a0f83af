//! Plans over a folder that holds every data set.

use tempfile::TempDir;

use super::{Cell, EvaluationKind, PlanError, PlanRequest, baseline_cells, plan};
use crate::catalog::Catalog;
use crate::dataset::Domain;
use crate::sample_data::{records, write_everything, write_records};
use crate::task::Task;

fn catalog() -> (TempDir, Catalog) {
    let root = tempfile::tempdir().expect("a temporary folder");
    write_everything(root.path());
    let catalog = Catalog::open(Some(root.path())).expect("just written");
    (root, catalog)
}

fn request(kind: EvaluationKind) -> PlanRequest {
    PlanRequest::new(kind)
}

fn planned(request: &PlanRequest, trained_task: Option<Task>) -> Vec<Cell> {
    let (_root, catalog) = catalog();
    plan(request, trained_task, &catalog).expect("possible")
}

fn refused(request: &PlanRequest, trained_task: Option<Task>) -> PlanError {
    let (_root, catalog) = catalog();
    plan(request, trained_task, &catalog).expect_err("impossible")
}

/// `task/dataset domain shots prompt`, cells that differ in shots alone on one line.
fn table(cells: &[Cell]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut last = String::new();
    for cell in cells {
        let key = format!(
            "{}/{} {} prompt {} shots",
            cell.task, cell.dataset, cell.domain, cell.prompt
        );
        match lines.last_mut() {
            Some(line) if key == last => line.push_str(&format!(" {}", cell.shots)),
            _ => lines.push(format!("{key} {}", cell.shots)),
        }
        last = key;
    }
    lines.join("\n")
}

#[test]
fn in_and_out_of_domain_take_the_adapters_own_task_with_every_number_of_shots() {
    let cells = planned(&request(EvaluationKind::InDomain), Some(Task::Inference));
    insta::assert_snapshot!(table(&cells), @r#"
    inference/multinli in prompt 0 shots 0 3 5 7
    inference/multinli2 in prompt 0 shots 0 3 5 7
    "#);
    let cells = planned(&request(EvaluationKind::OutOfDomain), Some(Task::Summary));
    insta::assert_snapshot!(table(&cells), @r#"
    summary/pdfs out prompt 0 shots 0 1 2 4
    summary/cnn out prompt 0 shots 0 1 2 4
    "#);
}

#[test]
fn cross_task_takes_the_other_tasks_training_domains_and_never_generation_without_demonstrations() {
    let cells = planned(&request(EvaluationKind::CrossTask), Some(Task::Sentiment));
    insta::assert_snapshot!(table(&cells), @r#"
    summary/xsum cross prompt 0 shots 1 2 4
    question/socialqa cross prompt 0 shots 1 2 4
    detection/paws cross prompt 0 shots 0 2 4 6
    inference/multinli cross prompt 0 shots 0 3 5 7
    "#);
}

#[test]
fn a_matrix_is_all_three() {
    let of = |kind| planned(&request(kind), Some(Task::Question));
    let mut parts = of(EvaluationKind::InDomain);
    parts.extend(of(EvaluationKind::OutOfDomain));
    parts.extend(of(EvaluationKind::CrossTask));
    let matrix = of(EvaluationKind::Matrix);
    assert_eq!(matrix.len(), parts.len());
    assert!(parts.iter().all(|cell| matrix.contains(cell)));
}

#[test]
fn a_model_without_a_task_is_measured_as_each_tasks_adapter_would_be() {
    let cells = planned(&request(EvaluationKind::InDomain), None);
    let own = Task::ALL.map(|task| planned(&request(EvaluationKind::InDomain), Some(task)));
    assert_eq!(cells, own.concat());
    let matrix = planned(&request(EvaluationKind::Matrix), None);
    assert_eq!(matrix.len(), 18 * 4);
    assert!(matrix.iter().all(|cell| cell.domain != Domain::Cross));
}

#[test]
fn a_model_without_a_task_has_cross_tasks_only_when_they_are_named() {
    let mut request = request(EvaluationKind::CrossTask);
    let error = refused(&request, None);
    insta::assert_snapshot!(error, @"a cross-task evaluation of a model with no task of its own needs `tasks`: name the tasks to evaluate it on");
    assert_eq!(error.code(), "no_own_task");
    request.tasks = Some(vec![Task::Detection, Task::Summary]);
    insta::assert_snapshot!(table(&planned(&request, None)), @r#"
    summary/xsum cross prompt 0 shots 1 2 4
    detection/paws cross prompt 0 shots 0 2 4 6
    "#);
}

#[test]
fn the_request_narrows_and_overrides() {
    let mut request = request(EvaluationKind::CrossTask);
    request.tasks = Some(vec![Task::Summary, Task::Sentiment]);
    request.datasets = Some(["cnn", "yelp", "xsum"].map(str::to_owned).to_vec());
    request.shots = Some(vec![2, 0, 2]);
    request.prompts = Some(vec![1, 0]);
    let cells = planned(&request, Some(Task::Sentiment));
    let cells = cells.iter().map(|cell| {
        format!(
            "{} {} shots {} prompt {}",
            cell.dataset, cell.domain, cell.shots, cell.prompt
        )
    });
    assert_eq!(
        cells.collect::<Vec<_>>(),
        [
            "xsum cross shots 2 prompt 1",
            "xsum cross shots 2 prompt 0",
            "xsum cross shots 0 prompt 1",
            "xsum cross shots 0 prompt 0",
            "cnn cross shots 2 prompt 1",
            "cnn cross shots 2 prompt 0",
            "cnn cross shots 0 prompt 1",
            "cnn cross shots 0 prompt 0",
        ]
    );
}

#[test]
fn the_limit_keeps_the_first_examples() {
    let (_root, catalog) = catalog();
    let mut request = request(EvaluationKind::InDomain);
    let all = catalog.test(Task::Detection, "paws").expect("written");
    assert_eq!(request.limited(all.clone()), all);
    request.limit = Some(2);
    assert_eq!(request.limited(all.clone()), all[..2]);
    request.limit = Some(99);
    assert_eq!(request.limited(all.clone()), all);
}

#[test]
fn contradictory_requests_are_refused() {
    let own = Some(Task::Sentiment);
    let complaint = |change: fn(&mut PlanRequest)| {
        let mut request = request(EvaluationKind::OutOfDomain);
        change(&mut request);
        let error = refused(&request, own);
        format!("{}: {error}", error.code())
    };
    insta::assert_snapshot!(complaint(|request| request.tasks = Some(vec![Task::Summary])), @"nothing_to_evaluate: nothing to evaluate for an adapter of sentiment: the named tasks and data sets leave no out-of-domain data set");
    insta::assert_snapshot!(complaint(|request| request.datasets = Some(vec!["amazon".to_owned()])), @"nothing_to_evaluate: nothing to evaluate for an adapter of sentiment: the named tasks and data sets leave no out-of-domain data set");
    insta::assert_snapshot!(complaint(|request| request.datasets = Some(vec!["imdb".to_owned()])), @r#"unknown_dataset: no task has a data set "imdb"; the data sets are xsum, xlsum, pdfs, cnn, socialqa, tweetqa, sciqa, amazon, amazonfood, yelp, sst2, paws, qqp, stsb, multinli, multinli2, rte, gptnli"#);
    insta::assert_snapshot!(complaint(|request| request.shots = Some(Vec::new())), @"empty_list: shots is an empty list; leave it out for the default");
    insta::assert_snapshot!(complaint(|request| request.prompts = Some(vec![0, 2])), @"unknown_prompt: there is no prompt 2; the prompts are 0 to 1");
    insta::assert_snapshot!(complaint(|request| request.limit = Some(0)), @"zero_limit: limit is 0; it must be at least 1");
}

#[test]
fn missing_demonstrations_are_found_before_anything_runs() {
    let (root, catalog) = catalog();
    let few = records(Task::Sentiment, "few", 3);
    write_records(root.path(), Task::Sentiment, "few_shot/sst2_few_shot", &few);
    let mut request = request(EvaluationKind::OutOfDomain);
    let error = plan(&request, Some(Task::Sentiment), &catalog).expect_err("six are wanted");
    let message = error
        .to_string()
        .replace(&root.path().display().to_string(), "DIR");
    insta::assert_snapshot!(message, @"DIR/sentiment/few_shot/sst2_few_shot.json: 6 demonstrations wanted, the file has 3");
    assert_eq!(error.code(), "too_few_demonstrations");
    request.shots = Some(vec![3]);
    assert_eq!(
        plan(&request, Some(Task::Sentiment), &catalog)
            .expect("three will do")
            .len(),
        2
    );
}

#[test]
fn the_baseline_measures_each_cell_once() {
    let first = planned(&request(EvaluationKind::CrossTask), Some(Task::Sentiment));
    let second = planned(&request(EvaluationKind::CrossTask), Some(Task::Inference));
    let cells = baseline_cells([first.as_slice(), &second, &first]);
    // Both have summary, question (3 cells each) and detection (4); each has the other's task (4).
    assert_eq!((first.len(), second.len(), cells.len()), (14, 14, 18));
    assert_eq!(cells[..14], first);
}

#[test]
fn a_request_in_json_needs_its_kind_alone() {
    let request: PlanRequest =
        serde_json::from_str(r#"{"kind": "out_of_domain"}"#).expect("a kind");
    assert_eq!(request, PlanRequest::new(EvaluationKind::OutOfDomain));
}

#[test]
fn a_users_data_set_takes_part_as_far_as_its_demonstrations_go() {
    let (_root, catalog) = catalog();
    let role = (Task::Sentiment, Domain::Out);
    let json = serde_json::to_vec(&records(Task::Sentiment, "mine", 3)).expect("plain JSON");
    let shown = serde_json::to_vec(&records(Task::Sentiment, "shown", 2)).expect("plain JSON");
    let mine = crate::UploadedDataset::parse("mine", role, &json, Some(&shown));
    assert!(catalog.add(mine.expect("well-formed")).expect("new"));
    let out = request(EvaluationKind::OutOfDomain);
    let cells = plan(&out, Some(Task::Sentiment), &catalog).expect("possible");
    insta::assert_snapshot!(table(&cells), @r"
    sentiment/yelp out prompt 0 shots 0 2 4 6
    sentiment/sst2 out prompt 0 shots 0 2 4 6
    sentiment/mine out prompt 0 shots 0 2
    ");
    let inside = request(EvaluationKind::InDomain);
    let cells = plan(&inside, Some(Task::Sentiment), &catalog).expect("possible");
    assert!(cells.iter().all(|cell| cell.dataset != "mine"));
    let named = PlanRequest {
        datasets: Some(vec!["mine".to_owned()]),
        ..out
    };
    let cells = plan(&named, Some(Task::Detection), &catalog);
    assert!(cells.is_err(), "out of domain is of its own task");
    let cells = plan(&named, Some(Task::Sentiment), &catalog).expect("possible");
    assert_eq!(table(&cells), "sentiment/mine out prompt 0 shots 0 2");
    let asked_for = PlanRequest {
        shots: Some(vec![4]),
        ..named
    };
    let error = plan(&asked_for, Some(Task::Sentiment), &catalog).expect_err("too many");
    insta::assert_snapshot!(error, @"uploaded/mine: 4 demonstrations wanted, the file has 2");
}
