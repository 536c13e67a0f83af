//! What is asked of a model, and how its answers are measured.
//!
//! Here belong the five tasks with their labels and prompts, the data sets and their domain roles, demonstrations, the
//! metrics with their confidence intervals, and the plan of an evaluation as a list of cells. Nothing here knows of
//! tensors, tokens, models or HTTP: the trainer and the server meet this crate with text and label indices only.
//!
//! Scales, everywhere: accuracy, macro-F1 and ROUGE lie in 0..=1, BLEU lies in 0..=100.
#![forbid(unsafe_code)]

mod catalog;
mod data_error;
mod dataset;
mod example;
mod generation;
pub mod metrics;
mod plan;
mod prompts;
mod records;
#[cfg(test)]
mod sample_data;
mod score;
mod source;
mod task;
mod uploaded;

pub use catalog::{Catalog, DatasetEntry, TrainingSet};
pub use data_error::{DataError, FileRole};
pub use dataset::{DatasetRole, Domain};
pub use example::{Example, Fields};
pub use generation::{bare_label, cut_generation};
pub use metrics::{
    ConfusionMatrix, Interval, Rouge, accuracy, bleu, bootstrap_mean, bootstrap_paired, macro_f1,
    rouge,
};
pub use plan::{Cell, EvaluationKind, PlanError, PlanRequest, baseline_cells, plan};
pub use prompts::{PromptError, Prompts, context};
pub use score::{CellResult, Outputs, ScoreError, score_cell};
pub use task::{Kind, Metric, Task, UnknownTask};
pub use uploaded::UploadedDataset;
