//! The record of which version of a name is active.

use std::io::{Error, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Version;

/// Name of the record's file in the directory of an adapter.
pub(super) const FILE: &str = "active";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) active: Version,
    pub(super) previous: Option<Version>,
}

impl Active {
    /// The record in `directory`, `None` when there is none.
    pub(super) fn read(directory: &Path) -> std::io::Result<Option<Self>> {
        let text = match fs_err::read(directory.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::new(ErrorKind::InvalidData, error))
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("two strings are always valid JSON")
    }

    /// The record once `version` is gone, `None` when nothing is left to record.
    pub(super) fn without(self, version: &Version) -> Option<Self> {
        let previous = self.previous.filter(|previous| previous != version);
        if self.active == *version {
            return previous.map(|active| Self {
                active,
                previous: None,
            });
        }
        Some(Self {
            active: self.active,
            previous,
        })
    }
}
