//! What a store holds: for a folder, a reading of the disk that fails for nothing less than an unreadable root.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use super::directory::{POINTER, QUARANTINE, STAGING, read_pointer};
use super::{ActivePointer, Pointed, PointerTag, RESERVED_NAMES, StoreError};
use crate::{AdapterError, AdapterFiles, AdapterName, Limits, Version, WEIGHTS_FILE};

/// One name in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAdapter {
    /// The adapter's name.
    pub name: String,
    /// What the name points at; without a usable pointer, the newest version. All it names are among `versions`.
    pub pointer: ActivePointer,
    /// The tag of the stored pointer, `None` when none is stored.
    pub tag: Option<PointerTag>,
    /// Every version, oldest first by the time its weights were written.
    pub versions: Vec<StoredVersion>,
}

/// One version of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredVersion {
    /// When its weights were written, seconds since 1970.
    pub written: u64,
    /// The version.
    pub version: Version,
}

/// Everything under a store's root.
#[derive(Debug, Default)]
pub struct StoreContents {
    /// The adapters, by name.
    pub adapters: Vec<StoredAdapter>,
    /// What was passed over, in the order of the paths. Nothing of it has been changed.
    pub ignored: Vec<IgnoredEntry>,
}

/// A file or directory that the store passed over.
#[derive(Debug)]
pub struct IgnoredEntry {
    /// Where it is.
    pub path: PathBuf,
    /// The version it is, when it is one; [`super::AdapterStore::quarantine`] takes it out of the way.
    pub version: Option<(String, Version)>,
    /// Why it was passed over.
    pub reason: IgnoredReason,
}

/// Why an entry of the store was passed over.
#[derive(Debug, Error)]
pub enum IgnoredReason {
    /// Its name is neither an adapter's nor the store's own.
    #[error("foreign: not the name of an adapter")]
    NotAName,
    /// It stands in an adapter's directory and is neither a version nor the record of the active one.
    #[error("foreign: not the 64 lower-case hex digits of a version")]
    NotAVersion,
    /// It is a file or a link where a directory was expected.
    #[error("foreign: not a directory")]
    NotADirectory,
    /// An adapter's directory without an intact version.
    #[error("damaged: no intact version in it")]
    NoVersion,
    /// A version's directory whose files cannot be read or parsed.
    #[error("damaged: {0}")]
    Unreadable(#[from] AdapterError),
    /// A version's directory with the content of another version.
    #[error("damaged: its content is that of version {got}")]
    OtherContent {
        /// The version of the content.
        got: Version,
    },
    /// A directory or record that cannot be read.
    #[error("damaged: {0}")]
    Io(#[from] std::io::Error),
    /// A pointer that cannot be read; the newest version is taken for active.
    #[error("damaged: {0}")]
    Pointer(String),
    /// A pointer to a version which is not there; the newest is taken for active.
    #[error("damaged: version {active} is recorded as active and is not there or not intact")]
    ActiveMissing {
        /// The version recorded as active.
        active: Version,
    },
}

/// Reads everything under `root`.
pub(super) fn survey(root: &Path) -> std::io::Result<StoreContents> {
    let mut contents = StoreContents::default();
    for path in entries(root)? {
        let name = file_name(&path);
        let own =
            |name: &str| name == STAGING || name == QUARANTINE || RESERVED_NAMES.contains(&name);
        if name.is_some_and(own) {
            continue;
        }
        let adapter = match name {
            Some(name) if AdapterName::parse(name, &[]).is_ok() => {
                stored_adapter(name, &path, &mut contents.ignored)
            }
            _ => Err(IgnoredReason::NotAName),
        };
        match adapter {
            Ok(adapter) => contents.adapters.push(adapter),
            Err(reason) => contents.ignored.push(IgnoredEntry {
                path,
                version: None,
                reason,
            }),
        }
    }
    Ok(contents)
}

/// Whether `directory` holds the files of `version`, whole and unchanged.
pub(super) fn check(directory: &Path, version: &Version) -> Result<(), IgnoredReason> {
    read(directory, version).map(drop)
}

/// The files in `directory`, which must be those of `version`.
pub(super) fn read(directory: &Path, version: &Version) -> Result<AdapterFiles, IgnoredReason> {
    // They were within somebody's limits when they were saved; serving checks today's.
    let no_limits = Limits {
        max_rank: usize::MAX,
        max_bytes: u64::MAX,
    };
    if !fs_err::symlink_metadata(directory)?.is_dir() {
        return Err(IgnoredReason::NotADirectory);
    }
    let files = AdapterFiles::read(directory, &no_limits)?;
    let got = files.version()?;
    match got == *version {
        true => Ok(files),
        false => Err(IgnoredReason::OtherContent { got }),
    }
}

fn stored_adapter(
    name: &str,
    directory: &Path,
    ignored: &mut Vec<IgnoredEntry>,
) -> Result<StoredAdapter, IgnoredReason> {
    if !fs_err::symlink_metadata(directory)?.is_dir() {
        return Err(IgnoredReason::NotADirectory);
    }
    let mut versions = Vec::new();
    for path in entries(directory)? {
        if file_name(&path) == Some(POINTER) {
            continue;
        }
        match stored_version(&path) {
            Ok(stored) => versions.push(stored),
            Err(reason) => ignored.push(IgnoredEntry {
                version: parse_version(&path).map(|version| (name.to_owned(), version)),
                path,
                reason,
            }),
        }
    }
    versions.sort();
    let Some(newest) = versions.last().cloned() else {
        return Err(IgnoredReason::NoVersion);
    };
    let first = ActivePointer::first(newest.version.clone(), newest.written);
    let mut passed_over = |reason| {
        ignored.push(IgnoredEntry {
            path: directory.join(POINTER),
            version: None,
            reason,
        });
    };
    let (pointer, tag) = match stored_pointer(name, directory) {
        Ok(None) => (first, None),
        Ok(Some(pointed)) => match among(pointed.pointer, &versions) {
            Ok(pointer) => (pointer, Some(pointed.tag)),
            Err(reason) => {
                passed_over(reason);
                // It still is what a successor takes the place of.
                (first, Some(pointed.tag))
            }
        },
        Err(reason) => {
            passed_over(reason);
            (first, None)
        }
    };
    Ok(StoredAdapter {
        name: name.to_owned(),
        pointer,
        tag,
        versions,
    })
}

fn stored_pointer(name: &str, directory: &Path) -> Result<Option<Pointed>, IgnoredReason> {
    match read_pointer(name, directory) {
        Ok(pointed) => Ok(pointed),
        Err(StoreError::Io(error)) => Err(error.into()),
        Err(error) => Err(IgnoredReason::Pointer(error.to_string())),
    }
}

/// The pointer without what is not stored.
///
/// # Errors
/// `ActiveMissing` when its active version is not.
pub(super) fn among(
    mut pointer: ActivePointer,
    versions: &[StoredVersion],
) -> Result<ActivePointer, IgnoredReason> {
    let is_stored = |wanted: &Version| versions.iter().any(|stored| stored.version == *wanted);
    if !is_stored(&pointer.active) {
        return Err(IgnoredReason::ActiveMissing {
            active: pointer.active,
        });
    }
    let missing: Vec<Version> = (pointer.versions().filter(|version| !is_stored(version)))
        .cloned()
        .collect();
    for version in &missing {
        pointer = pointer.without(version);
    }
    if pointer.previous.as_ref() == Some(&pointer.active) {
        pointer.previous = None;
    }
    Ok(pointer)
}

fn stored_version(path: &Path) -> Result<StoredVersion, IgnoredReason> {
    let version = parse_version(path).ok_or(IgnoredReason::NotAVersion)?;
    check(path, &version)?;
    let modified = fs_err::metadata(path.join(WEIGHTS_FILE))?.modified()?;
    let written = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Ok(StoredVersion { written, version })
}

fn parse_version(path: &Path) -> Option<Version> {
    file_name(path)?.parse().ok()
}

/// The file name, `None` when it is not UTF-8, as no name of ours is.
fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Paths of a directory's entries, sorted.
fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = fs_err::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
