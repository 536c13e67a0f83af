//! Files that stand beside the output directory while training runs, because the directory appears whole or not at all.

use std::path::{Path, PathBuf};

/// `out` with `.name` appended to its last part.
pub(crate) fn beside(out: &Path, name: &str) -> PathBuf {
    let mut file_name = out.file_name().unwrap_or_default().to_os_string();
    file_name.push(".");
    file_name.push(name);
    out.with_file_name(file_name)
}
