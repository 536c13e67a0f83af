//! What can go wrong between a data set and an adapter directory.

use std::path::PathBuf;

use thiserror::Error;

/// Why training did not begin, went wrong, or left nothing behind.
#[derive(Debug, Error)]
pub enum TrainerError {
    /// A flag has a value that no training can use.
    #[error("{flag} is {got}; expected {expected}")]
    Argument {
        /// The flag.
        flag: String,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// The model file could not be used.
    #[error("cannot load the base model {}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data could not be used.
    #[error(transparent)]
    Data(#[from] tasks::DataError),
    /// The tokenizer could not be written.
    #[error(transparent)]
    Tokenizer(#[from] engine::TokenizerError),
    /// An evaluation could not be planned.
    #[error(transparent)]
    Plan(#[from] tasks::PlanError),
    /// An evaluation could not be measured.
    #[error(transparent)]
    Evaluation(#[from] evaluation::EvaluationError),
    /// A file that should hold an evaluation and does not.
    #[error("{} is no evaluation: {reason}; expected what GET /v1/evaluations/{{id}} answers", path.display())]
    NoEvaluation {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Evaluations in which an adapter does not occur as it is now.
    #[error("the evaluations have no cell of {}, version {version}; measure it first", path.display())]
    NotMeasured {
        /// The adapter.
        path: PathBuf,
        /// Its version.
        version: adapters::Version,
    },
    /// A prompt could not be rendered.
    #[error(transparent)]
    Prompt(#[from] tasks::PromptError),
    /// The adapter could not be written or read.
    #[error(transparent)]
    Adapter(#[from] adapters::AdapterError),
    /// A tensor operation failed.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A file of the output could not be written.
    #[error("cannot write the output: {0}")]
    Io(#[from] std::io::Error),
    /// The output directory already holds an adapter.
    #[error("{} already holds an adapter; choose another --out or add --overwrite", path.display())]
    OutputExists {
        /// The directory.
        path: PathBuf,
    },
    /// A training into this directory was interrupted, and neither going on nor starting anew was asked for.
    #[error("a training into {} was interrupted; add --resume to go on from its checkpoint, or --overwrite to start anew", path.display())]
    Interrupted {
        /// The directory.
        path: PathBuf,
    },
    /// A checkpoint that cannot be continued.
    #[error("cannot go on from the checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An adapter of a suite that was trained otherwise than the suite says.
    #[error("{} holds an adapter trained with {field} {found}, this suite has {wanted}; choose another --out or delete it", path.display())]
    OtherRecipe {
        /// The directory.
        path: PathBuf,
        /// What differs.
        field: String,
        /// In the adapter's manifest.
        found: String,
        /// On the command line.
        wanted: String,
    },
    /// Nothing is left to train on.
    #[error("{} holds {examples} examples, {held_out} of them held out; at least one must remain for training", path.display())]
    NoExamples {
        /// The training file.
        path: PathBuf,
        /// How many it holds.
        examples: usize,
        /// How many `--held-out` takes away.
        held_out: usize,
    },
    /// An example does not fit even without its input.
    #[error(
        "example {index} needs {tokens} tokens besides its input, {target} of them the target, and --max-length is {limit}; \
         raise --max-length or use fewer --shots"
    )]
    ExampleTooLong {
        /// Its place in the training file, from 0.
        index: usize,
        /// Of context, prompt and target.
        tokens: usize,
        /// Of the target alone.
        target: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenizer names no token that ends an answer, so the model could not learn to stop.
    #[error("the tokenizer of {} names no end-of-turn token", path.display())]
    NoEndOfTurn {
        /// The model file.
        path: PathBuf,
    },
    /// Some trained tensors received no gradient: the graph is cut somewhere.
    #[error("step {step}: no gradient reached {count} of the trained tensors, first {first}")]
    MissingGradients {
        /// The optimizer step, from 1.
        step: usize,
        /// How many tensors.
        count: usize,
        /// Name of the first.
        first: String,
    },
    /// The loss or the gradient is not a number any more.
    #[error(
        "step {step}: the loss is {loss} and the norm of its gradient {norm}; lower --lr or set --clip (examples of the batch: {})",
        join(examples)
    )]
    Diverged {
        /// The optimizer step, from 1.
        step: usize,
        /// The places of the batch's examples in the training file, from 0.
        examples: Vec<usize>,
        /// Mean loss per target token.
        loss: f64,
        /// Before clipping.
        norm: f64,
    },
    /// An adapter whose layers differ in targets, rank or scale cannot be continued.
    #[error("layer {layer} does not have the projections, ranks and scales of layer 0")]
    UnevenAdapter {
        /// The first layer that differs.
        layer: usize,
    },
    /// The loss curve could not be drawn.
    #[error("cannot draw the loss curve: {0}")]
    Picture(String),
    /// The engine did not take a prompt that was to be measured.
    #[error("a training input cannot be measured: {0}")]
    Measured(#[from] engine::SubmitError),
    /// The engine could not compute a prompt that was to be measured.
    #[error("a training input cannot be measured: {0}")]
    Measuring(#[from] engine::EngineError),
    /// An adapter that does not say what it was trained on.
    #[error("the manifest of {} has {field} {found}; a profile needs {expected}", path.display())]
    NothingToMeasure {
        /// The directory.
        path: PathBuf,
        /// The field of its manifest.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// The thread pool could not be made.
    #[error("cannot start the worker threads: {0}")]
    Threads(String),
}

fn join(numbers: &[usize]) -> String {
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl TrainerError {
    pub(crate) fn argument(flag: &str, got: &str, expected: &str) -> Self {
        Self::Argument {
            flag: flag.into(),
            got: got.into(),
            expected: expected.into(),
        }
    }
}
