//! Why a plan could not be measured.

use engine::{EngineError, SubmitError};
use tasks::{DataError, PromptError, ScoreError};

/// What can go wrong between a plan and its figures.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// Examples that cannot be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A prompt that cannot be made.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Answers that do not fit their examples.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The engine did not take a request.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The engine did not finish a request.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A model of the plan that cannot be had any more.
    #[error("model {model} cannot be measured: {reason}")]
    Model {
        /// Its name, with its version.
        model: String,
        /// Why.
        reason: String,
    },
    /// A data set that is not what it was when the evaluation was planned.
    #[error(
        "the data set {dataset} has changed since the evaluation was planned; start the evaluation again"
    )]
    DataChanged {
        /// `<task>/<data set>`.
        dataset: String,
    },
    /// Measurements that cannot be kept or read.
    #[error("measurements cannot be kept: {0}")]
    Storage(#[from] std::io::Error),
}
