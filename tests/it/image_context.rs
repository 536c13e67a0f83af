//! What is sent to the engine that builds the image: everything that the build needs.

use std::path::Path;

fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs_err::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_crate_of_the_workspace_goes_into_the_image() {
    let manifest = repository("Cargo.toml");
    let members = (manifest.lines())
        .find_map(|line| line.strip_prefix("members = [")?.strip_suffix(']'))
        .unwrap();
    let members: Vec<&str> = (members.split(", ").map(|name| name.trim_matches('"'))).collect();
    assert!(members.contains(&"server"), "{members:?}");
    let ignored = repository(".dockerignore");
    for member in members {
        let kept = ignored.lines().any(|line| line == format!("!{member}"));
        assert!(
            kept,
            "cargo will miss {member}: .dockerignore leaves it out"
        );
    }
}
