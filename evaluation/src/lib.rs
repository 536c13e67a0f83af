//! A plan measured through the engine, and what is written of it.
//!
//! Here belong the prompts of a cell as token ids, the scoring of labels, the running of cells over a base model and its adapters, the
//! record of what was found, and the reports made of it. What is asked and how answers are scored is for `tasks`. Whoever runs a plan
//! (the server with jobs that can be paused, the trainer from a command line) says where the models come from and keeps the record:
//! nothing here knows of HTTP or of stores.
#![forbid(unsafe_code)]

mod cell;
mod cell_report;
mod error;
mod evaluator;
mod labels;
mod measurement;
mod measurements;
pub mod patience;
mod plan;
mod prompt;
mod record;
pub mod report;

pub use cell_report::{CellComparison, CellReport, Verdict};
pub use error::EvaluationError;
pub use evaluator::{Evaluator, HeldModel, MeasuredCell, ModelSource, Observer};
pub use labels::{LabelScorer, LabelScores, LabelScoring, argmax};
pub use measurement::{Measurement, Prediction};
pub use measurements::{Measurements, read_measurement};
pub use plan::{EvaluationPlan, ModelVersion, PlannedDataset, PlannedModel, Scoring};
pub use prompt::TaskPrompt;
pub use record::{CellScores, Evaluation, Progress, Stage, Stages, Status};
