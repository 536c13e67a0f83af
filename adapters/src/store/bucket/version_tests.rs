//! What becomes of versions: stored, read, damaged, removed.

use super::super::Cause;
use super::testing::{Open, code, files, readable, version};
use super::*;
use crate::{CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE};

pub(super) fn what_one_stores_another_reads(open: Open<'_>) {
    let (one, other) = (open(), open());
    one.save("mood", 1);
    one.save_with("mood", 2, Some(br#"{"probe": "passed"}"#))
        .expect("stored");
    let staging = fs_err::read_dir(&one.staging).expect("readable");
    assert_eq!(staging.count(), 0);
    assert_eq!(
        other.keys(),
        [
            "mood/v1/adapter_config.json",
            "mood/v1/adapter_model.safetensors",
            "mood/v1/report.json",
            "mood/v2/adapter_config.json",
            "mood/v2/adapter_model.safetensors",
            "mood/v2/manifest.json",
            "mood/v2/report.json",
        ]
    );
    for number in [1, 2] {
        let read = other.read("mood", &version(number)).expect("whole");
        assert_eq!(read, files(number));
    }
    let report = |number: u8| {
        other
            .read_report("mood", &version(number))
            .expect("readable")
    };
    assert_eq!(report(1), None);
    assert_eq!(report(2).as_deref(), Some(&br#"{"probe": "passed"}"#[..]));
    assert_eq!(report(3), None);

    assert_eq!(other.pointer("mood").expect("readable"), None);
    let pointer = ActivePointer::first(version(1), 7).activated(&version(2), 8, Cause::Activate);
    let tag = one.replace_pointer("mood", &pointer, None).expect("stored");
    let pointed = other.pointer("mood").expect("readable").expect("stored");
    assert_eq!((&pointed.pointer, &pointed.tag), (&pointer, &tag));
    let tags = other.pointer_tags().expect("listed");
    assert_eq!(tags, BTreeMap::from([("mood".to_owned(), tag.clone())]));
    let contents = other.contents().expect("listed");
    assert_eq!(contents.adapters[0].pointer, pointer);
    assert_eq!(contents.adapters[0].tag, Some(tag));
    assert_eq!(other.summary(), ["mood -> v2 (stored) of [1, 2]"]);
    assert_eq!(other.ignored(), [""; 0]);
    assert!(other.is_shared());
    assert!(
        other.location().starts_with("s3://models/"),
        "{}",
        other.location()
    );
}

pub(super) fn a_large_file_goes_in_parts(open: Open<'_>) {
    let store = open();
    let mut large = files(1);
    large.weights = (0..17_u32 << 18).flat_map(u32::to_le_bytes).collect();
    large.weights.push(9);
    let version = large.version().expect("valid JSON");
    let incoming = store.incoming().expect("the disk works");
    incoming.write_files(&large).expect("writable");
    store.commit(incoming, "mood", &version).expect("stored");
    assert!(open().read("mood", &version).expect("whole") == large);
}

pub(super) fn what_is_whole_stays(open: Open<'_>) {
    let store = open();
    store.save_with("mood", 1, Some(b"[1]")).expect("stored");
    store.save_with("mood", 1, Some(b"[2]")).expect("stored");
    let report = || store.read_report("mood", &version(1)).expect("readable");
    assert_eq!(report().as_deref(), Some(&b"[1]"[..]));

    let folder = format!("mood/{}", version(1));
    store.put(&format!("{folder}/{WEIGHTS_FILE}"), &[1; 39]);
    store.put(&format!("{folder}/{MANIFEST_FILE}"), b"{}");
    assert_eq!(code(store.read("mood", &version(1))), "stored_damaged");
    store.save_with("mood", 1, Some(b"[3]")).expect("stored");
    assert_eq!(store.read("mood", &version(1)).expect("whole"), files(1));
    assert_eq!(report().as_deref(), Some(&b"[3]"[..]));

    store.delete(&format!("{folder}/{CONFIG_FILE}"));
    store.save("mood", 1);
    assert_eq!(store.read("mood", &version(1)).expect("whole"), files(1));
    assert_eq!(report(), None);
}

pub(super) fn names_and_versions_are_checked(open: Open<'_>) {
    let store = open();
    let pointer = ActivePointer::first(version(1), 7);
    for (name, expected) in [
        ("evaluations", "reserved_name"),
        ("..", "invalid_name"),
        (".active", "invalid_name"),
    ] {
        assert_eq!(code(store.save_with(name, 1, None)), expected);
        assert_eq!(code(store.read(name, &version(1))), expected);
        assert_eq!(code(store.read_report(name, &version(1))), expected);
        assert_eq!(code(store.pointer(name)), expected);
        assert_eq!(code(store.replace_pointer(name, &pointer, None)), expected);
        assert_eq!(code(store.remove(name, None)), expected);
        assert_eq!(code(store.remove_version(name, &version(1))), expected);
        assert_eq!(code(store.quarantine(name, &version(1))), expected);
    }
    assert_eq!(code(store.read("mood", &version(1))), "version_not_stored");
    assert_eq!(
        code(store.replace_pointer("mood", &pointer, None)),
        "version_not_stored"
    );
    let tag = PointerTag("0123".to_owned());
    assert_eq!(
        code(store.replace_pointer("mood", &pointer, Some(&tag))),
        "pointer_moved"
    );
    store.remove("mood", Some(&tag)).expect("nothing to do");
    store.remove("mood", None).expect("nothing to do");
    store
        .remove_version("mood", &version(1))
        .expect("nothing to do");
    store
        .quarantine("mood", &version(1))
        .expect("nothing to do");
    assert_eq!(store.keys(), [""; 0]);
}

pub(super) fn damage_is_found_and_set_aside(open: Open<'_>) {
    let store = open();
    store.save("mood", 1);
    store.save("mood", 2);
    store.point("mood", 1);
    let weights = format!("mood/{}/{WEIGHTS_FILE}", version(1));
    store.put(&weights, &files(3).weights);
    let config = format!("mood/{}/{CONFIG_FILE}", version(1));
    store.put(&config, &files(3).config);
    let error = || {
        readable(
            &store
                .read("mood", &version(1))
                .expect_err("damaged")
                .to_string(),
        )
    };
    assert_eq!(
        error(),
        "adapter 'mood' in the store is damaged: version v1: its content is that of version v3"
    );
    store.put(&config, b"{");
    assert!(
        error().contains("adapter_config.json is not a JSON object"),
        "{}",
        error()
    );
    store.delete(&config);
    assert_eq!(
        error(),
        "adapter 'mood' in the store is damaged: version v1: adapter_config.json is missing"
    );

    for _ in 0..2 {
        store.quarantine("mood", &version(1)).expect("set aside");
    }
    assert_eq!(code(store.read("mood", &version(1))), "version_not_stored");
    let set_aside: Vec<_> = store
        .keys()
        .into_iter()
        .filter(|key| key.contains("v1"))
        .collect();
    assert_eq!(
        set_aside,
        [
            ".quarantine/mood/v1/adapter_model.safetensors",
            ".quarantine/mood/v1/report.json",
        ]
    );
    let kept = store.get(&format!(".quarantine/{weights}"));
    assert_eq!(kept, files(3).weights);
    store.save("mood", 1);
    assert_eq!(store.read("mood", &version(1)).expect("whole"), files(1));
    assert_eq!(store.summary(), ["mood -> v1 (stored) of [1, 2]"]);
}

pub(super) fn a_name_is_removed_and_comes_back(open: Open<'_>) {
    let (one, other) = (open(), open());
    for name in ["gist", "mood"] {
        one.save(name, 1);
        one.save(name, 2);
    }
    let tag = one.point("mood", 2);
    let wrong = PointerTag("0123".to_owned());
    for expected in [None, Some(&wrong)] {
        assert_eq!(code(other.remove("mood", expected)), "pointer_moved");
    }
    assert_eq!(one.active("mood"), Some(version(2)));
    other.remove("mood", Some(&tag)).expect("removed");
    assert_eq!(one.pointer("mood").expect("readable"), None);
    assert_eq!(code(one.read("mood", &version(1))), "version_not_stored");
    assert_eq!(one.summary(), ["gist -> v2 (taken) of [1, 2]"]);
    let removed = one.pointer_tags().expect("listed")["mood"].clone();
    assert_ne!(removed, tag);
    for expected in [None, Some(&tag)] {
        one.remove("mood", expected).expect("nothing to do");
    }
    assert_eq!(one.pointer_tags().expect("listed")["mood"], removed);
    let note = String::from_utf8(one.get(".active/mood")).expect("text");
    assert!(
        note.contains(r#""removed":true"#) && note.contains(r#""write":""#),
        "{note}"
    );

    // Without a pointer there is still something to remove.
    assert_eq!(code(one.remove("gist", Some(&tag))), "pointer_moved");
    one.remove("gist", None).expect("removed");
    assert_eq!(one.keys(), [".active/gist", ".active/mood"]);

    one.save("mood", 3);
    let pointer = ActivePointer::first(version(3), 9);
    assert_eq!(
        code(one.replace_pointer("mood", &pointer, Some(&tag))),
        "pointer_moved"
    );
    one.replace_pointer("mood", &pointer, None).expect("stored");
    assert_eq!(other.summary(), ["mood -> v3 (stored) of [3]"]);
}

pub(super) fn a_version_is_removed_unless_pointed_at(open: Open<'_>) {
    let store = open();
    for number in [1, 2, 3] {
        store.save("mood", number);
    }
    let pointer = ActivePointer::first(version(1), 7).activated(&version(2), 8, Cause::Activate);
    let tag = store
        .replace_pointer("mood", &pointer, None)
        .expect("stored");
    for number in [1, 2] {
        assert_eq!(
            code(store.remove_version("mood", &version(number))),
            "pointer_moved"
        );
    }
    store.remove_version("mood", &version(3)).expect("removed");
    store
        .remove_version("mood", &version(3))
        .expect("nothing to do");
    assert_eq!(store.summary(), ["mood -> v2 (stored) of [1, 2]"]);
    let alone = pointer.without(&version(1));
    store
        .replace_pointer("mood", &alone, Some(&tag))
        .expect("stored");
    store.remove_version("mood", &version(1)).expect("removed");
    assert_eq!(store.summary(), ["mood -> v2 (stored) of [2]"]);
    assert_eq!(store.keys().len(), 5);
}
