//! What a store holds: a reading of the disk that fails for nothing less than an unreadable root.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use super::active::{self, Active};
use super::{STAGING, Store};
use crate::{AdapterError, AdapterFiles, AdapterName, Limits, Version, WEIGHTS_FILE};

/// One name in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAdapter {
    /// The adapter's name.
    pub name: String,
    /// The version recorded as active; without a usable record, the newest. Always one of `versions`.
    pub active: Version,
    /// The version recorded as active before, when it is one of `versions`.
    pub previous: Option<Version>,
    /// Every intact version with its directory, oldest first by the time its weights were written.
    pub versions: Vec<(Version, PathBuf)>,
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
    /// A record that names a version which is not there; the newest is taken for active.
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
        if name.is_some_and(|name| name == STAGING || Store::RESERVED_NAMES.contains(&name)) {
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
            Err(reason) => contents.ignored.push(IgnoredEntry { path, reason }),
        }
    }
    Ok(contents)
}

/// Whether `directory` holds the files of `version`, whole and unchanged.
pub(super) fn check(directory: &Path, version: &Version) -> Result<(), IgnoredReason> {
    // They were within somebody's limits when they were saved; serving checks today's.
    let no_limits = Limits {
        max_rank: usize::MAX,
        max_bytes: u64::MAX,
    };
    if !fs_err::symlink_metadata(directory)?.is_dir() {
        return Err(IgnoredReason::NotADirectory);
    }
    let got = AdapterFiles::read(directory, &no_limits)?.version()?;
    if got != *version {
        return Err(IgnoredReason::OtherContent { got });
    }
    Ok(())
}

/// Whether an adapter's directory holds a version beside `version`, intact or not.
pub(super) fn has_other_version(directory: &Path, version: &Version) -> std::io::Result<bool> {
    Ok(entries(directory)?
        .iter()
        .filter_map(|path| parse_version(path))
        .any(|other| other != *version))
}

fn stored_adapter(
    name: &str,
    directory: &Path,
    ignored: &mut Vec<IgnoredEntry>,
) -> Result<StoredAdapter, IgnoredReason> {
    if !fs_err::symlink_metadata(directory)?.is_dir() {
        return Err(IgnoredReason::NotADirectory);
    }
    let mut found = Vec::new();
    for path in entries(directory)? {
        if file_name(&path) == Some(active::FILE) {
            continue;
        }
        match stored_version(&path) {
            Ok((written, version)) => found.push((written, version, path)),
            Err(reason) => ignored.push(IgnoredEntry { path, reason }),
        }
    }
    found.sort();
    let versions: Vec<_> = found
        .into_iter()
        .map(|(_, version, path)| (version, path))
        .collect();
    let newest = match versions.last() {
        Some((newest, _)) => newest.clone(),
        None => return Err(IgnoredReason::NoVersion),
    };
    let is_stored = |wanted: &Version| versions.iter().any(|(version, _)| version == wanted);
    let (active, previous) = match recorded(directory, is_stored) {
        Ok(Some(record)) => (record.active, record.previous),
        Ok(None) => (newest, None),
        Err(reason) => {
            let path = directory.join(active::FILE);
            ignored.push(IgnoredEntry { path, reason });
            (newest, None)
        }
    };
    Ok(StoredAdapter {
        name: name.to_owned(),
        active,
        previous,
        versions,
    })
}

/// The record of the active version, if there is one and it names a stored version.
fn recorded(
    directory: &Path,
    is_stored: impl Fn(&Version) -> bool,
) -> Result<Option<Active>, IgnoredReason> {
    match Active::read(directory)? {
        Some(record) if !is_stored(&record.active) => Err(IgnoredReason::ActiveMissing {
            active: record.active,
        }),
        Some(record) => Ok(Some(Active {
            previous: record
                .previous
                .filter(|previous| *previous != record.active && is_stored(previous)),
            active: record.active,
        })),
        None => Ok(None),
    }
}

fn stored_version(path: &Path) -> Result<(SystemTime, Version), IgnoredReason> {
    let version = parse_version(path).ok_or(IgnoredReason::NotAVersion)?;
    check(path, &version)?;
    let written = fs_err::metadata(path.join(WEIGHTS_FILE))?.modified()?;
    Ok((written, version))
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
