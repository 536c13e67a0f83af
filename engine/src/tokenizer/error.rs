//! Why the metadata of a model file does not make a tokenizer.

use std::path::PathBuf;

/// Why a tokenizer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read or is no GGUF file.
    #[error("{path}: cannot read the tokenizer: {reason}")]
    Read {
        /// The file that was read.
        path: PathBuf,
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
    /// The kind of tokenizer is not byte-level BPE.
    #[error("tokenizer model `{model}` is not supported; supported: gpt2 (byte-level BPE)")]
    UnsupportedModel {
        /// The value of `tokenizer.ggml.model`.
        model: String,
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
        /// Position in `tokenizer.ggml.merges`.
        index: usize,
        /// The line as it stands.
        merge: String,
    },
    /// The types of the tokens do not go with the tokens.
    #[error(
        "`tokenizer.ggml.token_type` has {types} entries for {tokens} tokens; there must be one each"
    )]
    TypesMismatch {
        /// Entries of `tokenizer.ggml.token_type`.
        types: usize,
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// A special token lies outside the vocabulary.
    #[error("`{key}` is {token}, outside the vocabulary of {vocabulary} tokens")]
    TokenOutOfRange {
        /// The GGUF key.
        key: &'static str,
        /// Its value.
        token: u32,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// The tokenizer's parts do not go together.
    #[error("the tokenizer in the model file cannot be built: {reason}")]
    Build {
        /// What the parts' own checks said.
        reason: String,
    },
}
