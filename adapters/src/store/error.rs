//! What can go wrong with the store.

use std::path::PathBuf;

use thiserror::Error;

use crate::{AdapterError, Version};

/// Why the store did not do as asked. What is visible in it is then as it was before the call.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk refused; the message names the path.
    #[error("adapter store: {0}")]
    Io(#[from] std::io::Error),
    /// The name is not an adapter's, or the files are not.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The files are another version's.
    #[error(
        "files to be saved as version {expected} of adapter '{name}' have the content of version {got}"
    )]
    VersionMismatch {
        /// The adapter's name.
        name: String,
        /// The version they were to be saved as.
        expected: Version,
        /// The version of their content.
        got: Version,
    },
    /// The version was not saved before it was made active.
    #[error("version {version} of adapter '{name}' cannot be recorded as active: {} does not exist; save it first", .path.display())]
    NotStored {
        /// The adapter's name.
        name: String,
        /// The version that was to be active.
        version: Version,
        /// Where its files should be.
        path: PathBuf,
    },
}

impl StoreError {
    /// A stable snake_case name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "store_io",
            Self::Adapter(error) => error.code(),
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::NotStored { .. } => "version_not_stored",
        }
    }
}
