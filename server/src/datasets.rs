//! Users' data sets on disk: one JSON file each under `<store>/evaluations/datasets`, read into the catalog at start.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tasks::{Catalog, UploadedDataset};

use crate::error::ApiError;
use crate::loading::blocking;

/// A data set as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    /// When it was added, seconds since 1970.
    created: u64,
    #[serde(flatten)]
    dataset: UploadedDataset,
}

/// The folder of users' data sets.
#[derive(Debug)]
pub struct DatasetFolder {
    directory: PathBuf,
}

impl DatasetFolder {
    /// Opens `<store>/evaluations/datasets` and adds what is there to the catalog. A file that cannot be used is logged and left alone.
    ///
    /// # Errors
    /// When the folder cannot be made or listed.
    pub fn open(store: &Path, catalog: &Catalog) -> std::io::Result<Self> {
        let directory = store.join("evaluations").join("datasets");
        fs_err::create_dir_all(&directory)?;
        for entry in fs_err::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let added = read(&path).and_then(|written| {
                let added = catalog.add(written.dataset);
                added.map_err(std::io::Error::other)
            });
            if let Err(error) = added {
                tracing::warn!(path = %path.display(), %error, "data set cannot be used");
            }
        }
        Ok(Self { directory })
    }

    /// When a data set was added, seconds since 1970; `None` when it is not here.
    pub async fn created(&self, id: &str) -> Option<u64> {
        let path = self.path(id);
        let written = blocking(move || read(&path).map_err(ApiError::internal)).await;
        written.ok().map(|written| written.created)
    }

    /// Writes a data set aside, syncs it and renames it into place.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn save(&self, dataset: UploadedDataset, created: u64) -> Result<(), ApiError> {
        let (directory, path) = (self.directory.clone(), self.path(&dataset.id));
        blocking(move || {
            let written = Written { created, dataset };
            write(&directory, &path, &written).map_err(ApiError::internal)
        })
        .await
    }

    /// Removes a data set's file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove(&self, id: &str) -> Result<(), ApiError> {
        let path = self.path(id);
        blocking(move || fs_err::remove_file(path).map_err(ApiError::internal)).await
    }

    /// Names of data sets are safe as names of files: they were checked when they came.
    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

fn read(path: &Path) -> std::io::Result<Written> {
    Ok(serde_json::from_slice(&fs_err::read(path)?)?)
}

fn write(directory: &Path, path: &Path, written: &Written) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(written)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs_err::File::open(directory)?.sync_all()
}
