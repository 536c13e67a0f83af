//! What the store keeps, refuses and removes while nothing goes wrong; `crash_tests` has the rest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Files whose content, and so whose version, depends on `number`.
pub(super) fn files(number: u8) -> AdapterFiles {
    AdapterFiles {
        config: format!(r#"{{"peft_type": "LORA", "r": {number}}}"#).into_bytes(),
        weights: vec![number; 40],
        manifest: number
            .is_multiple_of(2)
            .then(|| br#"{"schema": 1}"#.to_vec()),
    }
}

pub(super) fn version(number: u8) -> Version {
    files(number).version().expect("valid JSON")
}

pub(super) fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

pub(super) fn open(root: &Path) -> Store {
    Store::open(root).expect("the store opens")
}

pub(super) fn save(store: &Store, name: &str, number: u8) -> PathBuf {
    store
        .save(name, &version(number), &files(number))
        .expect("saved");
    store.root().join(name).join(version(number).as_str())
}

/// (name, active, previous, versions) of each adapter, after checking that each directory holds its files.
pub(super) fn scanned(store: &Store) -> Vec<(String, Version, Option<Version>, BTreeSet<Version>)> {
    let no_limits = crate::Limits {
        max_rank: 64,
        max_bytes: 1_000,
    };
    let mut scanned = Vec::new();
    for adapter in store.scan().expect("the root is readable") {
        for (version, path) in &adapter.versions {
            let files = AdapterFiles::read(path, &no_limits).expect("intact");
            assert_eq!(files.version().expect("valid JSON"), *version);
        }
        let versions = adapter.versions.into_iter().map(|(version, _)| version);
        scanned.push((
            adapter.name,
            adapter.active,
            adapter.previous,
            versions.collect(),
        ));
    }
    scanned
}

pub(super) fn of(
    name: &str,
    active: u8,
    previous: Option<u8>,
    versions: &[u8],
) -> (String, Version, Option<Version>, BTreeSet<Version>) {
    (
        name.to_owned(),
        version(active),
        previous.map(version),
        versions.iter().copied().map(version).collect(),
    )
}

pub(super) fn staging_is_empty(store: &Store) -> bool {
    let mut entries = fs_err::read_dir(store.root().join(STAGING)).expect("readable");
    entries.next().is_none()
}

#[test]
fn what_is_saved_is_there_after_reopening() {
    let root = temporary();
    let store = open(root.path());
    for number in [1, 2] {
        let place = save(&store, "mood", number);
        let read = AdapterFiles::read(
            &place,
            &crate::Limits {
                max_rank: 1,
                max_bytes: 40,
            },
        );
        assert_eq!(read.expect("readable"), files(number));
    }
    save(&store, "gist-2.x", 7);
    store
        .set_active("mood", &version(1), Some(&version(2)))
        .expect("saved before");
    assert!(staging_is_empty(&store));
    let want = [
        of("gist-2.x", 7, None, &[7]),
        of("mood", 1, Some(2), &[1, 2]),
    ];
    assert_eq!(scanned(&store), want);
    assert_eq!(scanned(&open(root.path())), want);

    let recorded = fs_err::read_to_string(root.path().join("mood/active")).expect("recorded");
    assert_eq!(
        recorded,
        format!(
            r#"{{"active":"{}","previous":"{}"}}"#,
            version(1),
            version(2)
        )
    );
}

#[test]
fn saving_again_leaves_intact_files_alone_and_mends_damaged_ones() {
    let root = temporary();
    let store = open(root.path());
    let place = save(&store, "mood", 1);
    let manifest = place.join("note");
    fs_err::write(&manifest, "kept as long as nothing is replaced").expect("writable");
    save(&store, "mood", 1);
    assert!(manifest.exists());

    fs_err::write(place.join(WEIGHTS_FILE), [1; 39]).expect("writable");
    assert_eq!(scanned(&store), []);
    save(&store, "mood", 1);
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1])]);
    assert!(!manifest.exists() && staging_is_empty(&store));
}

#[test]
fn refuses_names_versions_and_files_that_do_not_fit() {
    let root = temporary();
    let store = open(root.path());
    for (name, code) in [
        ("evaluations", "reserved_name"),
        ("..", "invalid_name"),
        ("a/b", "invalid_name"),
        (".staging", "invalid_name"),
    ] {
        let saved = store.save(name, &version(1), &files(1));
        assert_eq!(saved.unwrap_err().code(), code, "{name}");
        assert_eq!(store.remove(name).unwrap_err().code(), code, "{name}");
    }
    let error = store.save("mood", &version(1), &files(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "files to be saved as version {} of adapter 'mood' have the content of version {}",
            version(1),
            version(2)
        )
    );
    save(&store, "mood", 1);
    let error = store.set_active("mood", &version(2), None).unwrap_err();
    assert_eq!(error.code(), "version_not_stored");
    assert!(error.to_string().contains(version(2).as_str()), "{error}");
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1])]);
}

#[test]
fn removing_a_version_mends_the_record() {
    let root = temporary();
    let store = open(root.path());
    for number in [1, 2, 3] {
        save(&store, "mood", number);
    }
    let record = |active, previous: Option<u8>| {
        let previous = previous.map(version);
        store
            .set_active("mood", &version(active), previous.as_ref())
            .expect("saved");
    };
    record(3, Some(2));
    store.remove_version("mood", &version(2)).expect("removed");
    save(&store, "mood", 2);
    assert_eq!(scanned(&store), [of("mood", 3, None, &[1, 2, 3])]);

    record(3, Some(1));
    store.remove_version("mood", &version(3)).expect("removed");
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1, 2])]);
    store.remove_version("mood", &version(1)).expect("removed");
    assert_eq!(scanned(&store), [of("mood", 2, None, &[2])]);
    store.remove_version("mood", &version(2)).expect("removed");
    assert!(!root.path().join("mood").exists());
    store
        .remove_version("mood", &version(2))
        .expect("nothing to do");
    store.remove("mood").expect("nothing to do");
    assert!(staging_is_empty(&store));
}

#[test]
fn threads_save_and_remove_one_name_without_errors() {
    let root = temporary();
    let store = open(root.path());
    std::thread::scope(|scope| {
        for number in 1..4 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..10 {
                    save(store, "mood", number);
                    save(store, "mood", 9);
                    store.remove("mood").expect("removed or gone");
                }
            });
        }
    });
    assert_eq!(scanned(&store), []);
    assert!(staging_is_empty(&store));
    assert!(!root.path().join("mood").exists());
}

#[derive(Debug, Clone)]
enum Operation {
    Save(u8),
    SetActive(u8, Option<u8>),
    RemoveVersion(u8),
    Remove,
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let number = || 1_u8..4;
    prop_oneof![
        4 => number().prop_map(Operation::Save),
        3 => (number(), proptest::option::of(number()))
            .prop_map(|(active, previous)| Operation::SetActive(active, previous)),
        2 => number().prop_map(Operation::RemoveVersion),
        1 => Just(Operation::Remove),
        1 => Just(Operation::Reopen),
    ]
}

/// What the store should hold under a name: versions, and the record if there is one.
#[derive(Default)]
struct Model {
    versions: BTreeSet<u8>,
    record: Option<(u8, Option<u8>)>,
}

impl Model {
    fn forget(&mut self, number: u8) {
        self.versions.remove(&number);
        self.record = match self.record {
            Some((active, previous)) if active == number => previous
                .filter(|previous| *previous != number)
                .map(|previous| (previous, None)),
            Some((active, previous)) => Some((active, previous.filter(|other| *other != number))),
            None => None,
        };
        if self.versions.is_empty() {
            self.record = None;
        }
    }

    fn check(&self, store: &Store) {
        let got = scanned(store);
        if self.versions.is_empty() {
            assert_eq!(got, []);
            return;
        }
        let stored: Vec<_> = self.versions.iter().copied().collect();
        let by_version: BTreeMap<_, _> = stored
            .iter()
            .map(|number| (version(*number), *number))
            .collect();
        let (active, previous) = match self.record {
            Some((active, previous)) if self.versions.contains(&active) => {
                let is_other = |other: &u8| *other != active && self.versions.contains(other);
                (active, previous.filter(is_other))
            }
            // The newest, and writes within one tick of the clock are equally new.
            _ => (by_version[&got[0].1], None),
        };
        assert_eq!(got, [of("mood", active, previous, &stored)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_sequence_of_changes_follows_the_model(
        operations in proptest::collection::vec(operation(), 1..16),
    ) {
        let root = temporary();
        let mut store = open(root.path());
        let mut model = Model::default();
        for operation in operations {
            match operation {
                Operation::Save(number) => {
                    save(&store, "mood", number);
                    model.versions.insert(number);
                }
                Operation::SetActive(active, previous) => {
                    let previous_version = previous.map(version);
                    let set = store.set_active("mood", &version(active), previous_version.as_ref());
                    prop_assert_eq!(set.is_ok(), model.versions.contains(&active));
                    if set.is_ok() {
                        model.record = Some((active, previous));
                    }
                }
                Operation::RemoveVersion(number) => {
                    store.remove_version("mood", &version(number)).expect("removed");
                    if model.versions.contains(&number) {
                        model.forget(number);
                    }
                }
                Operation::Remove => {
                    store.remove("mood").expect("removed");
                    model = Model::default();
                }
                Operation::Reopen => store = open(root.path()),
            }
            model.check(&store);
            prop_assert!(staging_is_empty(&store));
        }
    }
}
