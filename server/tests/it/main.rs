//! The command `server` as a shell sees it.
#![forbid(unsafe_code)]

mod keys;
mod running;
mod secrets;

use std::process::{Command, Output};

/// The command without any setting.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    // The settings of the caller's shell are for the caller's server.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUICKCHANGE_")) {
        command.env_remove(name);
    }
    command
}

fn server(arguments: &[&str]) -> Output {
    let mut command = command();
    let output = command.args(arguments).output();
    output.expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the command writes UTF-8")
}

#[test]
fn the_committed_document_is_what_the_command_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/openapi.json");
    let committed = fs_err::read_to_string(path).unwrap_or_default();
    let printed = server(&["openapi"]);
    assert!(printed.status.success());
    assert!(
        text(&printed.stdout) == committed,
        "openapi/openapi.json is out of date; run `make openapi`"
    );
}

#[test]
fn a_model_that_is_not_there_is_an_error_that_says_what_to_do() {
    let refused = server(&["--model", "nowhere/model.gguf", "--port", "0"]);
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(
        said.contains("nowhere/model.gguf") && said.contains("make model"),
        "{said}"
    );
}

#[test]
fn a_flag_that_is_not_known_is_named() {
    let refused = server(&["--kernel", "portable"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--kernel"));
}
