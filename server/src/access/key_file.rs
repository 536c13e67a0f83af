//! The file of keys: JSON that people can read and mend, with digests in the place of keys. How it is replaced is in `writing`.

mod error;
#[cfg(test)]
mod tests;
mod writing;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::error::KeyFileError;
use super::scope::Scope;
use super::secret::{Digest, Secret};

/// Most characters of a name.
const LONGEST_NAME: usize = 128;
/// Most characters of an id.
const LONGEST_ID: usize = 64;
/// Ids that mean something else in metrics and in the audit log.
const RESERVED: [&str; 3] = ["anonymous", "other", "signal"];
/// How the ids of keys given as flags begin.
const OF_FLAGS: [&str; 2] = ["api-key-", "admin-key-"];

/// All keys of a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The keys.
    pub keys: Vec<StoredKey>,
}

/// A key as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// What it is called in metrics, in the audit log and to revoke it.
    pub id: String,
    /// Whose it is or what it is for.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// SHA-256 of the key, 64 hex digits.
    pub sha256: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How much it may be used.
    #[serde(default, skip_serializing_if = "KeyLimits::is_unlimited")]
    pub limits: KeyLimits,
}

/// How much a key may be used for running models; what is left out is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests under way at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<NonZeroU32>,
    /// Requests a minute; so many may also come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens a minute, of prompts and of what may be generated; so many may also come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
}

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose it is or what it is for.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// How much it may be used.
    pub limits: KeyLimits,
}

impl KeyLimits {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

impl StoredKey {
    /// A new key and what is stored of it.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate(new: NewKey) -> Result<(Secret, Self), KeyFileError> {
        let secret = Secret::generate()?;
        // Of another secret, so that an id tells nothing of its key.
        let id = Secret::generate()?.digest().to_hex();
        let stored = Self {
            id: format!("key-{}", &id[..12]),
            name: new.name,
            scopes: new.scopes,
            sha256: secret.digest().to_hex(),
            created: now_in_seconds(),
            expires: new.expires,
            limits: new.limits,
        };
        Ok((secret, stored))
    }

    /// The digest that a presented key is compared with.
    ///
    /// # Errors
    /// `Digest` when it is not 64 hex digits.
    pub fn digest(&self) -> Result<Digest, KeyFileError> {
        Digest::parse(&self.sha256).ok_or_else(|| KeyFileError::Digest {
            id: self.id.clone(),
        })
    }

    fn check(&self, position: usize) -> Result<(), KeyFileError> {
        if !is_id(&self.id) {
            return Err(KeyFileError::Id { position });
        }
        let id = || self.id.clone();
        let printable = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
        if !printable(&self.name) || self.name.chars().count() > LONGEST_NAME {
            return Err(KeyFileError::Name { id: id() });
        }
        if self.scopes.is_empty() {
            return Err(KeyFileError::NoScope { id: id() });
        }
        self.digest().map(drop)
    }
}

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, and those of [`KeyFile::parse`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        Self::parse(&fs_err::read_to_string(path)?)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// `Json` with the place that is no key file's, or what is wrong with which key. None of them holds a key or a digest.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut source = serde_json::Deserializer::from_str(text);
        let file: Self = serde_path_to_error::deserialize(&mut source)
            .map_err(|error| KeyFileError::json(&error.to_string()))?;
        source
            .end()
            .map_err(|error| KeyFileError::json(&error.to_string()))?;
        file.check()?;
        Ok(file)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_text(&self) -> Result<String, KeyFileError> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|error| KeyFileError::json(&error.to_string()))? + "\n")
    }

    /// # Errors
    /// What is wrong with which key.
    pub fn check(&self) -> Result<(), KeyFileError> {
        let (mut ids, mut digests) = (HashSet::new(), HashSet::new());
        for (position, key) in self.keys.iter().enumerate() {
            key.check(position)?;
            let id = key.id.clone();
            if !ids.insert(key.id.as_str()) {
                return Err(KeyFileError::DuplicateId { id });
            }
            if !digests.insert(key.sha256.to_ascii_lowercase()) {
                return Err(KeyFileError::DuplicateKey { id });
            }
        }
        Ok(())
    }
}

/// An id is safe as a label of a metric, in a log and on a command line.
fn is_id(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_ID).contains(&id.len())
        && id.bytes().all(safe)
        && id.as_bytes()[0].is_ascii_alphanumeric()
        && !RESERVED.contains(&id)
        && !OF_FLAGS.iter().any(|prefix| id.starts_with(prefix))
        && !id.starts_with(super::secret::PREFIX)
}

fn now_in_seconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
