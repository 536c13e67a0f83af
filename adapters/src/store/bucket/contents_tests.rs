//! What a bucket holds besides adapters, and what is swept out of it.

use super::super::{Cause, REPORT_FILE};
use super::testing::{Open, version};
use super::*;
use crate::{CONFIG_FILE, WEIGHTS_FILE};

pub(super) fn contents_tell_what_is_passed_over(open: Open<'_>) {
    let store = open();
    for (name, number) in [("lost", 1), ("mood", 1), ("mood", 2), ("gone", 1)] {
        store.save(name, number);
    }
    for name in ["lost", "mood", "gone"] {
        store.point(name, 1);
    }
    for path in [
        "evaluations/a.json",
        ".quarantine/x/y/z",
        "not a name/x",
        "not a name/y",
        "file",
        ".active/-",
        "mood/notes/x",
        "half/x",
    ] {
        store.put(path, b"?");
    }
    store.delete(&format!("lost/{}/{CONFIG_FILE}", version(1)));
    store.delete(&format!("gone/{}/{REPORT_FILE}", version(1)));
    store.put(".active/torn", b"half a poi");
    store.save("torn", 4);
    store.put(&format!("upload/{}/{WEIGHTS_FILE}", version(5)), b"?");

    let before = store.keys();
    assert_eq!(
        store.summary(),
        [
            "mood -> v1 (stored) of [1, 2]",
            "torn -> v4 (stored) of [4]",
        ]
    );
    let prefix = format!("{}/", store.location());
    let ignored: Vec<_> = store
        .ignored()
        .iter()
        .map(|line| line.replace(&prefix, ""))
        .collect();
    assert_eq!(
        ignored,
        [
            ".active/-: foreign: not the name of an adapter",
            ".active/gone: damaged: version v1 is recorded as active and is not there or not intact",
            ".active/lost: damaged: version v1 is recorded as active and is not there or not intact",
            ".active/torn: damaged: expected value at line 1 column 1",
            "file: foreign: not a directory",
            "half/x: foreign: not the 64 lower-case hex digits of a version",
            "version lost/v1: damaged: lost/v1/adapter_config.json does not exist; an adapter directory holds adapter_config.json and adapter_model.safetensors",
            "mood/notes: foreign: not the 64 lower-case hex digits of a version",
            "not a name: foreign: not the name of an adapter",
        ]
    );
    assert_eq!(store.keys(), before);
}

pub(super) fn what_the_killed_left_goes_after_a_while(open: Open<'_>) {
    let mut store = open();
    for number in [1, 2, 3] {
        store.save("mood", number);
    }
    // An upload without its end, and a removal of a version that its pointer names without the way back.
    for number in [1, 2] {
        store.delete(&format!("mood/{}/{REPORT_FILE}", version(number)));
    }
    store.point("mood", 3);
    let pointer = ActivePointer::first(version(2), 7).activated(&version(3), 8, Cause::Activate);
    let stored = serde_json::to_string(&pointer).expect("JSON");
    store.put(
        ".active/mood",
        format!(r#"{{"write":"w","pointer":{stored}}}"#).as_bytes(),
    );
    // A removal of a name that stopped at its note.
    store.save("gone", 1);
    store.put(".active/gone", br#"{"write":"w","removed":true}"#);

    let before = store.keys();
    assert_eq!(store.summary(), ["mood -> v3 (stored) of [3]"]);
    assert_eq!(store.keys(), before);
    store.store.bucket.abandoned_after = Duration::ZERO;
    assert_eq!(store.summary(), ["mood -> v3 (stored) of [3]"]);
    assert_eq!(
        store.keys(),
        [
            ".active/gone",
            ".active/mood",
            "mood/v2/adapter_config.json",
            "mood/v2/adapter_model.safetensors",
            "mood/v2/manifest.json",
            "mood/v3/adapter_config.json",
            "mood/v3/adapter_model.safetensors",
            "mood/v3/report.json",
        ]
    );
}
