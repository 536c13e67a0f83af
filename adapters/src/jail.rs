//! Which directories a request may name: those inside the configured roots, and nothing else.

use std::path::{Component, Path, PathBuf};

use crate::AdapterError;
use crate::files::{CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE};

/// Finds the directory `requested` inside one of `roots` (tried in order) and returns its real
/// path. Nothing is read.
///
/// `requested` is relative to the roots, or absolute and inside of one. Symbolic links may be used
/// as long as the directory, and each adapter file in it, really lies inside a root.
///
/// # Errors
/// [`AdapterError::PathEscapes`] for `..`, an absolute path outside of every root, and symbolic
/// links that leave them; it does not tell whether such a path exists.
/// [`AdapterError::PathNotFound`] when no root has such a directory.
pub fn resolve_under(roots: &[PathBuf], requested: &str) -> Result<PathBuf, AdapterError> {
    let path = Path::new(requested);
    let escapes = || AdapterError::PathEscapes {
        requested: requested.to_owned(),
    };
    let climbs = |part: Component<'_>| matches!(part, Component::ParentDir | Component::Prefix(_));
    if path.components().any(climbs) {
        return Err(escapes());
    }
    let real_roots: Vec<PathBuf> = roots
        .iter()
        .filter_map(|root| fs_err::canonicalize(root).ok())
        .collect();
    let is_inside = |real: &Path| real_roots.iter().any(|root| real.starts_with(root));
    let is_named_inside = |root: &PathBuf| path.starts_with(root);
    if path.is_absolute() && !roots.iter().chain(&real_roots).any(is_named_inside) {
        return Err(escapes());
    }
    let mut found = None;
    // Joining an absolute path gives that path, whatever the root.
    for candidate in real_roots.iter().map(|root| root.join(path)) {
        if let Ok(real) = fs_err::canonicalize(&candidate) {
            if !is_inside(&real) {
                return Err(escapes());
            }
            if real.is_dir() && !requested.is_empty() {
                found = Some(real);
                break;
            }
        }
    }
    let directory = found.ok_or_else(|| AdapterError::PathNotFound {
        requested: requested.to_owned(),
    })?;
    for name in [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE] {
        if let Ok(real) = fs_err::canonicalize(directory.join(name))
            && !is_inside(&real)
        {
            return Err(escapes());
        }
    }
    Ok(directory)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Folders {
        _top: tempfile::TempDir,
        root: PathBuf,
        outside: PathBuf,
    }

    fn folders() -> Folders {
        let top = tempfile::tempdir().expect("temporary folder");
        let real = fs_err::canonicalize(top.path()).expect("exists");
        let (root, outside) = (real.join("root"), real.join("root-of-others"));
        for folder in [&root.join("a/b"), &outside.join("secret")] {
            fs_err::create_dir_all(folder).expect("writable");
        }
        Folders {
            _top: top,
            root,
            outside,
        }
    }

    fn code(roots: &[PathBuf], requested: &str) -> &'static str {
        resolve_under(roots, requested).expect_err(requested).code()
    }

    #[test]
    fn folders_inside_are_found_in_the_first_root_that_has_them() {
        let folders = folders();
        let roots = [folders.root.clone(), folders.outside.clone()];
        let found = |requested: &str| resolve_under(&roots, requested).expect(requested);
        assert_eq!(found("a/b"), folders.root.join("a/b"));
        assert_eq!(found("./a//b/."), folders.root.join("a/b"));
        assert_eq!(found("secret"), folders.outside.join("secret"));
        let absolute = folders.root.join("a");
        assert_eq!(found(absolute.to_str().expect("text")), absolute);
    }

    #[test]
    fn nothing_outside_is_reached() {
        let folders = folders();
        let roots = [folders.root.clone()];
        symlink(&folders.outside, folders.root.join("link")).expect("writable");
        symlink("a/b", folders.root.join("inner")).expect("writable");
        let outside = folders.outside.join("secret");
        for requested in [
            "..",
            "a/../..",
            "/etc",
            "/no/such/folder",
            "link",
            "link/secret",
        ] {
            assert_eq!(code(&roots, requested), "path_escapes", "{requested}");
        }
        assert_eq!(
            code(&roots, outside.to_str().expect("text")),
            "path_escapes"
        );
        assert_eq!(code(&roots, "a/../a"), "path_escapes");
        assert_eq!(
            resolve_under(&roots, "inner").expect("stays inside"),
            folders.root.join("a/b")
        );
        for requested in ["", "missing", "a\0b"] {
            assert_eq!(code(&roots, requested), "path_not_found", "{requested:?}");
        }
        assert_eq!(code(&[], "a"), "path_not_found");
    }

    #[test]
    fn a_file_that_links_outside_is_refused() {
        let folders = folders();
        let roots = [folders.root.clone()];
        let secret = folders.outside.join("weights");
        fs_err::write(&secret, b"x").expect("writable");
        let link = folders.root.join("a/b").join(WEIGHTS_FILE);
        symlink(&secret, &link).expect("writable");
        assert_eq!(code(&roots, "a/b"), "path_escapes");
        fs_err::remove_file(&link).expect("exists");
        fs_err::write(folders.root.join("blob"), b"x").expect("writable");
        symlink("../../blob", &link).expect("writable");
        assert!(resolve_under(&roots, "a/b").is_ok());
    }
}
