//! Files that some tests need and a checkout may not have. Who asks for one that is missing is skipped by name.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The default base model as `make model` leaves it: the file `QUICKCHANGE_MODEL` names, or the one in the cache
/// (`QUICKCHANGE_CACHE`, else `.cache`). Says on standard error that `test` is skipped when it is not there.
pub fn base_model(test: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cached = || {
        std::env::var_os("QUICKCHANGE_CACHE")
            .map_or_else(|| workspace.join(".cache"), PathBuf::from)
            .join("models/SmolLM2-135M-Instruct.Q4_1.gguf")
    };
    let path = std::env::var_os("QUICKCHANGE_MODEL").map_or_else(cached, PathBuf::from);
    existing(path, test, "run `make model`")
}

/// The folder of reference values made with PyTorch, beside the repository. Says on standard error that `test` is skipped
/// when it is not there.
pub fn reference_values(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/parity");
    existing(folder, test, "these values are not part of the repository")
}

fn existing(path: PathBuf, test: &str, remedy: &str) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    say_skipped(test, &format!("there is no {}; {remedy}", path.display()));
    None
}

/// Says on standard error that a test is skipped, and why, past the test harness, which would keep it to itself.
pub fn say_skipped(test: &str, reason: &str) {
    // Nobody reads a standard error that cannot be written to.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}
