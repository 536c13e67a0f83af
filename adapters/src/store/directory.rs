//! The store of one server: a folder of plain files.
//!
//! ```text
//! <root>/<name>/<version>/{adapter_config.json, adapter_model.safetensors, manifest.json?, report.json?}
//! <root>/<name>/active        the pointer, as JSON
//! <root>/.staging/            what is being written or deleted; emptied when the store opens
//! <root>/.quarantine/         damaged versions, as they were found
//! <root>/evaluations/         not the store's; left alone
//! ```
//!
//! A change is prepared in `.staging` with every file and directory synced, then becomes visible by one rename. A
//! process killed at any moment leaves the state before or the state after, and debris in `.staging`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{
    ActivePointer, AdapterStore, Incoming, Pointed, PointerTag, REPORT_FILE, RESERVED_NAMES,
    StoreContents, StoreError, contents, disk,
};
use crate::{AdapterFiles, AdapterName, Version};

pub(super) const STAGING: &str = ".staging";
pub(super) const QUARANTINE: &str = ".quarantine";
/// Name of the pointer's file in the directory of an adapter.
pub(super) const POINTER: &str = "active";

/// Adapters on disk, under one root that one process at a time writes.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    /// Held while something prepared is renamed into place, not while it is prepared.
    changes: Mutex<()>,
}

impl DirectoryStore {
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

    fn directory(&self, name: &str) -> Result<PathBuf, StoreError> {
        AdapterName::parse(name, &RESERVED_NAMES)?;
        Ok(self.root.join(name))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // The lock guards the disk, which a panic elsewhere leaves as consistent as a kill would.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `path` out of sight by one rename; it is deleted with `staging`.
    fn discard(&self, path: &Path, staging: &Incoming) -> Result<(), StoreError> {
        if !disk::exists(path)? {
            return Ok(());
        }
        disk::rename(path, &staging.staging_path().join("removed"))?;
        Ok(disk::sync_directory(path.parent().unwrap_or(&self.root))?)
    }

    fn check_tag(
        &self,
        name: &str,
        directory: &Path,
        expected: Option<&PointerTag>,
    ) -> Result<(), StoreError> {
        // A damaged pointer can be replaced by whoever does not expect one.
        let found = match read_pointer(name, directory) {
            Ok(found) => found.map(|pointed| pointed.tag),
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if found.as_ref() == expected {
            return Ok(());
        }
        Err(StoreError::PointerMoved {
            name: name.to_owned(),
        })
    }
}

impl AdapterStore for DirectoryStore {
    /// Reads all files once, to compare their digest with the version they claim to be. Changes nothing.
    fn contents(&self) -> Result<StoreContents, StoreError> {
        let _changing = self.changing();
        Ok(contents::survey(&self.root)?)
    }

    fn incoming(&self) -> Result<Incoming, StoreError> {
        Ok(Incoming::new(&self.root.join(STAGING))?)
    }

    fn commit(&self, incoming: Incoming, name: &str, version: &Version) -> Result<(), StoreError> {
        let directory = self.directory(name)?;
        incoming.sync()?;
        let staged_name = incoming.name_directory();
        let staged = staged_name.join(version.as_str());
        disk::rename(incoming.path(), &staged)?;
        disk::sync_directory(&staged_name)?;

        let _changing = self.changing();
        if !disk::exists(&directory)? {
            disk::rename(&staged_name, &directory)?;
            return Ok(disk::sync_directory(&self.root)?);
        }
        let place = directory.join(version.as_str());
        if contents::check(&place, version).is_ok() {
            return Ok(());
        }
        if disk::exists(&place)? {
            disk::rename(&place, &incoming.staging_path().join("damaged"))?;
        }
        disk::rename(&staged, &place)?;
        Ok(disk::sync_directory(&directory)?)
    }

    fn read(&self, name: &str, version: &Version) -> Result<AdapterFiles, StoreError> {
        let place = self.directory(name)?.join(version.as_str());
        if !disk::exists(&place)? {
            return Err(StoreError::NotStored {
                name: name.to_owned(),
                version: version.clone(),
            });
        }
        contents::read(&place, version).map_err(|reason| StoreError::Damaged {
            name: name.to_owned(),
            reason: format!("version {version}: {reason}"),
        })
    }

    fn read_report(&self, name: &str, version: &Version) -> Result<Option<Vec<u8>>, StoreError> {
        let place = self.directory(name)?.join(version.as_str());
        match fs_err::read(place.join(REPORT_FILE)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn pointer(&self, name: &str) -> Result<Option<Pointed>, StoreError> {
        read_pointer(name, &self.directory(name)?)
    }

    fn replace_pointer(
        &self,
        name: &str,
        pointer: &ActivePointer,
        expected: Option<&PointerTag>,
    ) -> Result<PointerTag, StoreError> {
        let directory = self.directory(name)?;
        let staging = self.incoming()?;
        let bytes = pointer.to_json();
        staging.write(POINTER, &bytes)?;
        let _changing = self.changing();
        for version in pointer.versions() {
            if !disk::exists(&directory.join(version.as_str()))? {
                return Err(StoreError::NotStored {
                    name: name.to_owned(),
                    version: version.clone(),
                });
            }
        }
        self.check_tag(name, &directory, expected)?;
        disk::rename(&staging.path().join(POINTER), &directory.join(POINTER))?;
        disk::sync_directory(&directory)?;
        Ok(tag_of(&bytes))
    }

    fn pointer_tags(&self) -> Result<BTreeMap<String, PointerTag>, StoreError> {
        let mut tags = BTreeMap::new();
        for entry in fs_err::read_dir(&self.root)? {
            let file_name = entry?.file_name();
            let Some(name) = file_name.to_str() else {
                continue;
            };
            if AdapterName::parse(name, &RESERVED_NAMES).is_err() {
                continue;
            }
            if let Ok(Some(pointed)) = read_pointer(name, &self.root.join(name)) {
                tags.insert(name.to_owned(), pointed.tag);
            }
        }
        Ok(tags)
    }

    fn remove(&self, name: &str, expected: Option<&PointerTag>) -> Result<(), StoreError> {
        let directory = self.directory(name)?;
        // Declared before the lock, so that the files are deleted after it is released.
        let staging = self.incoming()?;
        let _changing = self.changing();
        if !disk::exists(&directory)? {
            return Ok(());
        }
        self.check_tag(name, &directory, expected)?;
        self.discard(&directory, &staging)
    }

    fn remove_version(&self, name: &str, version: &Version) -> Result<(), StoreError> {
        let directory = self.directory(name)?;
        let staging = self.incoming()?;
        let _changing = self.changing();
        self.discard(&directory.join(version.as_str()), &staging)
    }

    fn quarantine(&self, name: &str, version: &Version) -> Result<(), StoreError> {
        let place = self.directory(name)?.join(version.as_str());
        let _changing = self.changing();
        if !disk::exists(&place)? {
            return Ok(());
        }
        let quarantine = self.root.join(QUARANTINE);
        disk::create_directories(&quarantine)?;
        // Numbered, because a version can be damaged more than once.
        let free = (0..)
            .map(|number| quarantine.join(format!("{name}-{version}-{number}")))
            .find(|path| !path.exists())
            .expect("numbers do not end");
        disk::rename(&place, &free)?;
        disk::sync_directory(&quarantine)?;
        Ok(disk::sync_directory(place.parent().unwrap_or(&self.root))?)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

/// The pointer in an adapter's directory, `None` when there is none.
pub(super) fn read_pointer(name: &str, directory: &Path) -> Result<Option<Pointed>, StoreError> {
    let bytes = match fs_err::read(directory.join(POINTER)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let pointer = serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged {
        name: name.to_owned(),
        reason: format!("its pointer cannot be read: {error}"),
    })?;
    Ok(Some(Pointed {
        pointer,
        tag: tag_of(&bytes),
    }))
}

/// One process writes here, and what it wrote tells pointers apart.
fn tag_of(bytes: &[u8]) -> PointerTag {
    PointerTag(format!("{:x}", Sha256::digest(bytes)))
}
