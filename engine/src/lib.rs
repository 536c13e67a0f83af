//! The base model and everything that turns token ids into logits: weights, tokenizer, kernels, paged KV cache,
//! one step over a mixed batch, the scheduler, sampling and scoring.
//!
//! One thread owns the model ([`Engine::start`]); everybody else holds an [`Engine`] handle and talks to it through a
//! bounded queue. What does not belong here: HTTP, adapter files (see `adapters`), prompts of tasks (see `tasks`).
#![deny(unsafe_code)]

mod adapter;
mod batch;
pub mod chat;
mod config;
mod device;
mod effect;
mod engine;
mod error;
mod executor;
mod faults;
mod generation;
pub mod gguf;
pub mod kernels;
mod kv;
mod model;
mod packing;
mod pooling;
mod request;
pub mod sampling;
mod scheduler;
mod scoring;
mod sequence;
mod served;
mod shared;
mod source;
mod statistics;
mod step;
pub mod testing;
#[cfg(test)]
mod tests;
pub mod text;
mod thread;
pub mod tokenizer;
mod weights;
mod workload;

pub use adapter::PreparedAdapter;
pub use chat::{ChatMessage, ChatTemplate, TemplateError};
pub use config::{
    Activation, Architecture, Decoder, LayerAttention, LongRotary, ModelConfig, Rotary,
};
pub use effect::{Effect, EffectError, divergence};
pub use engine::{Engine, EngineConfig};
pub use error::{EngineError, LoadError, SubmitError};
pub use executor::ComputeDevice;
pub use faults::{Fault, FaultHook};
pub use kernels::{DenseMatrix, KernelChoice, Resolution, UnknownKernels};
pub use model::{LoadOptions, Model};
pub use pooling::own_part;
pub use request::{
    ContinuationScore, FinishReason, GenerateEvent, GenerateRequest, LogitsRequest, Priority,
    ScoreRequest, ScoreResult, TokenLogprob,
};
pub use sampling::Sampling;
pub use served::{ServedMatrix, ServedWeights};
pub use source::ModelDirectory;
pub use statistics::Statistics;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use weights::{DenseLayer, DenseWeights};
