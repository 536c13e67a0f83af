//! Files of keys, as `server keys create` writes them.

use std::path::PathBuf;

use server::access::{KeyFile, KeyLimits, NewKey, Scope, StoredKey};
use tempfile::TempDir;

/// A file of keys in a folder of its own.
pub(crate) struct Keys {
    folder: TempDir,
}

/// A key and what the file says of it.
pub(crate) struct Made {
    pub(crate) key: String,
    pub(crate) id: String,
}

impl Keys {
    /// A file without keys.
    pub(crate) fn new() -> Self {
        let keys = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        keys.write(&KeyFile::default().to_text().unwrap());
        keys
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }

    /// Puts any text in the place of the file.
    pub(crate) fn write(&self, text: &str) {
        fs_err::write(self.path(), text).unwrap();
    }

    pub(crate) fn add(&self, scope: Scope) -> Made {
        self.add_limited(scope, KeyLimits::default())
    }

    pub(crate) fn add_limited(&self, scope: Scope, limits: KeyLimits) -> Made {
        let new = NewKey {
            name: format!("a test's, for {scope}"),
            scopes: vec![scope],
            expires: None,
            limits,
        };
        let (secret, stored) = KeyFile::create(&self.path(), new).unwrap();
        Made {
            key: secret.reveal().to_owned(),
            id: stored.id,
        }
    }

    pub(crate) fn revoke(&self, made: &Made) {
        KeyFile::revoke(&self.path(), &made.id).unwrap();
    }

    /// Changes what the file says of a key by hand.
    pub(crate) fn edit(&self, made: &Made, edit: impl FnOnce(&mut StoredKey)) {
        let mut file = KeyFile::read(&self.path()).unwrap();
        edit(file.keys.iter_mut().find(|key| key.id == made.id).unwrap());
        self.write(&file.to_text().unwrap());
    }
}
