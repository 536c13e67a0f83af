//! The keys that a running server knows, and whose a presented one is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::key_file::{KeyFile, KeyFileError, KeyLimits, StoredKey};
use super::limits::Quotas;
use super::scope::{Scope, Scopes};
use super::secret::{Digest, Secret};

/// One key that a server knows.
#[derive(Debug)]
pub struct Key {
    /// What it is called in metrics and in the audit log.
    pub id: String,
    /// What it allows.
    pub scopes: Scopes,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    pub(super) limits: KeyLimits,
    pub(super) quotas: Quotas,
    digest: Digest,
}

/// All of them. Requests see either the keys before a reload or those after it.
#[derive(Debug)]
pub struct Keyring {
    file: Option<PathBuf>,
    of_flags: Vec<Arc<Key>>,
    current: RwLock<Arc<Vec<Arc<Key>>>>,
}

/// What a reload changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys now.
    pub keys: usize,
    /// Ids that are new.
    pub added: Vec<String>,
    /// Ids that are gone.
    pub revoked: Vec<String>,
}

impl Keyring {
    /// Knows the keys of flags and those of a file.
    ///
    /// # Errors
    /// When the file cannot be read or used.
    pub fn open(
        inference: &[Secret],
        admin: &[Secret],
        file: Option<&Path>,
    ) -> Result<Self, KeyFileError> {
        let given = |keys: &[Secret], name: &str, scope| -> Vec<Arc<Key>> {
            let keys = keys.iter().enumerate().filter(|(_, key)| !key.is_empty());
            keys.map(|(index, key)| {
                let id = format!("{name}-{}", index + 1);
                Arc::new(Key::of_flag(id, scope, key))
            })
            .collect()
        };
        // Admin keys first: of a key that is given as both, the scope that allows more counts.
        let mut of_flags = given(admin, "admin-key", Scope::Admin);
        of_flags.extend(given(inference, "api-key", Scope::Inference));
        let keyring = Self {
            file: file.map(Path::to_owned),
            current: RwLock::new(Arc::new(of_flags.clone())),
            of_flags,
        };
        keyring.reload()?;
        Ok(keyring)
    }

    /// Whether requests must carry a key: one is configured, or a file of them is, even an empty one.
    pub fn is_required(&self) -> bool {
        self.file.is_some() || !self.of_flags.is_empty()
    }

    /// The file that keys are read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The ids of all keys.
    pub fn ids(&self) -> Vec<String> {
        self.keys().iter().map(|key| key.id.clone()).collect()
    }

    /// The key that was presented, if it is one. Every key is looked at to its end, so the time taken tells nothing.
    pub fn find(&self, presented: &str) -> Option<Arc<Key>> {
        let presented = Digest::of(presented);
        let keys = self.keys();
        let none = u64::MAX;
        let mut found = none;
        for (index, key) in (0u64..).zip(keys.iter()) {
            let is_it = key.digest.is(&presented) & found.ct_eq(&none);
            found.conditional_assign(&index, is_it);
        }
        keys.get(usize::try_from(found).ok()?).cloned()
    }

    /// Reads the file again. What a key has used of its limits stays used, unless the limit is another now.
    ///
    /// # Errors
    /// When the file cannot be read or used; the keys stay as they were.
    pub fn reload(&self) -> Result<Reloaded, KeyFileError> {
        let before = self.keys();
        let mut keys = self.of_flags.clone();
        if let Some(file) = &self.file {
            for stored in KeyFile::read(file)?.keys {
                let same = before.iter().find(|key| key.id == stored.id);
                keys.push(Arc::new(Key::of_file(&stored, same.map(Arc::as_ref))?));
            }
        }
        let ids_of = |keys: &[Arc<Key>], but: &[Arc<Key>]| -> Vec<String> {
            let known = |id: &str| but.iter().any(|key| key.id == id);
            let ids = keys.iter().filter(|key| !known(&key.id));
            ids.map(|key| key.id.clone()).collect()
        };
        let reloaded = Reloaded {
            keys: keys.len(),
            added: ids_of(&keys, &before),
            revoked: ids_of(&before, &keys),
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(reloaded)
    }

    fn keys(&self) -> Arc<Vec<Arc<Key>>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}

impl Key {
    fn of_flag(id: String, scope: Scope, key: &Secret) -> Self {
        Self {
            id,
            scopes: Scopes::new(vec![scope]),
            expires: None,
            limits: KeyLimits::default(),
            quotas: Quotas::default(),
            digest: key.digest(),
        }
    }

    fn of_file(stored: &StoredKey, before: Option<&Self>) -> Result<Self, KeyFileError> {
        let digest = stored.digest()?;
        let same = before.filter(|before| before.digest.is(&digest).into());
        Ok(Self {
            id: stored.id.clone(),
            scopes: Scopes::new(stored.scopes.clone()),
            expires: stored.expires,
            limits: stored.limits,
            quotas: match same {
                Some(same) => same.quotas.under(&same.limits, &stored.limits),
                None => Quotas::new(&stored.limits),
            },
            digest,
        })
    }

    /// When it expired, if it has.
    pub fn expired(&self) -> Option<Timestamp> {
        self.expires.filter(|expires| *expires <= Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(keyring: &Keyring, keys: &[&str]) -> Vec<Option<String>> {
        let id = |key: &&str| keyring.find(key).map(|key| key.id.clone());
        keys.iter().map(id).collect()
    }

    #[test]
    fn a_key_of_a_flag_is_found_under_its_number() {
        let inference = ["user", "", "both"].map(Secret::from);
        let admin = ["root", "both"].map(Secret::from);
        let keyring = Keyring::open(&inference, &admin, None).expect("no file to read");
        assert!(keyring.is_required());
        let found = ids(&keyring, &["user", "root", "both", "", "guess", "use"]);
        let name = |name: &str| Some(name.to_owned());
        let expected = [name("api-key-1"), name("admin-key-1"), name("admin-key-2")];
        assert_eq!(found[..3], expected);
        assert_eq!(found[3..], [None, None, None]);
    }

    #[test]
    fn without_keys_none_is_required_and_an_empty_file_lets_nobody_in() {
        let open = Keyring::open(&[Secret::from("")], &[], None).expect("no file to read");
        assert!(!open.is_required());
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs_err::write(file.path(), r#"{"keys": []}"#).expect("written");
        let closed = Keyring::open(&[], &[], Some(file.path())).expect("a file without keys");
        assert!(closed.is_required());
        assert!(closed.find("").is_none());
    }
}
