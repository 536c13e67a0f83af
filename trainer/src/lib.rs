//! Datasets in, adapter directory out: LoRA training of the base model that the server serves.
//!
//! Belongs here: the differentiable forward pass, the optimizer, the training loop, the command line and what it writes.
//! Does not belong here: HTTP, prompts and data sets (`tasks`), adapter files (`adapters`), the model file and its
//! tokenizer (`engine`).
//!
//! The way of one training: [`training`] prepares, steps and writes; `session` is the loop and `checkpoint` what lets it be
//! killed. The way of one step: [`batch`] flattens examples into rows without padding, rows that every example starts with only
//! once; [`model`] runs them through one candle operation per decoder layer and a loss over the completion tokens;
//! [`optimizer`] clips the gradients and moves the factors in [`parameters`].
#![forbid(unsafe_code)]

pub mod arguments;
pub mod batch;
pub mod distance;
pub mod error;
pub mod evaluate;
pub mod evaluation_card;
pub mod examples;
pub mod export;
pub mod held_out;
pub mod inspect;
pub mod loss;
pub mod merge;
pub mod model;
pub mod optimizer;
pub mod parameters;
pub mod profile;
pub mod recipe;
pub mod segments;
pub mod suite;
pub mod training;

mod beside;
mod card;
mod checkpoint;
mod curve;
mod engine_arguments;
mod frozen;
mod gradient_check;
mod journal;
mod layer;
mod layout;
mod measuring;
mod opened;
mod operations;
mod preparation;
mod publication;
mod session;
mod tensors;

pub use arguments::TrainArguments;
pub use engine_arguments::EngineArguments;
pub use error::TrainerError;
pub use opened::AdapterArguments;
pub use recipe::Recipe;
pub use training::{Ending, TrainingReport, run, tokenized_examples};
