//! What can be wrong with a file of keys. No message holds a key or a digest, whatever stands in the file.

use super::{LONGEST_ID, LONGEST_NAME, OF_FLAGS, RESERVED};

/// Runs of letters and digits from this length on may be a key or its digest.
const LONGEST_WORD: usize = 32;

/// Why a file of keys cannot be used, or not be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no JSON, or not that of a key file.
    #[error("{message}")]
    Json {
        /// What was found where.
        message: String,
    },
    /// An id that cannot be used.
    #[error(
        "keys[{position}].id cannot be used: an id is 1 to {LONGEST_ID} letters, digits, `.`, `_` and `-`, and none of {}, {}…",
        RESERVED.join(", "), OF_FLAGS.join("…, ")
    )]
    Id {
        /// Which key it is, from 0.
        position: usize,
    },
    /// A name that cannot be shown.
    #[error("the name of key {id} cannot be used: send 1 to {LONGEST_NAME} printable characters")]
    Name {
        /// The key.
        id: String,
    },
    /// A key for nothing.
    #[error("key {id} has no scope; it needs at least one of inference, admin, metrics")]
    NoScope {
        /// The key.
        id: String,
    },
    /// Something else than a digest.
    #[error("sha256 of key {id} is no SHA-256: it must be the 64 hex digits of the key's digest")]
    Digest {
        /// The key.
        id: String,
    },
    /// Two keys with one id.
    #[error("two keys have the id {id}")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Two entries for one key.
    #[error("key {id} has the sha256 of a key above it; every key must be another")]
    DuplicateKey {
        /// The second of them.
        id: String,
    },
    /// No such key.
    #[error("there is no key {id}; `server keys list` shows those there are")]
    NotFound {
        /// The id that was asked for.
        id: String,
    },
}

impl KeyFileError {
    /// What a parser says, without what may be a key.
    pub(super) fn json(message: &str) -> Self {
        let mut safe = String::with_capacity(message.len());
        let mut word = String::new();
        for character in message.chars().chain([' ']) {
            if character.is_alphanumeric() || matches!(character, '_' | '-') {
                word.push(character);
                continue;
            }
            match word.chars().count() < LONGEST_WORD
                && !word.starts_with(super::super::secret::PREFIX)
            {
                true => safe.push_str(&word),
                false => safe.push('…'),
            }
            word.clear();
            safe.push(character);
        }
        Self::Json {
            message: safe.trim_end().to_owned(),
        }
    }
}
