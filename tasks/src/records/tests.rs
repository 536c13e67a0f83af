//! Records from JSON, good and bad. Every error names the file and, where there is one, the record.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::{Ids, parse};
use crate::example::Fields;
use crate::task::Task;

fn examples(task: Task, json: &str) -> Vec<(Fields, String)> {
    let records =
        parse(task, Path::new("d/set.json"), json.as_bytes(), Ids::Ignored).expect("well-formed");
    let pairs = records.examples.into_iter();
    pairs
        .map(|example| (example.fields, example.output))
        .collect()
}

fn complaint(task: Task, json: &[u8]) -> String {
    let error = parse(task, Path::new("d/set.json"), json, Ids::Ignored).expect_err("it is bad");
    format!("{}: {error}", error.code())
}

#[test]
fn takes_the_fields_of_the_task_and_passes_over_others() {
    let json =
        r#"[{"idx": 3, "input": "Kim slept.", "answer": "tired", "output": "How was Kim?"}]"#;
    assert_eq!(
        examples(Task::Question, json),
        [(
            Fields::from([("input", "Kim slept."), ("answer", "tired")]),
            "How was Kim?".to_owned()
        )]
    );
    assert_eq!(
        examples(Task::Summary, json),
        [(Fields::input("Kim slept."), "How was Kim?".to_owned())]
    );
}

#[test]
fn drops_and_counts_records_without_a_gold_label() {
    let json = r#"[
        {"input_1": "a", "input_2": "b", "output": "-"},
        {"input_1": "c", "input_2": "d", "output": "neutral"},
        {"input_1": "e", "input_2": "f", "output": "-"}
    ]"#;
    let records = parse(
        Task::Inference,
        Path::new("x"),
        json.as_bytes(),
        Ids::Ignored,
    )
    .expect("one is usable");
    assert_eq!(records.dropped, 2);
    assert_eq!(records.examples.len(), 1);
    assert_eq!(records.examples[0].fields.get("input_2"), Some("d"));
}

#[test]
fn a_dash_is_a_text_like_any_other_in_a_generation_task() {
    let json = r#"[{"input": "a long rule", "output": "-"}]"#;
    assert_eq!(examples(Task::Summary, json)[0].1, "-");
}

#[test]
fn names_the_record_of_broken_json() {
    let cut = br#"[{"input": "a", "output": "positive"}, {"input": "b", "out"#;
    insta::assert_snapshot!(complaint(Task::Sentiment, cut), @"dataset_malformed: d/set.json: record 1 not valid: EOF while parsing a string at line 1 column 58; expected a JSON list of objects, or one object a line");
    let no_object =
        br#"[{"input": "a", "output": "positive"}, {"input": "b", "output": "negative"}, 7]"#;
    insta::assert_snapshot!(complaint(Task::Sentiment, no_object), @"dataset_malformed: d/set.json: record 2 not valid: invalid type: integer `7`, expected a map at line 1 column 78; expected a JSON list of objects, or one object a line");
    let not_utf8 = b"[{\"input\": \"\xff\", \"output\": \"positive\"}]";
    insta::assert_snapshot!(complaint(Task::Sentiment, not_utf8), @"dataset_malformed: d/set.json: record 0 not valid: invalid unicode code point at line 1 column 13; expected a JSON list of objects, or one object a line");
}

#[test]
fn names_no_record_where_there_is_none() {
    insta::assert_snapshot!(complaint(Task::Sentiment, b" \n"), @r#"dataset_empty: d/set.json: no examples (0 dropped for the gold label "-")"#);
    insta::assert_snapshot!(complaint(Task::Sentiment, b"7"), @"dataset_malformed: d/set.json: not valid: invalid type: integer `7`, expected a list of objects at line 1 column 1; expected a JSON list of objects, or one object a line");
    let trailing = br#"[{"input": "a", "output": "positive"}] more"#;
    insta::assert_snapshot!(complaint(Task::Sentiment, trailing), @"dataset_malformed: d/set.json: not valid: trailing characters at line 1 column 40; expected a JSON list of objects, or one object a line");
}

#[test]
fn names_missing_and_mistyped_fields() {
    let missing =
        br#"[{"input_1": "a", "input_2": "b", "output": "yes"}, {"input_1": "c", "output": "no"}]"#;
    insta::assert_snapshot!(complaint(Task::Detection, missing), @r#"dataset_missing_field: d/set.json: record 1 has no field "input_2"; detection records have input_1, input_2, output"#);
    let no_output = br#"[{"input": "c", "answer": "d"}]"#;
    insta::assert_snapshot!(complaint(Task::Question, no_output), @r#"dataset_missing_field: d/set.json: record 0 has no field "output"; question records have input, answer, output"#);
    let number = br#"[{"input": "c", "output": 1}]"#;
    insta::assert_snapshot!(complaint(Task::Sentiment, number), @r#"dataset_not_a_string: d/set.json: record 0 has a number in field "output"; expected a string"#);
}

#[test]
fn names_unknown_labels() {
    let json = br#"[{"input": "a", "output": "positive"}, {"input": "b", "output": "Positive"}]"#;
    insta::assert_snapshot!(complaint(Task::Sentiment, json), @r#"dataset_unknown_label: d/set.json: record 1 has the label "Positive"; sentiment has positive, negative"#);
}

#[test]
fn refuses_a_file_without_usable_examples() {
    insta::assert_snapshot!(complaint(Task::Sentiment, b"[]"), @r#"dataset_empty: d/set.json: no examples (0 dropped for the gold label "-")"#);
    let dashes = br#"[{"input": "a", "output": "-"}, {"input": "b", "output": "-"}]"#;
    insta::assert_snapshot!(complaint(Task::Sentiment, dashes), @r#"dataset_empty: d/set.json: no examples (2 dropped for the gold label "-")"#);
}

proptest! {
    #[test]
    fn never_panics(json in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(Task::Question, Path::new("x"), &json, Ids::Ignored);
    }

    #[test]
    fn keeps_any_text_verbatim(texts in proptest::collection::vec(("\\PC{0,20}\n?", "\\PC{0,20}"), 1..6)) {
        let list: Vec<_> = texts.iter().map(|(input, output)| json!({"input": input, "output": output})).collect();
        let json = serde_json::to_string(&list).expect("plain values");
        let expected: Vec<_> = texts.into_iter().map(|(input, output)| (Fields::input(input), output)).collect();
        prop_assert_eq!(examples(Task::Summary, &json), expected);
    }

    #[test]
    fn a_cut_file_is_refused_in_the_record_it_is_cut_in(share in 0.0..1.0_f64) {
        let record = r#"{"input": "words", "output": "positive"}"#;
        let json = format!("[{record},{record},{record},{record}]");
        let cut = (share * (json.len() - 1) as f64) as usize;
        // A comma after record i promises record i + 1, so the cut lies in the record of the last comma.
        let expected = (cut > 0).then(|| cut.saturating_sub(1) / (record.len() + 1));
        match parse(Task::Sentiment, Path::new("x"), &json.as_bytes()[..cut], Ids::Ignored) {
            Err(crate::DataError::Malformed { record, .. }) if cut > 0 => {
                let record = record.expect("the list has begun");
                let expected = expected.expect("the list has begun");
                prop_assert!(record == expected || record == expected + 1, "{record} for {expected}");
            }
            Err(crate::DataError::Empty { .. }) => prop_assert_eq!(cut, 0),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
