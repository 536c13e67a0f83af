//! Cells scored by hand.

use super::{Outputs, ScoreError, score_cell};
use crate::example::{Example, Fields};
use crate::metrics::bootstrap_mean;
use crate::task::{Metric, Task};

fn golds(outputs: &[&str]) -> Vec<Example> {
    let example = |output: &&str| Example {
        fields: Fields::input("unused"),
        output: (*output).to_owned(),
    };
    outputs.iter().map(example).collect()
}

fn texts(texts: &[&str]) -> Outputs {
    Outputs::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn classification_has_accuracy_macro_f1_and_confusion() {
    let golds = golds(&["entailment", "neutral", "entailment", "neutral", "neutral"]);
    let outputs = Outputs::Labels(vec![0, 1, 2, 1, 0]);
    let result = score_cell(Task::Inference, &golds, &outputs, 11).expect("they fit");
    assert_eq!(
        (result.n, result.metric, result.value),
        (5, Metric::Accuracy, 0.6)
    );
    assert_eq!(result.per_example, [1.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(result.ci95, bootstrap_mean(&result.per_example, 11));
    // F1: entailment 2/4, neutral 4/5, contradiction 0.
    let macro_f1 = result.extra["macro_f1"].as_f64().expect("a number");
    assert!((macro_f1 - (0.5 + 0.8) / 3.0).abs() < 1e-12);
    assert_eq!(
        result.extra["confusion"],
        serde_json::json!([[1, 0, 1], [1, 2, 0], [0, 0, 0]])
    );
    assert_eq!(result.extra["labels"][2], "contradiction");
}

#[test]
fn generation_has_rouge_bleu_and_a_count_of_bare_labels() {
    let golds = golds(&[
        "the bridge is open again",
        "who repaired the bridge?",
        "all quiet",
    ]);
    let outputs = texts(&[
        "the bridge is open\n\n### Input:\nthe bridge is open again",
        "Negative.",
        "all quiet",
    ]);
    let result = score_cell(Task::Summary, &golds, &outputs, 11).expect("they fit");
    assert_eq!((result.n, result.metric), (3, Metric::RougeL));
    // 4 words of 4, of 5: 8/9. Nothing after the blank line counts.
    let expected = [8.0 / 9.0, 0.0, 1.0];
    for (score, expected) in result.per_example.iter().zip(expected) {
        assert!((score - expected).abs() < 1e-12, "{:?}", result.per_example);
    }
    assert!((result.value - (8.0 / 9.0 + 1.0) / 3.0).abs() < 1e-12);
    assert_eq!(result.extra["rouge_l"].as_f64(), Some(result.value));
    // Pairs of words: 3 of 3, of 4 gives 6/7; 1 of 1 gives 1.
    let rouge_2 = result.extra["rouge_2"].as_f64().expect("a number");
    assert!((rouge_2 - (6.0 / 7.0 + 1.0) / 3.0).abs() < 1e-12);
    assert_eq!(result.extra["bare_labels"], 1);
    let bleu = result.extra["bleu"].as_f64().expect("a number");
    assert!(bleu > 10.0 && bleu < 100.0, "{bleu}");
}

#[test]
fn a_result_survives_json() {
    let outputs = Outputs::Labels(vec![0, 1, 1]);
    let golds = golds(&["yes", "yes", "no"]);
    let result = score_cell(Task::Detection, &golds, &outputs, 2).expect("they fit");
    let json = serde_json::to_string(&result).expect("plain values");
    assert_eq!(
        serde_json::from_str::<super::CellResult>(&json).expect("as written"),
        result
    );
}

#[test]
fn outputs_that_do_not_fit_are_refused() {
    let refuse = |task, golds: &[Example], outputs| -> ScoreError {
        score_cell(task, golds, &outputs, 0).expect_err("they do not fit")
    };
    let two = golds(&["yes", "no"]);
    insta::assert_snapshot!(refuse(Task::Detection, &two, Outputs::Labels(vec![1])), @"1 outputs for 2 examples of detection");
    insta::assert_snapshot!(refuse(Task::Detection, &two, texts(&["yes", "no"])), @"detection is a classification task and takes label indices");
    insta::assert_snapshot!(refuse(Task::Summary, &two, Outputs::Labels(vec![0, 1])), @"summary is a generation task and takes texts");
    insta::assert_snapshot!(refuse(Task::Detection, &two, Outputs::Labels(vec![0, 2])), @"output 1 is label 2; detection has labels 0 to 1");
    insta::assert_snapshot!(refuse(Task::Sentiment, &two, Outputs::Labels(vec![0, 1])), @r#"example 0 has the gold label "yes"; sentiment has positive, negative"#);
    insta::assert_snapshot!(refuse(Task::Summary, &[], texts(&[])), @"no examples to score for summary");
}
