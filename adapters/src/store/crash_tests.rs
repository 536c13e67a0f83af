//! States that a process killed half-way, a failing disk or a stranger can leave, each made by hand.

use std::time::{Duration, SystemTime};

use super::tests::{files, of, open, save, scanned, staging_is_empty, temporary, version};
use super::*;

/// What the store ignores, as `path below the root: reason`.
fn ignored(store: &Store) -> Vec<String> {
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

/// Sets the time at which a version's weights were written, in seconds after a fixed moment.
fn written_at(place: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    let weights = fs_err::OpenOptions::new()
        .write(true)
        .open(place.join(WEIGHTS_FILE))
        .expect("writable");
    weights.file().set_modified(time).expect("settable");
}

#[test]
fn killed_while_staging() {
    let root = temporary();
    save(&open(root.path()), "mood", 1);
    let staging = root.path().join(STAGING);
    let half = staging.join(".tmpA/name").join(version(2).as_str());
    fs_err::create_dir_all(&half).expect("writable");
    fs_err::write(half.join(CONFIG_FILE), &files(2).config[..9]).expect("writable");
    fs_err::create_dir_all(staging.join(".tmpB")).expect("writable");
    fs_err::write(staging.join(".tmpB/active"), "{\"acti").expect("writable");

    let store = open(root.path());
    assert!(staging_is_empty(&store));
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1])]);
    assert_eq!(ignored(&store), Vec::<String>::new());
    save(&store, "mood", 2);
}

#[test]
fn killed_between_a_save_and_its_activation() {
    let root = temporary();
    let store = open(root.path());
    save(&store, "mood", 1);
    store.set_active("mood", &version(1), None).expect("saved");
    save(&store, "mood", 2);
    save(&store, "gist", 3);
    let want = [of("gist", 3, None, &[3]), of("mood", 1, None, &[1, 2])];
    assert_eq!(scanned(&open(root.path())), want);
}

#[test]
fn killed_while_removing() {
    let root = temporary();
    let store = open(root.path());
    let place = save(&store, "mood", 1);
    save(&store, "mood", 2);
    store
        .set_active("mood", &version(2), Some(&version(1)))
        .expect("saved");
    let staged = root.path().join(STAGING).join(".tmpC");
    fs_err::create_dir(&staged).expect("writable");
    fs_err::rename(&place, staged.join("removed")).expect("renamable");

    // Out of sight, not deleted, and the record still names it as the version before.
    let store = open(root.path());
    assert!(staging_is_empty(&store));
    assert_eq!(scanned(&store), [of("mood", 2, None, &[2])]);
}

#[test]
fn killed_while_a_damaged_version_was_replaced() {
    let root = temporary();
    let store = open(root.path());
    save(&store, "mood", 1);
    let place = save(&store, "mood", 2);
    store
        .set_active("mood", &version(2), Some(&version(1)))
        .expect("saved");
    let staged = root.path().join(STAGING).join(".tmpD");
    fs_err::create_dir(&staged).expect("writable");
    fs_err::rename(&place, staged.join("damaged")).expect("renamable");

    let store = open(root.path());
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1])]);
    let reason = format!(
        "mood/active: damaged: version {} is recorded as active and is not there or not intact",
        version(2)
    );
    assert_eq!(ignored(&store), [reason]);
    save(&store, "mood", 2);
    assert_eq!(scanned(&store), [of("mood", 2, Some(1), &[1, 2])]);
}

#[test]
fn staging_that_is_a_file_gives_way() {
    let root = temporary();
    fs_err::write(root.path().join(STAGING), "in the way").expect("writable");
    save(&open(root.path()), "mood", 1);
}

#[test]
fn without_a_usable_record_the_newest_is_active() {
    let root = temporary();
    let store = open(root.path());
    for (number, seconds) in [(1, 20), (2, 30), (3, 10)] {
        written_at(&save(&store, "mood", number), seconds);
    }
    let order: Vec<_> = store.scan().expect("readable")[0]
        .versions
        .iter()
        .map(|(version, _)| version.clone())
        .collect();
    assert_eq!(order, [version(3), version(1), version(2)]);
    let newest = [of("mood", 2, None, &[1, 2, 3])];
    assert_eq!(scanned(&store), newest);
    assert_eq!(ignored(&store), Vec::<String>::new());

    let record = root.path().join("mood/active");
    for broken in [
        "",
        "{\"active\":\"01",
        "{\"active\":\"../..\",\"previous\":null}",
    ] {
        fs_err::write(&record, broken).expect("writable");
        let store = open(root.path());
        assert_eq!(scanned(&store), newest, "{broken}");
        let ignored = ignored(&store);
        assert_eq!(ignored.len(), 1);
        assert!(
            ignored[0].starts_with("mood/active: damaged: "),
            "{ignored:?}"
        );
    }
    store.set_active("mood", &version(1), None).expect("saved");
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1, 2, 3])]);
}

#[test]
fn damaged_versions_are_passed_over_and_named() {
    let root = temporary();
    let store = open(root.path());
    let places: Vec<_> = (1..=4).map(|number| save(&store, "mood", number)).collect();
    fs_err::remove_file(places[0].join(WEIGHTS_FILE)).expect("there");
    fs_err::write(places[1].join(CONFIG_FILE), "{\"peft").expect("writable");
    fs_err::write(places[2].join(WEIGHTS_FILE), [3; 39]).expect("writable");
    store
        .set_active("mood", &version(3), Some(&version(2)))
        .expect("there, if damaged");

    let store = open(root.path());
    assert_eq!(scanned(&store), [of("mood", 4, None, &[4])]);
    let ignored = ignored(&store);
    assert_eq!(ignored.len(), 4);
    for (number, what) in [
        (1, WEIGHTS_FILE),
        (2, CONFIG_FILE),
        (3, "its content is that of version"),
    ] {
        let start = format!("mood/{}: damaged: ", version(number));
        let line = ignored.iter().find(|line| line.starts_with(&start));
        assert!(line.is_some_and(|line| line.contains(what)), "{ignored:?}");
    }
    assert!(
        ignored[3].starts_with("mood/active: damaged: "),
        "{ignored:?}"
    );
}

#[test]
fn an_empty_directory_of_a_name_is_no_obstacle() {
    let root = temporary();
    fs_err::create_dir(root.path().join("mood")).expect("writable");
    let store = open(root.path());
    assert_eq!(scanned(&store), []);
    assert_eq!(ignored(&store), ["mood: damaged: no intact version in it"]);
    save(&store, "mood", 1);
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1])]);
}

#[cfg(unix)]
#[test]
fn strangers_are_left_alone() {
    let root = temporary();
    let elsewhere = temporary();
    let other = save(&open(elsewhere.path()), "mood", 1);
    let path = |name: &str| root.path().join(name);
    save(&open(root.path()), "mood", 1);
    fs_err::create_dir_all(path("evaluations/eval_1")).expect("writable");
    fs_err::create_dir(path("lost+found")).expect("writable");
    fs_err::write(path("notes.txt"), "mine").expect("writable");
    fs_err::write(path("mood/README"), "mine").expect("writable");
    let link = format!("mood/{}", version(3));
    fs_err::os::unix::fs::symlink(other, path(&link)).expect("writable");
    fs_err::os::unix::fs::symlink(elsewhere.path().join("mood"), path("linked")).expect("writable");

    let store = open(root.path());
    assert_eq!(scanned(&store), [of("mood", 1, None, &[1])]);
    let mut want = vec![
        "linked: foreign: not a directory".to_owned(),
        "lost+found: foreign: not the name of an adapter".to_owned(),
        "mood/README: foreign: not the 64 lower-case hex digits of a version".to_owned(),
        format!("{link}: foreign: not a directory"),
        "notes.txt: foreign: not a directory".to_owned(),
    ];
    let mut got = ignored(&store);
    got.sort();
    want.sort();
    assert_eq!(got, want);
    assert!(path("evaluations/eval_1").is_dir());
    assert!(path("lost+found").is_dir() && path("notes.txt").is_file());
}
