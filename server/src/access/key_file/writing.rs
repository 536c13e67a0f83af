//! Changing the file: one process at a time, written aside and renamed, so that nobody ever reads half of it.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::{KeyFile, KeyFileError, NewKey, StoredKey};
use crate::access::secret::Secret;

/// Bits of a mode that let others than the owner at a file.
const OTHERS: u32 = 0o077;

impl KeyFile {
    /// Adds a key; the file is made if it is not there.
    ///
    /// # Errors
    /// When the file cannot be read, locked or replaced, or the key cannot be used.
    pub fn create(path: &Path, new: NewKey) -> Result<(Secret, StoredKey), KeyFileError> {
        edit(path, true, |file| {
            let (secret, stored) = StoredKey::generate(new)?;
            file.keys.push(stored.clone());
            file.check()?;
            Ok((secret, stored))
        })
    }

    /// Removes a key.
    ///
    /// # Errors
    /// `NotFound`, and when the file cannot be read, locked or replaced.
    pub fn revoke(path: &Path, id: &str) -> Result<StoredKey, KeyFileError> {
        edit(path, false, |file| {
            let position = file.keys.iter().position(|key| key.id == id);
            let position = position.ok_or_else(|| KeyFileError::NotFound { id: id.to_owned() })?;
            Ok(file.keys.remove(position))
        })
    }

    /// Whether others than its owner may read or write a file, and its mode.
    ///
    /// # Errors
    /// When it is not there.
    pub fn is_open_to_others(path: &Path) -> Result<Option<u32>, KeyFileError> {
        let mode = fs_err::metadata(path)?.permissions().mode() & 0o777;
        Ok((mode & OTHERS != 0).then_some(mode))
    }
}

fn edit<T>(
    path: &Path,
    may_be_new: bool,
    change: impl FnOnce(&mut KeyFile) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    // What a link points at is replaced, not the link.
    let path = match fs_err::canonicalize(path) {
        Ok(path) => path,
        Err(_) => path.to_owned(),
    };
    let lock = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_of(&path))?;
    // Beside the file, which is another one after every change.
    lock.file().lock()?;
    let mut file = match KeyFile::read(&path) {
        Err(KeyFileError::Io(error)) if may_be_new && error.kind() == ErrorKind::NotFound => {
            KeyFile::default()
        }
        read => read?,
    };
    let outcome = change(&mut file)?;
    replace(&path, &file.to_text()?)?;
    Ok(outcome)
}

fn lock_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.lock"))
}

/// Puts a text in the place of a file, readable by its owner alone.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Only its owner may open what tempfile makes.
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(text.as_bytes())?;
    if let Ok(before) = fs_err::metadata(path) {
        let own = aside.as_file().metadata()?;
        if (before.uid(), before.gid()) != (own.uid(), own.gid()) {
            // The server that reads it may be another user than the one who changes it.
            fchown(aside.as_file(), Some(before.uid()), Some(before.gid()))?;
        }
    }
    aside.as_file().sync_all()?;
    aside.persist(path)?;
    fs_err::File::open(folder)?.sync_all()
}
