//! What can go wrong with the store.

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
    /// A version that is not there.
    #[error("version {version} of adapter '{name}' is not in the store")]
    NotStored {
        /// The adapter's name.
        name: String,
        /// The version.
        version: Version,
    },
    /// A version or pointer that is there and cannot be used.
    #[error("adapter '{name}' in the store is damaged: {reason}")]
    Damaged {
        /// The adapter's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed the pointer first.
    #[error("the pointer of adapter '{name}' was changed meanwhile; read it again and retry")]
    PointerMoved {
        /// The adapter's name.
        name: String,
    },
    /// The object store refused or could not be reached.
    #[error("adapter store: {0}")]
    Remote(String),
    /// What `--store` says is no place for a store.
    #[error("the store {location:?} cannot be used: {reason}")]
    Location {
        /// As it was given.
        location: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl StoreError {
    /// A stable snake_case name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "store_io",
            Self::Adapter(error) => error.code(),
            Self::NotStored { .. } => "version_not_stored",
            Self::Damaged { .. } => "stored_damaged",
            Self::PointerMoved { .. } => "pointer_moved",
            Self::Remote(_) => "store_remote",
            Self::Location { .. } => "store_location",
        }
    }
}
