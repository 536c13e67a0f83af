use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn new_key(name: &str) -> NewKey {
    NewKey {
        name: name.to_owned(),
        scopes: vec![Scope::Inference],
        expires: None,
        limits: KeyLimits::default(),
    }
}

const WRITTEN: &str = r#"{
  "keys": [
    {
      "id": "key-5f2a",
      "name": "shop",
      "scopes": [
        "inference",
        "metrics"
      ],
      "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      "created": "2026-11-28T01:02:03Z",
      "expires": "2027-12-31T00:00:00Z",
      "limits": {
        "max_concurrent": 4,
        "tokens_per_minute": 100000
      }
    }
  ]
}
"#;

#[test]
fn a_file_is_read_as_it_is_written() {
    let file = KeyFile::parse(WRITTEN).expect("a file of keys");
    let key = &file.keys[0];
    assert_eq!((key.id.as_str(), key.name.as_str()), ("key-5f2a", "shop"));
    assert_eq!(key.scopes, [Scope::Inference, Scope::Metrics]);
    assert!(bool::from(
        key.digest().expect("a digest").is(&Digest::of("abc"))
    ));
    assert_eq!(key.limits.max_concurrent, NonZeroU32::new(4));
    assert_eq!(key.limits.requests_per_minute, None);
    assert_eq!(file.to_text().expect("text"), WRITTEN);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (wrong, right, said) in [
        ("\"limits\"", "\"limit\"", "unknown field `limit`"),
        (": 4", ": 0", "keys[0].limits.max_concurrent"),
        ("\"metrics\"", "\"root\"", "unknown variant `root`"),
        ("\"shop\"", "\"\"", "name of key key-5f2a"),
        ("ba78", "x", "sha256 of key key-5f2a"),
        ("key-5f2a", "api-key-1", "keys[0].id"),
        ("key-5f2a", "a b", "keys[0].id"),
        ("2027-12-31T00:00:00Z", "soon", "keys[0].expires"),
        ("]\n}", "]", "EOF"),
    ] {
        let text = WRITTEN.replacen(wrong, right, 1);
        let error = KeyFile::parse(&text).expect_err(said).to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let mut twice = KeyFile::parse(WRITTEN).expect("a file of keys");
    twice.keys.push(twice.keys[0].clone());
    let error = twice.check().expect_err("one id twice").to_string();
    assert!(error.contains("two keys have the id key-5f2a"), "{error}");
    twice.keys[1].id = "key-2".to_owned();
    let error = twice.check().expect_err("one key twice").to_string();
    assert!(error.contains("key-2 has the sha256"), "{error}");
}

#[test]
fn no_error_holds_a_key_or_a_digest_wherever_it_was_put() {
    let key = Secret::generate().expect("random bytes");
    let digest = key.digest().to_hex();
    for secret in [key.reveal(), digest.as_str()] {
        for place in [
            "key-5f2a",
            "inference",
            "sha256",
            "keys",
            "max_concurrent",
            "2026-11-28T01:02:03Z",
        ] {
            let text = WRITTEN.replacen(place, secret, 1);
            if let Err(error) = KeyFile::parse(&text) {
                let said = format!("{error} {error:?}");
                assert!(!said.contains(secret), "{place}: {said}");
            }
        }
    }
}

#[test]
fn a_key_is_added_and_removed_in_a_file_for_its_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let (secret, stored) = KeyFile::create(&path, new_key("shop")).expect("created");
    assert_eq!(KeyFile::is_open_to_others(&path).expect("there"), None);
    let read = KeyFile::read(&path).expect("read");
    assert!(bool::from(
        read.keys[0].digest().expect("valid").is(&secret.digest())
    ));
    let text = fs_err::read_to_string(&path).expect("read");
    assert!(!text.contains(secret.reveal()));
    assert!(KeyFile::revoke(&path, "key-none").is_err());
    KeyFile::revoke(&path, &stored.id).expect("revoked");
    assert!(KeyFile::read(&path).expect("read").keys.is_empty());
}

#[test]
fn a_file_that_others_can_read_is_found_out_and_closed_by_the_next_change() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    fs_err::write(&path, WRITTEN).expect("written");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened up");
    assert_eq!(
        KeyFile::is_open_to_others(&path).expect("there"),
        Some(0o644)
    );
    KeyFile::create(&path, new_key("other")).expect("created");
    assert_eq!(KeyFile::is_open_to_others(&path).expect("there"), None);
}

#[test]
fn no_change_is_lost_when_many_are_made_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Arc::new(folder.path().join("keys.json"));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let path = Arc::clone(&path);
            std::thread::spawn(move || {
                for _ in 0..4 {
                    let name = format!("writer {writer}");
                    let (_, kept) = KeyFile::create(&path, new_key(&name)).expect("created");
                    let (_, gone) = KeyFile::create(&path, new_key(&name)).expect("created");
                    KeyFile::revoke(&path, &gone.id).expect("revoked");
                    assert_ne!(kept.id, gone.id);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("no writer failed");
    }
    let keys = KeyFile::read(&path).expect("whole").keys;
    assert_eq!(keys.len(), 32);
    for writer in 0..8 {
        let name = format!("writer {writer}");
        assert_eq!(keys.iter().filter(|key| key.name == name).count(), 4);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = KeyFile::parse(&text);
    }

    #[test]
    fn a_file_with_any_part_replaced_is_read_or_refused(
        start in 0..WRITTEN.len(), length in 0usize..40, other in "[ -~é\n]{0,40}",
    ) {
        let end = (start + length).min(WRITTEN.len());
        let text = format!("{}{other}{}", &WRITTEN[..start], &WRITTEN[end..]);
        if let Ok(file) = KeyFile::parse(&text) {
            let again = KeyFile::parse(&file.to_text().expect("text")).expect("what was written");
            prop_assert_eq!(again.to_text().expect("text"), file.to_text().expect("text"));
        }
    }
}
