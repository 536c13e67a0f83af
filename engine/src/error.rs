//! Why a model cannot be loaded, a request not be taken, or a taken request not be finished.

use std::path::PathBuf;

use crate::chat::TemplateError;
use crate::config::supported_architectures;
use crate::tokenizer::TokenizerError;

/// Why a model file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read at all.
    #[error(
        "cannot read the model: {0}; run `make model` or point --model at a GGUF file or a model directory"
    )]
    Io(#[from] std::io::Error),
    /// The bytes are not of the format that the name says.
    #[error("{path}: not a usable model file: {reason}")]
    Malformed {
        /// The file that was read.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A metadata key or a field of `config.json` is missing or has the wrong type.
    #[error("{path}: metadata key `{key}`: {reason}")]
    Metadata {
        /// The file that was read.
        path: PathBuf,
        /// The key, for example `llama.block_count`.
        key: String,
        /// What was expected.
        reason: String,
    },
    /// The model's architecture is not one this engine runs.
    #[error(
        "{path}: architecture `{architecture}` is not supported; supported: {}",
        supported_architectures()
    )]
    Architecture {
        /// The file that was read.
        path: PathBuf,
        /// The value of `general.architecture` or `model_type`.
        architecture: String,
    },
    /// The architecture is known, but this model has something that the engine does not compute.
    #[error("{path}: {feature} is not supported")]
    Unsupported {
        /// The file or directory that was read.
        path: PathBuf,
        /// What the model has, with the field that says so.
        feature: String,
    },
    /// The model can be served but not trained.
    #[error(
        "{path}: training does not support {feature}; it supports Llama 2 and SmolLM2 style models in GGUF"
    )]
    Untrainable {
        /// The file that was read.
        path: PathBuf,
        /// What the model has beyond a plain Llama.
        feature: &'static str,
    },
    /// A tensor is missing, misshapen or reaches past the end of the file.
    #[error("{path}: tensor `{tensor}`: {reason}")]
    Tensor {
        /// The file that was read.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The tokenizer in the file's metadata cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template in the file's metadata does not parse.
    #[error(transparent)]
    ChatTemplate(#[from] TemplateError),
    /// The kernel set that was asked for does not run on this machine.
    #[error("kernel set `{requested}` is not available on this CPU; available: {available}")]
    Kernels {
        /// What was asked for.
        requested: String,
        /// What this CPU can run.
        available: String,
    },
    /// The device that was asked for cannot be used.
    #[error("device `{device}` cannot be used: {reason}")]
    Device {
        /// What was asked for.
        device: String,
        /// What is missing.
        reason: String,
    },
}

/// Why the engine did not take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The bounded queue is full.
    #[error(
        "the queue is full: {waiting} requests are waiting and the limit is {limit}; try again shortly"
    )]
    QueueFull {
        /// Requests waiting now.
        waiting: usize,
        /// The configured bound.
        limit: usize,
    },
    /// The engine is finishing what it has and takes nothing new.
    #[error("the server is draining and takes no new requests")]
    Draining,
    /// There is nothing to compute.
    #[error("the prompt has no tokens; send at least one")]
    PromptEmpty,
    /// The tokens whose hidden states are to be averaged begin behind the prompt.
    #[error("`pooled_from` is {from} and the prompt has {tokens} tokens; it must be less")]
    NothingToPool {
        /// Where they were to begin.
        from: usize,
        /// Tokens of the prompt.
        tokens: usize,
    },
    /// The prompt, with what may be generated after it, does not fit.
    #[error("the prompt needs {tokens} tokens and the limit is {limit}; shorten it")]
    TooLong {
        /// Tokens the request would need.
        tokens: usize,
        /// Tokens one request may occupy.
        limit: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {token} is outside the vocabulary of {vocabulary} tokens")]
    TokenOutOfRange {
        /// The offending id.
        token: u32,
        /// The vocabulary's size.
        vocabulary: usize,
    },
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}

/// Why a request that was taken could not be finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine stopped before the request was finished.
    #[error("the engine stopped before the request was finished")]
    Stopped,
    /// The device could not compute a step, for example because its memory is full.
    #[error("the device could not compute a step: {reason}")]
    Device {
        /// What the device's library said.
        reason: String,
    },
}
