//! The store: adapter versions as plain files under one root, so that they outlive the process.
//!
//! Here belong the layout, the order of writes that makes every change atomic, and the cleaning of what a killed
//! process left behind. Whether an adapter can be served is for [`crate::Adapter::parse`] to say, and what is
//! loaded is the registry's business.
//!
//! ```text
//! <root>/<name>/<version>/{adapter_config.json, adapter_model.safetensors, manifest.json?}
//! <root>/<name>/active        {"active": "<version>", "previous": "<version>" or null}
//! <root>/.staging/            what is being written or deleted; emptied when the store opens
//! <root>/evaluations/         not the store's; left alone
//! ```
//!
//! A change is prepared in `.staging` with every file and directory synced, then becomes visible by one rename. A
//! process killed at any moment leaves the state before or the state after, and debris in `.staging`.

mod active;
mod contents;
#[cfg(test)]
mod crash_tests;
mod error;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use self::active::Active;
pub use self::contents::{IgnoredEntry, IgnoredReason, StoreContents, StoredAdapter};
pub use self::error::StoreError;
use crate::{AdapterFiles, AdapterName, CONFIG_FILE, MANIFEST_FILE, Version, WEIGHTS_FILE};

const STAGING: &str = ".staging";
/// What stands for a name and a version while its files are staged.
const STAGED_NAME: &str = "name";
const STAGED_VERSION: &str = "version";

/// Adapters on disk, under one root that one process at a time writes.
///
/// Calls block on the disk; the threads that make them may be many.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Held while a staged change is renamed into place, not while it is staged.
    changes: Mutex<()>,
}

/// An adapter's files on the disk, not yet part of the store.
#[derive(Debug)]
pub struct Staged {
    /// Where the name's versions are, or will be.
    directory: PathBuf,
    staging: TempDir,
}

impl Store {
    /// Names in the root that are not adapters'. The store leaves them alone and refuses adapters of these names.
    pub const RESERVED_NAMES: [&'static str; 1] = ["evaluations"];

    /// Opens the store at `root`, makes the directory when it is missing, and removes what writes and removals
    /// left unfinished.
    ///
    /// # Errors
    /// `Io` when the root cannot be made or cleaned.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        fs_err::create_dir_all(root)?;
        let staging = root.join(STAGING);
        match fs_err::symlink_metadata(&staging) {
            Ok(metadata) if metadata.is_dir() => fs_err::remove_dir_all(&staging)?,
            Ok(_) => fs_err::remove_file(&staging)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        fs_err::create_dir(&staging)?;
        Ok(Self {
            root: root.to_owned(),
            changes: Mutex::new(()),
        })
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a version of `name`; it is on the disk when the call returns. Which version is active does not change.
    ///
    /// A version that is there and intact stays as it is; a damaged one is replaced.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one or files without a version, `VersionMismatch` when `files` are another
    /// version's, `Io`.
    pub fn save(
        &self,
        name: &str,
        version: &Version,
        files: &AdapterFiles,
    ) -> Result<(), StoreError> {
        let got = files.version()?;
        if got != *version {
            return Err(StoreError::VersionMismatch {
                name: name.to_owned(),
                expected: version.clone(),
                got,
            });
        }
        self.commit(self.stage(name, files)?, version)
    }

    /// Writes files beside the store, so that [`Store::commit`] has next to nothing left to do once they are known to be
    /// good. Nothing is stored yet; what is staged and not committed is deleted.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one, `Io`.
    pub fn stage(&self, name: &str, files: &AdapterFiles) -> Result<Staged, StoreError> {
        let directory = self.directory(name)?;
        let staging = self.staging()?;
        let staged = staging.path().join(STAGED_NAME).join(STAGED_VERSION);
        fs_err::create_dir_all(&staged)?;
        write_files(&staged, files)?;
        Ok(Staged { directory, staging })
    }

    /// Makes staged files a version of their name, as [`Store::save`] does. `version` must be that of the files.
    ///
    /// # Errors
    /// `Io`.
    pub fn commit(&self, staged: Staged, version: &Version) -> Result<(), StoreError> {
        let Staged { directory, staging } = staged;
        let staged_name = staging.path().join(STAGED_NAME);
        let staged = staged_name.join(version.as_str());
        fs_err::rename(staged_name.join(STAGED_VERSION), &staged)?;
        sync_directory(&staged_name)?;

        let _changing = self.changing();
        if !exists(&directory)? {
            fs_err::rename(&staged_name, &directory)?;
            return Ok(sync_directory(&self.root)?);
        }
        let place = directory.join(version.as_str());
        if contents::check(&place, version).is_ok() {
            return Ok(());
        }
        if exists(&place)? {
            fs_err::rename(&place, staging.path().join("damaged"))?;
        }
        fs_err::rename(&staged, &place)?;
        Ok(sync_directory(&directory)?)
    }

    /// Records that `version` is the active one of `name` and `previous` the one active before, in one atomic step.
    ///
    /// `previous` is recorded as given; [`Store::scan`] reports it only when it is stored.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one, `NotStored` when `version` has not been saved, `Io`.
    pub fn set_active(
        &self,
        name: &str,
        version: &Version,
        previous: Option<&Version>,
    ) -> Result<(), StoreError> {
        let directory = self.directory(name)?;
        let _changing = self.changing();
        let place = directory.join(version.as_str());
        if !exists(&place)? {
            return Err(StoreError::NotStored {
                name: name.to_owned(),
                version: version.clone(),
                path: place,
            });
        }
        let active = Active {
            active: version.clone(),
            previous: previous.cloned(),
        };
        self.replace_active(&directory, &active)
    }

    /// Removes `name` with all its versions; nothing to do when it is not stored.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one, `Io`.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let directory = self.directory(name)?;
        // Declared before the lock, so that the files are deleted after it is released.
        let staging = self.staging()?;
        let _changing = self.changing();
        self.discard(&directory, &staging)
    }

    /// Removes one version of `name`, and the name with its last version; nothing to do when it is not stored.
    ///
    /// When it was recorded as active, the recorded previous version becomes active, or else the newest that is left.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one, `Io`.
    pub fn remove_version(&self, name: &str, version: &Version) -> Result<(), StoreError> {
        let directory = self.directory(name)?;
        let staging = self.staging()?;
        let _changing = self.changing();
        let place = directory.join(version.as_str());
        if !exists(&place)? {
            return Ok(());
        }
        if !contents::has_other_version(&directory, version)? {
            return self.discard(&directory, &staging);
        }
        // First the record, then the files: a record never outlives what it names, even after a kill in between.
        if let Ok(Some(recorded)) = Active::read(&directory) {
            match recorded.clone().without(version) {
                Some(rest) if rest == recorded => {}
                Some(rest) => self.replace_active(&directory, &rest)?,
                None => {
                    fs_err::remove_file(directory.join(active::FILE))?;
                    sync_directory(&directory)?;
                }
            }
        }
        self.discard(&place, &staging)
    }

    /// Every stored adapter that is intact, by name; [`Store::contents`] without the list of what was ignored.
    ///
    /// # Errors
    /// `Io` when the root cannot be listed.
    pub fn scan(&self) -> Result<Vec<StoredAdapter>, StoreError> {
        Ok(self.contents()?.adapters)
    }

    /// Every stored adapter that is intact, by name, and every entry that was ignored, with the reason. Reads all
    /// files once, to compare their digest with the version they claim to be. Changes nothing.
    ///
    /// # Errors
    /// `Io` when the root cannot be listed.
    pub fn contents(&self) -> Result<StoreContents, StoreError> {
        let _changing = self.changing();
        Ok(contents::survey(&self.root)?)
    }

    fn directory(&self, name: &str) -> Result<PathBuf, StoreError> {
        AdapterName::parse(name, &Self::RESERVED_NAMES)?;
        Ok(self.root.join(name))
    }

    /// A directory of its own for one change, deleted with what is left in it when it is dropped.
    fn staging(&self) -> Result<TempDir, StoreError> {
        Ok(tempfile::tempdir_in(self.root.join(STAGING))?)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // The lock guards the disk, which a panic elsewhere leaves as consistent as a kill would.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_active(&self, directory: &Path, active: &Active) -> Result<(), StoreError> {
        let staging = self.staging()?;
        let staged = staging.path().join(active::FILE);
        write_synced(&staged, &active.to_json())?;
        fs_err::rename(&staged, directory.join(active::FILE))?;
        Ok(sync_directory(directory)?)
    }

    /// Takes `path` out of sight by one rename; it is deleted with `staging`.
    fn discard(&self, path: &Path, staging: &TempDir) -> Result<(), StoreError> {
        if !exists(path)? {
            return Ok(());
        }
        fs_err::rename(path, staging.path().join("removed"))?;
        Ok(sync_directory(path.parent().unwrap_or(&self.root))?)
    }
}

fn write_files(directory: &Path, files: &AdapterFiles) -> std::io::Result<()> {
    write_synced(&directory.join(CONFIG_FILE), &files.config)?;
    write_synced(&directory.join(WEIGHTS_FILE), &files.weights)?;
    if let Some(manifest) = &files.manifest {
        write_synced(&directory.join(MANIFEST_FILE), manifest)?;
    }
    sync_directory(directory)
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames in a directory durable; other systems than Unix cannot open a directory for it.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        fs_err::File::open(path)?.sync_all()?;
    }
    Ok(())
}

fn exists(path: &Path) -> std::io::Result<bool> {
    match fs_err::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
