//! The catalog over folders written by the tests, over a broken folder, and over the built-in data.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::Catalog;
use crate::data_error::DataError;
use crate::example::Fields;
use crate::sample_data::{
    DEMONSTRATIONS, TEST_EXAMPLES, records, write_everything, write_file, write_records,
};
use crate::task::{Kind, Task};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(root: &Path) -> Catalog {
    Catalog::open(Some(root)).expect("a usable folder")
}

/// The message with the temporary folder's name replaced.
fn complaint(root: &Path, error: DataError) -> String {
    let message = error
        .to_string()
        .replace(&root.display().to_string(), "DIR");
    format!("{}: {message}", error.code())
}

#[test]
fn reads_every_data_set_of_a_folder() {
    let root = folder();
    write_everything(root.path());
    let catalog = open(root.path());
    for task in Task::ALL {
        for role in task.datasets() {
            assert!(catalog.present(task, role.id));
            assert_eq!(catalog.size(task, role.id), TEST_EXAMPLES);
            let examples = catalog.test(task, role.id).expect("written");
            let first = task.fields()[0];
            assert_eq!(
                examples[4].fields.get(first),
                Some(format!("{} {first} 4", role.id).as_str())
            );
        }
    }
}

#[test]
fn demonstrations_are_the_first_of_the_data_sets_own_file() {
    let root = folder();
    write_everything(root.path());
    let catalog = open(root.path());
    let shown = catalog
        .demonstrations(Task::Sentiment, "yelp", 3)
        .expect("eight written");
    let texts: Vec<_> = shown.iter().map(|example| example.fields.clone()).collect();
    assert_eq!(
        texts,
        [0, 1, 2].map(|index| Fields::input(format!("shown yelp input {index}")))
    );
    let error = catalog
        .demonstrations(Task::Sentiment, "yelp", DEMONSTRATIONS + 1)
        .expect_err("only eight");
    insta::assert_snapshot!(complaint(root.path(), error), @"too_few_demonstrations: DIR/sentiment/few_shot/yelp_few_shot.json: 9 demonstrations wanted, the file has 8");
}

#[test]
fn no_demonstrations_need_no_file() {
    let root = folder();
    write_records(
        root.path(),
        Task::Sentiment,
        "yelp_test_30",
        &records(Task::Sentiment, "a", 3),
    );
    let catalog = open(root.path());
    assert_eq!(
        catalog
            .demonstrations(Task::Sentiment, "yelp", 0)
            .expect("none needed"),
        []
    );
    let error = catalog
        .demonstrations(Task::Sentiment, "yelp", 1)
        .expect_err("no file");
    insta::assert_snapshot!(complaint(root.path(), error), @"dataset_file_missing: data set sentiment/yelp has no few_shot file in DIR; expected sentiment/few_shot/yelp_few_shot.json");
}

#[test]
fn the_paper_size_is_preferred_for_tests_and_the_smallest_for_training() {
    let root = folder();
    let task = Task::Detection;
    let write =
        |name: &str, count| write_records(root.path(), task, name, &records(task, name, count));
    write("qqp_test_2000", 4);
    write("qqp_test_500", 3);
    write("qqp_test_0900", 6);
    write("stsb_test_24", 2);
    write("stsb_test_240", 5);
    write("paws_train_2000", 7);
    write("paws_train_400", 8);
    let catalog = open(root.path());
    assert_eq!(catalog.size(task, "qqp"), 3);
    assert_eq!(catalog.size(task, "stsb"), 5);
    assert_eq!(catalog.train_sizes(task), [400, 2000]);
    let smallest = catalog.train(task, None).expect("written");
    assert_eq!(smallest.examples.len(), 8);
    assert_eq!(
        smallest.path,
        root.path().join("detection/paws_train_400.json")
    );
    assert_eq!(
        catalog
            .train(task, Some(2000))
            .expect("written")
            .examples
            .len(),
        7
    );
    let error = catalog.train(task, Some(48)).expect_err("not written");
    insta::assert_snapshot!(complaint(root.path(), error), @"dataset_file_missing: data set detection/paws has no train file in DIR; expected detection/paws_train_48.json, or one of the sizes there are: 400, 2000");
}

#[test]
fn training_examples_without_a_gold_label_are_dropped_and_counted() {
    let root = folder();
    let mut list = records(Task::Inference, "t", 5);
    list[1]["output"] = "-".into();
    list[4]["output"] = "-".into();
    write_records(root.path(), Task::Inference, "multinli_train_5", &list);
    let set = open(root.path())
        .train(Task::Inference, Some(5))
        .expect("three usable");
    assert_eq!((set.examples.len(), set.dropped), (3, 2));
}

#[test]
fn a_data_set_of_the_folder_replaces_the_built_in_one_as_a_whole() {
    let root = folder();
    write_records(
        root.path(),
        Task::Sentiment,
        "amazon_test_7",
        &records(Task::Sentiment, "mine", 7),
    );
    let catalog = open(root.path());
    let built_in = Catalog::open(None).expect("built in");
    assert_eq!(catalog.size(Task::Sentiment, "amazon"), 7);
    assert!(catalog.train(Task::Sentiment, None).is_err());
    for (task, dataset) in [(Task::Sentiment, "yelp"), (Task::Inference, "multinli2")] {
        assert_eq!(catalog.size(task, dataset), built_in.size(task, dataset));
    }
}

#[test]
fn a_name_that_begins_another_name_is_not_that_other() {
    let root = folder();
    write_records(
        root.path(),
        Task::Inference,
        "multinli2_test_9",
        &records(Task::Inference, "b", 9),
    );
    write_records(
        root.path(),
        Task::Sentiment,
        "amazonfood_test_8",
        &records(Task::Sentiment, "f", 8),
    );
    let catalog = open(root.path());
    let built_in = Catalog::open(None).expect("built in");
    assert_eq!(catalog.size(Task::Inference, "multinli2"), 9);
    assert_eq!(
        catalog.size(Task::Inference, "multinli"),
        built_in.size(Task::Inference, "multinli")
    );
    assert_eq!(catalog.size(Task::Sentiment, "amazonfood"), 8);
    assert_eq!(
        catalog.size(Task::Sentiment, "amazon"),
        built_in.size(Task::Sentiment, "amazon")
    );
}

#[test]
fn a_bad_file_is_named_when_it_is_asked_for_and_not_before() {
    let root = folder();
    write_everything(root.path());
    write_file(
        root.path(),
        "sentiment/sst2_test_500.json",
        b"[{\"input\": \"a\", ",
    );
    let catalog = open(root.path());
    assert_eq!(catalog.size(Task::Sentiment, "amazon"), TEST_EXAMPLES);
    assert_eq!(catalog.size(Task::Sentiment, "sst2"), 0);
    assert!(catalog.present(Task::Sentiment, "sst2"));
    let error = catalog
        .test(Task::Sentiment, "sst2")
        .expect_err("cut short");
    insta::assert_snapshot!(complaint(root.path(), error), @"dataset_malformed: DIR/sentiment/sst2_test_500.json: record 0 not valid: EOF while parsing a value at line 1 column 16; expected a JSON list of objects, or one object a line");
}

#[test]
fn unknown_data_sets_are_refused_with_the_known_ones() {
    let catalog = Catalog::open(None).expect("built in");
    let error = catalog
        .test(Task::Detection, "yelp")
        .expect_err("of another task");
    insta::assert_snapshot!(error, @r#"task detection has no data set "yelp"; it has paws, qqp, stsb"#);
    assert_eq!(error.code(), "unknown_dataset");
    assert!(catalog.demonstrations(Task::Detection, "yelp", 0).is_err());
    assert!(!catalog.present(Task::Detection, "yelp"));
    assert_eq!(catalog.size(Task::Detection, "yelp"), 0);
}

#[test]
fn a_folder_that_is_none_or_holds_nothing_known_is_refused() {
    let root = folder();
    let absent = PathBuf::from("absent");
    let error = Catalog::open(Some(&root.path().join(absent))).expect_err("absent");
    insta::assert_snapshot!(complaint(root.path(), error), @"data_not_a_directory: the data folder DIR/absent is not a directory");
    write_file(root.path(), "sentiment/other_test_500.json", b"[]");
    write_file(root.path(), "sentiment/amazon_test_many.json", b"[]");
    let error = Catalog::open(Some(root.path())).expect_err("nothing known");
    insta::assert_snapshot!(complaint(root.path(), error), @"data_nothing_found: the data folder DIR holds none of the known data sets; it must hold files such as sentiment/amazon_test_500.json and sentiment/few_shot/amazon_few_shot.json, or a prompt_map.json");
}

#[test]
fn a_prompt_map_of_the_folder_replaces_the_prompts() {
    let root = folder();
    let entry = json!({
        "summary": "a {input}", "question": "b {input} {answer}", "sentiment": "c {input}",
        "inference": "d {input_1} {input_2}", "detection": "e {input_1} {input_2}"
    });
    write_file(
        root.path(),
        "prompt_map.json",
        json!([entry]).to_string().as_bytes(),
    );
    let catalog = open(root.path());
    assert_eq!(catalog.prompts().count(), 1);
    assert_eq!(
        catalog.prompts().template(0, Task::Sentiment),
        Ok("c {input}")
    );
    write_file(root.path(), "prompt_map.json", b"[{\"summary\": \"a\"}]");
    let error = Catalog::open(Some(root.path())).expect_err("incomplete");
    insta::assert_snapshot!(complaint(root.path(), error), @"prompt_map_invalid: DIR/prompt_map.json: prompt 0 for summary does not show the field {input}");
}

#[test]
fn every_built_in_data_set_is_complete() {
    let catalog = Catalog::open(None).expect("built in");
    assert_eq!(catalog.prompts().count(), 2);
    for task in Task::ALL {
        let demonstrations = match task.kind() {
            Kind::Generation => 4,
            Kind::Classification => 8,
        };
        for role in task.datasets() {
            let examples = catalog.test(task, role.id).expect("built in");
            assert!(
                examples.len() >= 24,
                "{task}/{}: {}",
                role.id,
                examples.len()
            );
            catalog
                .demonstrations(task, role.id, demonstrations)
                .expect("built in");
        }
        let training = catalog.train(task, None).expect("built in");
        assert!(
            training.examples.len() >= 24,
            "{task}: {}",
            training.examples.len()
        );
    }
}

#[test]
fn no_built_in_test_example_is_also_shown_or_taught() {
    let catalog = Catalog::open(None).expect("built in");
    for task in Task::ALL {
        let taught = catalog.train(task, None).expect("built in").examples;
        for role in task.datasets() {
            let shown = catalog.demonstrations(task, role.id, 4).expect("built in");
            for example in catalog.test(task, role.id).expect("built in") {
                let same = |other: &&crate::Example| other.fields == example.fields;
                let leak = shown.iter().chain(&taught).find(same);
                assert_eq!(leak, None, "{task}/{}", role.id);
            }
        }
    }
}
