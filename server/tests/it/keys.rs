//! `server keys`, the signal that makes a server read its files again, and what it refuses to start with.

use std::path::Path;
use std::process::Output;

use rustix::process::Signal;

use crate::running::Running;
use crate::{server, text};

fn keys(file: &Path, arguments: &[&str]) -> Output {
    let (command, rest) = arguments.split_first().expect("a command");
    let file = file.to_str().expect("UTF-8");
    let mut all = vec!["keys", command, "--keys", file];
    all.extend(rest);
    server(&all)
}

/// Makes a key; the key and its id.
fn create(file: &Path, arguments: &[&str]) -> (String, String) {
    let mut all = vec!["create", "--name", "a test's"];
    all.extend(arguments);
    let made = keys(file, &all);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let said = text(&made.stderr);
    let id = said.split(' ').next().expect("an id").to_owned();
    assert!(id.starts_with("key-"), "{said}");
    (text(&made.stdout).trim_end().to_owned(), id)
}

#[test]
fn a_key_is_made_listed_and_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    let flags = [
        "--scope",
        "inference",
        "--scope",
        "metrics",
        "--max-concurrent",
        "4",
    ];
    let (key, id) = create(&file, &flags);
    assert!(key.starts_with("qc_") && key.len() == 67, "{key}");
    let (other, _) = create(&file, &["--scope", "admin", "--expires", "2027-12-31"]);
    let listed = keys(&file, &["list"]);
    let listed = text(&listed.stdout);
    for words in [
        &id,
        "inference, metrics",
        "max_concurrent 4",
        "2027-12-31T00:00:00Z",
    ] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let kept = fs_err::read_to_string(&file).expect("the file");
    for secret in [&key, &other, &key[3..]] {
        assert!(!kept.contains(secret) && !listed.contains(secret));
    }
    let revoked = keys(&file, &["revoke", &id]);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    assert!(!text(&keys(&file, &["list"]).stdout).contains(&id));
    let again = keys(&file, &["revoke", &id]);
    assert!(!again.status.success());
    assert!(text(&again.stderr).contains(&format!("there is no key {id}")));
}

#[test]
fn a_key_for_nothing_or_without_sense_is_not_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    for (flags, said) in [
        (vec!["create", "--name", "x"], "--scope"),
        (vec!["create", "--name", "x", "--scope", "root"], "metrics"),
        (
            vec!["create", "--name", "", "--scope", "admin"],
            "printable",
        ),
        (
            vec![
                "create",
                "--name",
                "x",
                "--scope",
                "admin",
                "--max-concurrent",
                "0",
            ],
            "--max-concurrent",
        ),
        (
            vec![
                "create",
                "--name",
                "x",
                "--scope",
                "admin",
                "--expires",
                "soon",
            ],
            "2027-12-31",
        ),
        (vec!["list"], "keys.json"),
    ] {
        let refused = keys(&file, &flags);
        assert!(!refused.status.success(), "{flags:?}");
        let error = text(&refused.stderr);
        assert!(error.contains(said), "{flags:?}: {error}");
        assert!(!file.exists(), "{flags:?}");
    }
}

#[test]
fn a_server_that_anybody_could_reach_or_that_is_half_configured_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store").display().to_string();
    let file = folder.path().join("nonsense").display().to_string();
    fs_err::write(&file, "nonsense").expect("written");
    let inside = format!("{file}/audit");
    for (flags, said) in [
        (vec!["--host", "0.0.0.0"], "pass --allow-anonymous"),
        (vec!["--tls-key", &file], "only --tls-key is set"),
        (
            vec!["--tls-certificate", &file],
            "only --tls-certificate is set",
        ),
        (
            vec!["--tls-certificate", &file, "--tls-key", &file],
            "holds no certificate",
        ),
        (
            vec!["--tls-certificate", "/nowhere", "--tls-key", &file],
            "/nowhere",
        ),
        (vec!["--keys", &file], "--keys"),
        (vec!["--keys", "/nowhere"], "server keys create"),
        (vec!["--audit-log", &inside], "--audit-log"),
    ] {
        let mut all = vec!["--store", &store, "--model", "/nowhere.gguf"];
        all.extend(&flags);
        let refused = server(&all);
        assert!(!refused.status.success(), "{flags:?}");
        let error = text(&refused.stderr);
        assert!(error.contains(said), "{flags:?}: {error}");
        assert!(!error.contains("panicked"), "{flags:?}: {error}");
    }
    // With leave to do so, what is missing is the model.
    let flags = ["--host", "0.0.0.0", "--allow-anonymous", "--port", "0"];
    let mut all = vec!["--store", &store, "--model", "/nowhere.gguf"];
    all.extend(flags);
    assert!(text(&server(&all).stderr).contains("/nowhere.gguf"));
}

#[tokio::test]
async fn a_hangup_makes_a_running_server_read_its_keys_again() {
    let mut running = Running::start(|folder, command| {
        let file = folder.join("keys.json");
        create(&file, &["--scope", "admin"]);
        command.arg("--keys").arg(file);
    });
    let file = running.file("keys.json");
    let (key, id) = create(&file, &["--scope", "inference"]);
    let status = async |running: &Running| {
        let request = reqwest::Client::new().get(running.url("/v1/models"));
        let answer = request.bearer_auth(&key).send().await;
        answer.expect("an answer").status().as_u16()
    };
    assert_eq!(status(&running).await, 401);
    running.signal(Signal::HUP);
    running.wait_for("keys read again");
    assert_eq!(status(&running).await, 200);
    let whole = fs_err::read_to_string(&file).expect("the file");
    fs_err::write(&file, "{").expect("written");
    running.signal(Signal::HUP);
    let error = running.wait_for("cannot be read again");
    assert!(error.contains("keys"), "{error}");
    assert_eq!(status(&running).await, 200);
    fs_err::write(&file, whole).expect("written");
    assert!(keys(&file, &["revoke", &id]).status.success());
    running.signal(Signal::HUP);
    running.wait_for("keys read again");
    assert_eq!(status(&running).await, 401);
}
