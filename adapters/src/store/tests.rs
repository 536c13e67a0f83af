//! What a folder keeps, refuses and removes while nothing goes wrong; `crash_tests` has the rest.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

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

pub(super) fn open(root: &Path) -> DirectoryStore {
    DirectoryStore::open(root).expect("the store opens")
}

pub(super) fn save(store: &dyn AdapterStore, name: &str, number: u8) -> Result<(), StoreError> {
    let incoming = store.incoming()?;
    incoming.write_files(&files(number))?;
    incoming.write(REPORT_FILE, b"{}")?;
    store.commit(incoming, name, &version(number))
}

/// Lets `name` point at a version, whatever it points at now.
pub(super) fn activate(
    store: &dyn AdapterStore,
    name: &str,
    number: u8,
) -> Result<PointerTag, StoreError> {
    let known = store.pointer(name)?;
    let next = match &known {
        None => ActivePointer::first(version(number), 7),
        Some(known) => known
            .pointer
            .activated(&version(number), 8, Cause::Activate),
    };
    store.replace_pointer(name, &next, known.as_ref().map(|known| &known.tag))
}

/// (name, active, previous, versions) of each adapter, after checking that each version reads as itself.
pub(super) type Scanned = (String, Version, Option<Version>, BTreeSet<Version>);

pub(super) fn scanned(store: &dyn AdapterStore) -> Vec<Scanned> {
    let contents = store.contents().expect("the root is readable");
    let adapters = contents.adapters.into_iter().map(|adapter| {
        let versions = adapter.versions.into_iter().map(|stored| stored.version);
        let versions: BTreeSet<_> = versions.collect();
        for version in &versions {
            let read = store.read(&adapter.name, version).expect("intact");
            assert_eq!(read.version().expect("valid JSON"), *version);
        }
        let pointer = adapter.pointer;
        (adapter.name, pointer.active, pointer.previous, versions)
    });
    adapters.collect()
}

pub(super) fn of(name: &str, active: u8, previous: Option<u8>, versions: &[u8]) -> Scanned {
    (
        name.to_owned(),
        version(active),
        previous.map(version),
        versions.iter().copied().map(version).collect(),
    )
}

pub(super) fn staging_is_empty(store: &DirectoryStore) -> bool {
    let mut entries = fs_err::read_dir(store.root().join(".staging")).expect("readable");
    entries.next().is_none()
}

#[test]
fn what_was_saved_is_there_after_opening_again() {
    let root = temporary();
    let store = open(root.path());
    for number in [1, 2] {
        save(&store, "mood", number).expect("saved");
        activate(&store, "mood", number).expect("saved before");
    }
    save(&store, "gist", 3).expect("saved");
    let again = open(root.path());
    assert_eq!(
        scanned(&again),
        [of("gist", 3, None, &[3]), of("mood", 2, Some(1), &[1, 2])]
    );
    let pointer = again
        .pointer("mood")
        .expect("readable")
        .expect("stored")
        .pointer;
    let history: Vec<_> = pointer
        .history
        .iter()
        .map(|one| (one.version.clone(), one.cause))
        .collect();
    assert_eq!(
        history,
        [(version(1), Cause::Load), (version(2), Cause::Activate)]
    );
    assert_eq!(
        again
            .read_report("mood", &version(1))
            .expect("readable")
            .as_deref(),
        Some(&b"{}"[..])
    );
    assert!(staging_is_empty(&again));
}

#[test]
fn a_pointer_of_before_histories_is_read() {
    let root = temporary();
    let store = open(root.path());
    save(&store, "mood", 1).expect("saved");
    let text = format!(r#"{{"active":"{}","previous":null}}"#, version(1));
    fs_err::write(root.path().join("mood/active"), text).expect("writable");
    let pointer = store
        .pointer("mood")
        .expect("readable")
        .expect("stored")
        .pointer;
    assert_eq!(
        (pointer.active, pointer.history.len(), pointer.pinned),
        (version(1), 0, false)
    );
}

#[test]
fn a_pointer_is_replaced_by_whoever_saw_it_last() {
    let root = temporary();
    let store = open(root.path());
    save(&store, "mood", 1).expect("saved");
    save(&store, "mood", 2).expect("saved");
    let first = ActivePointer::first(version(1), 7);
    let tag = store
        .replace_pointer("mood", &first, None)
        .expect("none is stored");
    let second = first.activated(&version(2), 8, Cause::Activate);
    let moved = store
        .replace_pointer("mood", &second, None)
        .expect_err("one is stored");
    assert_eq!(moved.code(), "pointer_moved");
    let next = store
        .replace_pointer("mood", &second, Some(&tag))
        .expect("seen");
    let moved = store
        .replace_pointer("mood", &first, Some(&tag))
        .expect_err("another is stored");
    assert_eq!(moved.code(), "pointer_moved");
    assert_eq!(
        store
            .remove("mood", Some(&tag))
            .expect_err("another")
            .code(),
        "pointer_moved"
    );
    assert_eq!(
        store.pointer_tags().expect("readable").get("mood"),
        Some(&next)
    );
    let unknown = second.activated(&version(9), 9, Cause::Activate);
    let error = store
        .replace_pointer("mood", &unknown, Some(&next))
        .expect_err("9 is not there");
    assert_eq!(error.code(), "version_not_stored");
    store.remove("mood", Some(&next)).expect("seen");
    assert_eq!(store.pointer("mood").expect("readable"), None);
    store.remove("mood", None).expect("nothing to do");
}

#[test]
fn names_that_are_not_adapters_are_refused() {
    let root = temporary();
    let store = open(root.path());
    for name in ["", "..", "a/b", ".staging", "evaluations", "a\0b"] {
        assert!(save(&store, name, 1).is_err(), "{name:?}");
        assert!(store.pointer(name).is_err(), "{name:?}");
        assert!(store.remove(name, None).is_err(), "{name:?}");
        assert!(store.read(name, &version(1)).is_err(), "{name:?}");
    }
    assert_eq!(scanned(&store), []);
    assert!(staging_is_empty(&store));
}

#[derive(Debug, Clone)]
enum Change {
    Save(u8),
    Activate(u8),
    RemoveVersion(u8),
    Remove,
    Reopen,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (1..5_u8).prop_map(Change::Save),
        4 => (1..5_u8).prop_map(Change::Activate),
        2 => (1..5_u8).prop_map(Change::RemoveVersion),
        1 => Just(Change::Remove),
        1 => Just(Change::Reopen),
    ];
    proptest::collection::vec(change, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// The store against a set of versions and a pointer.
    #[test]
    fn any_sequence_of_changes_leaves_what_it_says(changes in changes()) {
        let root = temporary();
        let mut store = open(root.path());
        let mut versions = BTreeSet::new();
        let mut pointer: Option<ActivePointer> = None;
        for change in changes {
            match change {
                Change::Save(number) => {
                    save(&store, "mood", number).expect("saved");
                    versions.insert(number);
                }
                Change::Activate(number) => {
                    let done = activate(&store, "mood", number).is_ok();
                    prop_assert_eq!(done, versions.contains(&number));
                    if done {
                        pointer = Some(match pointer {
                            None => ActivePointer::first(version(number), 7),
                            Some(known) => known.activated(&version(number), 8, Cause::Activate),
                        });
                    }
                }
                Change::RemoveVersion(number) => {
                    let named = |known: &ActivePointer| known.versions().any(|one| *one == version(number));
                    if !pointer.as_ref().is_some_and(named) {
                        store.remove_version("mood", &version(number)).expect("removable");
                        versions.remove(&number);
                    }
                }
                Change::Remove => {
                    let tag = store.pointer("mood").expect("readable").map(|known| known.tag);
                    store.remove("mood", tag.as_ref()).expect("removable");
                    versions.clear();
                    pointer = None;
                }
                Change::Reopen => store = open(root.path()),
            }
            let stored = store.pointer("mood").expect("readable");
            prop_assert_eq!(stored.map(|known| known.pointer), pointer.clone());
            let found: BTreeSet<_> = scanned(&store).into_iter().flat_map(|(_, _, _, found)| found).collect();
            prop_assert_eq!(found, versions.iter().copied().map(version).collect::<BTreeSet<_>>());
        }
        prop_assert!(staging_is_empty(&store));
    }
}
