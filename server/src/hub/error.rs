//! Why a model could not be fetched, and what to do about it, each in one sentence.

use std::path::PathBuf;

use super::HubModel;
use super::choice::{Problem, ggufs};

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The cache lacks the model and nothing else may be asked.
    #[error(
        "`{model}` is not in {} and HF_HUB_OFFLINE is set; unset it, or download the model elsewhere and give --model its path",
        cache.display()
    )]
    Offline {
        /// The model.
        model: String,
        /// The cache.
        cache: PathBuf,
    },
    /// No answer.
    #[error(
        "`{model}` is no file or directory here, and {endpoint} cannot be reached for it ({reason}); download the model by hand and give --model its path, or check the network and HF_ENDPOINT"
    )]
    Unreachable {
        /// The model.
        model: String,
        /// The hub's address.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// The hub has no such model, or none that this user may know of.
    #[error(
        "`{model}` is no file or directory here, and {endpoint} has no such model or keeps it private (status {status}); check the spelling, set HF_TOKEN if it is private, or give --model a path"
    )]
    NotFound {
        /// The model.
        model: String,
        /// The hub's address.
        endpoint: String,
        /// HTTP status.
        status: u16,
    },
    /// The hub does not show the model to this user.
    #[error(
        "{endpoint} does not give `{model}` to this user (status 403); accept its terms on its page and set HF_TOKEN, or download it by hand and give --model its path"
    )]
    Forbidden {
        /// The model.
        model: String,
        /// The hub's address.
        endpoint: String,
    },
    /// The hub answered with something else than expected.
    #[error(
        "{endpoint} answered for `{model}` with what is no hub's answer: {reason}; check HF_ENDPOINT"
    )]
    Unexpected {
        /// The model.
        model: String,
        /// The hub's address.
        endpoint: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A file did not arrive whole.
    #[error(
        "the download of {file} of `{model}` broke off ({reason}); start again to go on where it stopped"
    )]
    Interrupted {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What went wrong.
        reason: String,
    },
    /// A file arrived with other bytes than the hub has.
    #[error(
        "{file} of `{model}` does not have the checksum the hub gives for it and was removed; start again to download it anew"
    )]
    Corrupt {
        /// The model.
        model: String,
        /// The file.
        file: String,
    },
    /// The cache cannot be written.
    #[error("cannot write to the cache {}: {reason}; free or choose another with HF_HUB_CACHE", cache.display())]
    Cache {
        /// The cache.
        cache: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The file asked for is not in the repository.
    #[error("`{model}` has no GGUF file `{file}`; it has {found}")]
    NoSuchFile {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// The GGUF files there are.
        found: String,
    },
    /// Several files would do.
    #[error(
        "`{model}` has several GGUF files and none in Q4_K_M; name one as `{model}:FILE` of {found}"
    )]
    SeveralFiles {
        /// The model.
        model: String,
        /// The GGUF files there are.
        found: String,
    },
    /// No file would do.
    #[error(
        "`{model}` has neither a GGUF file nor safetensors with config.json and tokenizer.json; it has {found}"
    )]
    NothingToServe {
        /// The model.
        model: String,
        /// The files there are.
        found: String,
    },
}

impl HubError {
    pub(super) fn from_problem(model: &HubModel, problem: Problem, files: Vec<String>) -> Self {
        let (model, gguf) = (model.repository.clone(), listed(ggufs(&files)));
        match problem {
            Problem::Absent(file) => Self::NoSuchFile {
                model,
                file,
                found: gguf,
            },
            Problem::Several => Self::SeveralFiles { model, found: gguf },
            Problem::Nothing => Self::NothingToServe {
                model,
                found: listed(files),
            },
        }
    }
}

/// A list of files as a message can bear it.
fn listed(files: Vec<String>) -> String {
    const SHOWN: usize = 20;
    match files.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => {
            format!("{}, and {} more", files[..SHOWN].join(", "), count - SHOWN)
        }
        _ => files.join(", "),
    }
}
