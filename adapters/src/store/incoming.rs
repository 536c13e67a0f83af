//! Files of a version on their way into the store.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::disk;
use crate::{AdapterError, AdapterFiles, Limits, Version};

/// What stands for a name and a version while its files are on their way.
const NAME: &str = "name";
const VERSION: &str = "version";

/// A directory of files that are not part of the store yet; it is deleted with them when it is dropped.
#[derive(Debug)]
pub struct Incoming {
    staging: Option<TempDir>,
    directory: PathBuf,
    /// The version of the content as it arrived.
    arrived: OnceLock<Version>,
}

impl Incoming {
    /// An empty one inside of `parent`.
    pub(super) fn new(parent: &Path) -> std::io::Result<Self> {
        let staging = tempfile::tempdir_in(parent)?;
        let directory = staging.path().join(NAME).join(VERSION);
        disk::create_directories(&directory)?;
        Ok(Self {
            staging: Some(staging),
            directory,
            arrived: OnceLock::new(),
        })
    }

    /// The directory of the files.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The directory that stands for the name, to be moved where there is no directory of the name yet.
    pub(super) fn name_directory(&self) -> PathBuf {
        self.staging_path().join(NAME)
    }

    /// A place for what has to be out of the way; deleted with the rest.
    pub(super) fn staging_path(&self) -> &Path {
        let staging = self.staging.as_ref();
        staging.expect("there until it is dropped").path()
    }

    /// Writes one file, durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, file: &str, bytes: &[u8]) -> std::io::Result<()> {
        disk::write_synced(&self.directory.join(file), bytes)
    }

    /// A file to be written piece by piece; [`Incoming::sync`] makes it durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(&self, file: &str) -> std::io::Result<fs_err::File> {
        disk::crash_point()?;
        fs_err::File::create(self.directory.join(file))
    }

    /// Writes all files of an adapter, durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_files(&self, files: &AdapterFiles) -> std::io::Result<()> {
        self.write(crate::CONFIG_FILE, &files.config)?;
        self.write(crate::WEIGHTS_FILE, &files.weights)?;
        match &files.manifest {
            Some(manifest) => self.write(crate::MANIFEST_FILE, manifest),
            None => Ok(()),
        }
    }

    /// Says which version arrived, so that what is read back is held against it. The first one told counts.
    pub fn expect(&self, version: Version) {
        self.arrived.get_or_init(|| version);
    }

    /// Reads the files as those of an adapter.
    ///
    /// # Errors
    /// Those of [`AdapterFiles::read`]; `Io` when the disk gives back something else than what arrived.
    pub fn files(&self, limits: &Limits) -> Result<AdapterFiles, AdapterError> {
        let files = AdapterFiles::read(&self.directory, limits)?;
        match self.arrived.get() {
            Some(arrived) if files.version()? != *arrived => Err(std::io::Error::other(
                "the disk gave back other bytes than were written to it",
            )
            .into()),
            Some(_) | None => Ok(files),
        }
    }

    /// Makes every file durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> std::io::Result<()> {
        for entry in fs_err::read_dir(&self.directory)? {
            disk::crash_point()?;
            let mut file = fs_err::OpenOptions::new()
                .append(true)
                .open(entry?.path())?;
            file.flush()?;
            file.sync_all()?;
        }
        disk::sync_directory(&self.directory)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        disk::discard(self.staging.take());
    }
}
