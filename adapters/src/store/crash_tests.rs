//! States that a process killed half-way, a failing disk or a stranger can leave: every step of every operation is made the last
//! one in turn, and what others do to the folder is made by hand.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::tests::{
    Scanned, activate, files, of, open, save, scanned, staging_is_empty, temporary, version,
};
use super::*;
use crate::{CONFIG_FILE, WEIGHTS_FILE};

/// What the store ignores, as `path below the root: reason`.
fn ignored(store: &DirectoryStore) -> Vec<String> {
    let contents = store.contents().expect("the root is readable");
    let lines = contents.ignored.iter().map(|entry| {
        let path = entry
            .path
            .strip_prefix(store.root())
            .expect("below the root");
        format!("{}: {}", path.display(), entry.reason)
    });
    lines.collect()
}

fn place(store: &DirectoryStore, name: &str, number: u8) -> PathBuf {
    store.root().join(name).join(version(number).as_str())
}

/// Sets the time at which a version's weights were written, in seconds after a fixed moment.
fn written_at(place: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    let weights = fs_err::OpenOptions::new()
        .write(true)
        .open(place.join(WEIGHTS_FILE))
        .expect("writable");
    weights.file().set_modified(time).expect("settable");
}

/// `mood` with two versions, the second of them active, and `gist` with one.
fn usual(store: &DirectoryStore) {
    for number in [1, 2] {
        save(store, "mood", number).expect("saved");
        activate(store, "mood", number).expect("saved before");
        written_at(&place(store, "mood", number), u64::from(number));
    }
    save(store, "gist", 3).expect("saved");
    activate(store, "gist", 3).expect("saved before");
}

/// Kills a process before its first, second, … step of `operation`, and opens the store again each time: it must be as before or
/// as after. Returns how many steps the operation has.
fn die_everywhere(
    operation: impl Fn(&DirectoryStore) -> Result<(), StoreError>,
    after: &[Scanned],
) -> usize {
    for steps in 0.. {
        let root = temporary();
        let store = open(root.path());
        usual(&store);
        let before = scanned(&store);
        disk::die_after(Some(steps));
        let outcome = operation(&store);
        disk::die_after(None);
        let again = open(root.path());
        let found = scanned(&again);
        assert_eq!(
            ignored(&again),
            Vec::<String>::new(),
            "killed before step {steps}"
        );
        assert!(staging_is_empty(&again));
        if outcome.is_ok() {
            assert_eq!(found, after);
            return steps;
        }
        assert!(
            found == before || found == after,
            "killed before step {steps}: {found:?}"
        );
        operation(&again).expect("the same again succeeds");
        assert_eq!(scanned(&again), after, "killed before step {steps}");
    }
    unreachable!("an operation has an end")
}

#[test]
fn killed_anywhere_in_a_save() {
    let gist = of("gist", 3, None, &[3]);
    let mood = of("mood", 2, Some(1), &[1, 2]);
    let another = of("mood", 2, Some(1), &[1, 2, 4]);
    let steps = die_everywhere(|store| save(store, "mood", 4), &[gist.clone(), another]);
    assert!(steps > 10, "{steps}");
    let new = of("tone", 4, None, &[4]);
    die_everywhere(|store| save(store, "tone", 4), &[gist, mood, new]);
}

#[test]
fn killed_anywhere_in_an_activation() {
    let gist = of("gist", 3, None, &[3]);
    let steps = die_everywhere(
        |store| activate(store, "mood", 1).map(drop),
        &[gist, of("mood", 1, Some(2), &[1, 2])],
    );
    assert!(steps > 4, "{steps}");
}

#[test]
fn killed_anywhere_in_a_removal() {
    let mood = of("mood", 2, Some(1), &[1, 2]);
    let remove = |store: &DirectoryStore| {
        let tag = store.pointer("gist")?.map(|known| known.tag);
        store.remove("gist", tag.as_ref())
    };
    die_everywhere(remove, &[mood]);
    let give_up = |store: &DirectoryStore| {
        if let Some(known) = store.pointer("mood")? {
            let rest = known.pointer.without(&version(1));
            store.replace_pointer("mood", &rest, Some(&known.tag))?;
        }
        store.remove_version("mood", &version(1))
    };
    // In between, the pointer has let go of what is still there.
    for steps in 0..40 {
        let root = temporary();
        let store = open(root.path());
        usual(&store);
        disk::die_after(Some(steps));
        let outcome = give_up(&store);
        disk::die_after(None);
        let again = open(root.path());
        let allowed = [
            of("mood", 2, Some(1), &[1, 2]),
            of("mood", 2, None, &[1, 2]),
            of("mood", 2, None, &[2]),
        ];
        let found = scanned(&again);
        assert!(
            allowed.contains(&found[1]),
            "killed before step {steps}: {found:?}"
        );
        assert_eq!(ignored(&again), Vec::<String>::new());
        if outcome.is_ok() {
            assert_eq!(found[1], allowed[2]);
            return;
        }
    }
    unreachable!("a removal has an end");
}

#[test]
fn a_damaged_version_is_named_and_can_be_put_in_quarantine() {
    let root = temporary();
    let store = open(root.path());
    usual(&store);
    fs_err::write(place(&store, "mood", 1).join(WEIGHTS_FILE), b"other bytes").expect("writable");
    let error = store.read("mood", &version(1)).expect_err("damaged");
    assert_eq!(error.code(), "stored_damaged");
    let named = ignored(&store);
    assert_eq!(named.len(), 1);
    assert!(
        named[0].contains("its content is that of version"),
        "{named:?}"
    );
    let contents = store.contents().expect("readable");
    assert_eq!(
        contents.ignored[0].version,
        Some(("mood".to_owned(), version(1)))
    );
    for _ in 0..2 {
        store.quarantine("mood", &version(1)).expect("movable");
    }
    assert_eq!(ignored(&store), Vec::<String>::new());
    assert_eq!(scanned(&store)[1], of("mood", 2, None, &[2]));
    let kept = root
        .path()
        .join(".quarantine")
        .join(format!("mood-{}-0", version(1)));
    assert_eq!(
        fs_err::read(kept.join(WEIGHTS_FILE)).expect("kept"),
        b"other bytes"
    );
    // A good copy takes its place, and both can be told apart if it is damaged too.
    save(&store, "mood", 1).expect("saved");
    assert_eq!(scanned(&store)[1], of("mood", 2, Some(1), &[1, 2]));
    store.quarantine("mood", &version(1)).expect("movable");
    assert_eq!(
        fs_err::read_dir(root.path().join(".quarantine"))
            .expect("there")
            .count(),
        2
    );
}

#[test]
fn a_damaged_version_is_replaced_by_a_good_one() {
    let root = temporary();
    let store = open(root.path());
    usual(&store);
    fs_err::write(place(&store, "mood", 1).join(CONFIG_FILE), b"{").expect("writable");
    assert_eq!(ignored(&store).len(), 1);
    save(&store, "mood", 1).expect("saved");
    assert_eq!(scanned(&store)[1], of("mood", 2, Some(1), &[1, 2]));
    let read = store.read("mood", &version(1)).expect("good");
    assert_eq!(read.config, files(1).config);
}

#[test]
fn without_a_usable_pointer_the_newest_is_active() {
    let root = temporary();
    let store = open(root.path());
    for (number, seconds) in [(1, 20), (2, 30), (3, 10)] {
        save(&store, "mood", number).expect("saved");
        written_at(&place(&store, "mood", number), seconds);
    }
    assert_eq!(scanned(&store), [of("mood", 2, None, &[1, 2, 3])]);
    assert_eq!(store.contents().expect("readable").adapters[0].tag, None);
    let pointer = root.path().join("mood/active");
    for text in ["", "{", "null", r#"{"active":"short"}"#] {
        fs_err::write(&pointer, text).expect("writable");
        assert_eq!(scanned(&store), [of("mood", 2, None, &[1, 2, 3])]);
        assert_eq!(ignored(&store).len(), 1, "{text}");
        assert_eq!(
            store.pointer("mood").expect_err("damaged").code(),
            "stored_damaged"
        );
    }
    let gone = ActivePointer::first(version(9), 1);
    fs_err::write(&pointer, serde_json::to_vec(&gone).expect("JSON")).expect("writable");
    let named = ignored(&store);
    assert!(
        named[0].ends_with("is recorded as active and is not there or not intact"),
        "{named:?}"
    );
    let contents = store.contents().expect("readable");
    assert!(
        contents.adapters[0].tag.is_some(),
        "a successor takes its place"
    );
    // Whoever expects no pointer replaces one that cannot be read.
    fs_err::write(&pointer, "{").expect("writable");
    let first = ActivePointer::first(version(1), 1);
    store
        .replace_pointer("mood", &first, None)
        .expect("nothing usable is lost");
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1, 2, 3])]);
}

#[test]
fn strangers_are_named_and_left_alone() {
    let root = temporary();
    let store = open(root.path());
    usual(&store);
    fs_err::write(root.path().join("README"), "hello").expect("writable");
    fs_err::write(root.path().join("mood/notes.txt"), "hello").expect("writable");
    fs_err::create_dir(root.path().join("empty")).expect("writable");
    fs_err::create_dir(root.path().join("evaluations")).expect("writable");
    fs_err::create_dir(root.path().join("no name")).expect("writable");
    insta::assert_snapshot!(ignored(&store).join("\n"), @r"
    README: foreign: not a directory
    empty: damaged: no intact version in it
    mood/notes.txt: foreign: not the 64 lower-case hex digits of a version
    no name: foreign: not the name of an adapter
    ");
    assert_eq!(scanned(&open(root.path())).len(), 2);
    assert!(root.path().join("mood/notes.txt").exists());
}

#[test]
fn staging_that_is_a_file_gives_way() {
    let root = temporary();
    fs_err::write(root.path().join(".staging"), "in the way").expect("writable");
    save(&open(root.path()), "mood", 1).expect("saved");
}
