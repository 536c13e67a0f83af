//! Why the files of a model do not make a tokenizer.

use std::path::PathBuf;

/// Why a tokenizer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read or is not what it should be.
    #[error("{path}: cannot read the tokenizer: {reason}")]
    Read {
        /// The file that was read.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// It cannot be written as JSON.
    #[error("the tokenizer cannot be written as tokenizer.json: {reason}")]
    Json {
        /// What went wrong.
        reason: String,
    },
    /// A key every tokenizer needs is absent.
    #[error("the model file has no `{key}`; convert the model again with its tokenizer")]
    MissingKey {
        /// The GGUF key.
        key: &'static str,
    },
    /// A key holds a value of another type.
    #[error("`{key}` in the model file must be {expected}")]
    WrongType {
        /// The GGUF key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The kind of tokenizer is neither byte-level nor SentencePiece BPE.
    #[error(
        "tokenizer model `{model}` is not supported; supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)"
    )]
    UnsupportedModel {
        /// The value of `tokenizer.ggml.model`.
        model: String,
    },
    /// A part of a `tokenizer.json` would make ids or text that cannot be reproduced.
    #[error("{path}: `{part}` is {found}, which is not supported; supported: {supported}")]
    UnsupportedPart {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        part: &'static str,
        /// What stands there.
        found: String,
        /// What would do.
        supported: &'static str,
    },
    /// How words are cut is not known, so every id could be wrong.
    #[error("pre-tokenizer `{name}` is not supported; supported: {supported}")]
    UnsupportedPreTokenizer {
        /// The value of `tokenizer.ggml.pre`.
        name: String,
        /// The names that would do.
        supported: &'static str,
    },
    /// A merge does not join two tokens to a third.
    #[error("merge {index}, `{merge}`, does not join two tokens of the vocabulary to a third")]
    InvalidMerge {
        /// Position among the merges, from 0.
        index: usize,
        /// The line as it stands.
        merge: String,
    },
    /// A list that goes with the tokens has another length.
    #[error("`{key}` has {entries} entries for {tokens} tokens; there must be one each")]
    LengthMismatch {
        /// The GGUF key.
        key: &'static str,
        /// Its entries.
        entries: usize,
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// A special token lies outside the vocabulary.
    #[error("`{key}` is {token}, outside the vocabulary of {vocabulary} tokens")]
    TokenOutOfRange {
        /// The key in the model's files.
        key: &'static str,
        /// Its value.
        token: u32,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// The tokenizer's parts do not go together.
    #[error("the model's tokenizer cannot be built: {reason}")]
    Build {
        /// What the parts' own checks said.
        reason: String,
    },
}

impl TokenizerError {
    /// What the tokenizers library said of parts that do not go together.
    pub(super) fn build(error: tokenizers::Error) -> Self {
        Self::Build {
            reason: error.to_string(),
        }
    }
}
