//! Data sets that a user adds while the program runs: checked more strictly than files, because whoever made them is there to mend
//! them, and named beside the built-in ones.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::data_error::DataError;
use crate::dataset::Domain;
use crate::example::Example;
use crate::records::{self, Ids};
use crate::task::Task;

/// Longest name of a data set, in characters.
const MAX_NAME: usize = 64;

/// A user's data set of one of the five tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedDataset {
    /// Its name, unique over all tasks: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    pub id: String,
    /// The task whose fields and labels its records have.
    pub task: Task,
    /// What it is to an adapter of that task: [`Domain::In`] or [`Domain::Out`].
    pub domain: Domain,
    /// What an evaluation scores.
    pub examples: Vec<Example>,
    /// What can stand in front of them.
    pub demonstrations: Vec<Example>,
}

impl UploadedDataset {
    /// Checks a name and a role and reads the records: a JSON list of objects, or one object a line. Files are called `examples` and
    /// `demonstrations` in errors.
    ///
    /// # Errors
    /// For a bad name or role, and for records that cannot be used, each named: nothing is dropped but examples with the gold label
    /// `-`.
    pub fn parse(
        id: &str,
        (task, domain): (Task, Domain),
        examples: &[u8],
        demonstrations: Option<&[u8]>,
    ) -> Result<Self, DataError> {
        check_name(id)?;
        if domain == Domain::Cross {
            return Err(DataError::CrossRole);
        }
        let read = |part: &str, bytes| records::parse(task, Path::new(part), bytes, Ids::Unique);
        Ok(Self {
            id: id.to_owned(),
            task,
            domain,
            examples: read("examples", examples)?.examples,
            demonstrations: match demonstrations {
                Some(bytes) => read("demonstrations", bytes)?.examples,
                None => Vec::new(),
            },
        })
    }

    /// SHA-256 of its examples and demonstrations, hex: the same for the same content, whatever it is called.
    pub fn digest(&self) -> String {
        content_digest(&self.examples, &self.demonstrations)
    }
}

/// SHA-256 over the lengths and bytes of all texts, in order, hex.
pub(crate) fn content_digest(examples: &[Example], demonstrations: &[Example]) -> String {
    let mut hasher = Sha256::new();
    for list in [examples, demonstrations] {
        hasher.update((list.len() as u64).to_le_bytes());
        for example in list {
            let fields = example.fields.0.iter();
            let texts = fields.flat_map(|(name, text)| [name, text]);
            for text in texts.chain([&example.output]) {
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
        }
    }
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_name(id: &str) -> Result<(), DataError> {
    let continues = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts = id
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if id.len() <= MAX_NAME && starts && id.bytes().all(continues) {
        return Ok(());
    }
    Err(DataError::InvalidName {
        name: id.chars().take(MAX_NAME + 1).collect(),
    })
}

#[cfg(test)]
mod tests;
