//! What a disk, or the system's table of files, has to do with an error: trouble of the operator's that passes, not of the request's.

use std::error::Error;
use std::io;

use actix_web::http::StatusCode;

use super::{Answer, ApiError, OVERLOADED, SERVER};

/// Why nothing could be written or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StorageTrouble {
    /// No space is left, or none of a quota.
    #[error("the server's disk is full; nothing was changed, make room and try again")]
    Full,
    /// The file system takes no writes.
    #[error("the server's store cannot be written; nothing was changed")]
    ReadOnly,
    /// The process has as many files open as it may.
    #[error("the server has too many files open; nothing was changed, try again")]
    Descriptors,
}

impl StorageTrouble {
    /// Looks for it among the causes of an error.
    pub(super) fn of(error: &ApiError) -> Option<Self> {
        match error {
            ApiError::Store(error) => Self::among(error),
            ApiError::Adapter(error) => Self::among(error),
            ApiError::Data(error) | ApiError::Dataset { error, .. } => Self::among(error),
            ApiError::Internal(error) => error.chain().find_map(Self::named),
            ApiError::InOtherWords { error, .. } => Self::of(error),
            _ => None,
        }
    }

    fn among(error: &(dyn Error + 'static)) -> Option<Self> {
        Self::named(error).or_else(|| Self::among(error.source()?))
    }

    fn named(error: &(dyn Error + 'static)) -> Option<Self> {
        /// Too many open files, in the process and in the system, on Unix.
        const DESCRIPTORS: [i32; 2] = [24, 23];
        let error = error.downcast_ref::<io::Error>()?;
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ if DESCRIPTORS.contains(&error.raw_os_error()?) => Some(Self::Descriptors),
            _ => None,
        }
    }

    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Full => Answer(StatusCode::INSUFFICIENT_STORAGE, SERVER, "storage_full"),
            Self::ReadOnly => Answer(
                StatusCode::INSUFFICIENT_STORAGE,
                SERVER,
                "storage_read_only",
            ),
            Self::Descriptors => Answer(
                StatusCode::SERVICE_UNAVAILABLE,
                OVERLOADED,
                "too_many_open_files",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use adapters::StoreError;

    use super::*;

    #[test]
    fn a_full_disk_is_found_behind_other_errors() {
        let full = || io::Error::from_raw_os_error(28);
        assert_eq!(
            StorageTrouble::among(&StoreError::from(full())),
            Some(StorageTrouble::Full)
        );
        let internal = ApiError::internal(anyhow::Error::from(full()).context("while saving"));
        assert_eq!(StorageTrouble::of(&internal), Some(StorageTrouble::Full));
        let many = ApiError::internal(io::Error::from_raw_os_error(24));
        assert_eq!(StorageTrouble::of(&many), Some(StorageTrouble::Descriptors));
        let other = ApiError::internal(io::Error::from_raw_os_error(5));
        assert_eq!(StorageTrouble::of(&other), None);
    }
}
