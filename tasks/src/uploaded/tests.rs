//! Users' data sets, good and bad. Every refusal names the part, the record and the field.

use proptest::prelude::*;

use super::*;
use crate::example::Fields;

fn parse(examples: &str) -> Result<UploadedDataset, DataError> {
    let role = (Task::Sentiment, Domain::Out);
    UploadedDataset::parse("mine", role, examples.as_bytes(), None)
}

fn refuse(examples: &str) -> String {
    let error = parse(examples).expect_err("it is bad");
    format!(
        "{} {}: {error}",
        error.code(),
        error.blame().unwrap_or_default()
    )
}

#[test]
fn a_list_and_a_line_for_each_record_are_the_same() {
    let list = r#"[{"id": 1, "input": "good", "output": "positive"}, {"id": 2, "input": "bad", "output": "negative"}]"#;
    let lines = "{\"id\": 1, \"input\": \"good\", \"output\": \"positive\"}\n\n{\"id\": 2, \"input\": \"bad\", \"output\": \"negative\"}\r\n";
    let (list, lines) = (parse(list).expect("a list"), parse(lines).expect("lines"));
    assert_eq!(list, lines);
    assert_eq!(list.examples[1].fields, Fields::input("bad"));
    assert_eq!(list.digest(), lines.digest());
    let other = parse(r#"[{"input": "good", "output": "positive"}]"#).expect("one");
    assert_ne!(list.digest(), other.digest());
}

#[test]
fn what_is_wrong_is_named_with_its_record_and_field() {
    insta::assert_snapshot!(refuse(""), @r#"dataset_empty examples: examples: no examples (0 dropped for the gold label "-")"#);
    insta::assert_snapshot!(refuse("[]"), @r#"dataset_empty examples: examples: no examples (0 dropped for the gold label "-")"#);
    insta::assert_snapshot!(refuse("<html>"), @"dataset_malformed examples: examples: not valid: expected value at line 1 column 1; expected a JSON list of objects, or one object a line");
    insta::assert_snapshot!(refuse(r#"[{"input": "a", "output": "positive"}, 7]"#), @"dataset_malformed examples[1]: examples: record 1 not valid: invalid type: integer `7`, expected a map at line 1 column 40; expected a JSON list of objects, or one object a line");
    insta::assert_snapshot!(refuse("{\"input\": \"a\", \"output\": \"positive\"}\n{\"input\": "), @"dataset_malformed examples[1]: examples: record 1 not valid: EOF while parsing a value at line 2 column 10; expected a JSON list of objects, or one object a line");
    insta::assert_snapshot!(refuse(r#"[{"input": "a", "output": "positive"}, {"text": "a", "output": "positive"}]"#), @r#"dataset_missing_field examples[1].input: examples: record 1 has no field "input"; sentiment records have input, output"#);
    insta::assert_snapshot!(refuse(r#"[{"input": 5, "output": "positive"}]"#), @r#"dataset_not_a_string examples[0].input: examples: record 0 has a number in field "input"; expected a string"#);
    insta::assert_snapshot!(refuse(r#"[{"input": "a", "output": "neutral"}]"#), @r#"dataset_unknown_label examples[0].output: examples: record 0 has the label "neutral"; sentiment has positive, negative"#);
    insta::assert_snapshot!(refuse(r#"[{"id": "x", "input": "a", "output": "positive"}, {"id": "y", "input": "b", "output": "positive"}, {"id": "x", "input": "c", "output": "positive"}]"#), @r#"dataset_duplicate_id examples[2].id: examples: record 2 has the id "x", which record 0 has too; ids must differ"#);
    insta::assert_snapshot!(refuse(r#"[{"idx": 3, "input": "a", "output": "positive"}, {"idx": 3, "input": "b", "output": "positive"}]"#), @r#"dataset_duplicate_id examples[1].idx: examples: record 1 has the idx 3, which record 0 has too; ids must differ"#);
}

#[test]
fn names_and_roles_are_checked() {
    let one = br#"[{"input": "a", "output": "positive"}]"#;
    let parse = |name: &str, domain| {
        let parsed = UploadedDataset::parse(name, (Task::Sentiment, domain), one, None);
        parsed.err().map(|error| error.to_string())
    };
    assert_eq!(parse("my-set_1.0", Domain::In), None);
    for name in ["", ".hidden", "a/b", "ü", &"x".repeat(65)] {
        let refused = parse(name, Domain::In).expect("a bad name");
        assert!(refused.contains("letters, digits"), "{refused}");
    }
    let refused = parse("mine", Domain::Cross).expect("no role of a data set");
    assert!(refused.contains("in or out"), "{refused}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = UploadedDataset::parse("mine", (Task::Inference, Domain::In), &bytes, Some(&bytes));
    }

    #[test]
    fn any_text_in_a_record_is_kept_as_it_is(text in ".{0,40}") {
        let json = serde_json::json!([{"input": text, "output": "negative"}]).to_string();
        let parsed = UploadedDataset::parse("mine", (Task::Sentiment, Domain::In), json.as_bytes(), None);
        let parsed = parsed.expect("well-formed");
        prop_assert_eq!(parsed.examples[0].fields.get("input"), Some(text.as_str()));
    }
}
