//! Why a model cannot be loaded, a request not be taken, or a taken request not be finished.

use std::path::PathBuf;
use std::time::Duration;

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
        /// Until a place is expected to be free.
        retry_after: Duration,
    },
    /// The requests that were taken may need more tokens than are allowed to be outstanding.
    #[error(
        "requests that were taken before and this one are expected to need {tokens} tokens and the limit is {limit}; try again in {} s",
        retry_after.as_secs()
    )]
    TooMuchWork {
        /// Tokens that are expected to be computed for all of them.
        tokens: u64,
        /// The configured bound.
        limit: u64,
        /// Until there is room for this one.
        retry_after: Duration,
    },
    /// The answer would not be complete at the request's deadline.
    #[error(
        "an answer is expected to take {:.1} s from now and the request leaves {:.1} s; try again in {} s",
        needed.as_secs_f64(),
        left.as_secs_f64(),
        retry_after.as_secs()
    )]
    TooLate {
        /// Until the answer would be complete.
        needed: Duration,
        /// Until the deadline.
        left: Duration,
        /// Until it would not be too late.
        retry_after: Duration,
    },
    /// The deadline has passed already.
    #[error("the request's time was over before it began")]
    Expired,
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

impl SubmitError {
    /// When the same request may be taken; `None` where time alone changes nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. }
            | Self::TooMuchWork { retry_after, .. }
            | Self::TooLate { retry_after, .. } => Some(*retry_after),
            Self::Expired
            | Self::Draining
            | Self::PromptEmpty
            | Self::NothingToPool { .. }
            | Self::TooLong { .. }
            | Self::TokenOutOfRange { .. }
            | Self::Stopped => None,
        }
    }
}

/// Why a request that was taken could not be finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine stopped before the request was finished.
    #[error("the engine stopped before the request was finished")]
    Stopped,
    /// The request's time was over before its answer was complete.
    #[error("the request's time was over before its answer was complete")]
    DeadlineExceeded,
    /// Computing the request made the engine panic.
    #[error("computing this request failed in the engine; the server's log says more")]
    Panicked,
    /// The device could not compute a step, for example because its memory is full.
    #[error("the device could not compute a step: {reason}")]
    Device {
        /// What the device's library said.
        reason: String,
    },
}
