//! What is known of an evaluation, on the wire and on disk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::state::unix_seconds;

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evaluation {
    /// `eval_…`; ids sort by time.
    pub id: String,
    /// `evaluation`.
    pub object: String,
    /// Where it stands.
    pub status: Status,
    /// `in_domain`, `out_of_domain`, `cross_task` or `matrix`.
    pub kind: String,
    /// The models as they were named.
    pub adapters: Vec<String>,
    /// Most examples of each cell.
    pub limit: Option<usize>,
    /// Seed of the confidence intervals.
    pub seed: u64,
    /// When it was asked for, seconds since 1970.
    pub created: u64,
    /// When it began.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// What was measured so far.
    pub cells: Vec<CellReport>,
    /// The scores behind each cell; on disk, not on the wire.
    #[serde(skip)]
    pub scores: Vec<Arc<CellScores>>,
}

/// The metric of each example of a cell, 0 to 1, in the order of the data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellScores {
    /// Of the model of the cell.
    pub own: Vec<f64>,
    /// Of the base model.
    pub base: Vec<f64>,
}

/// Where an evaluation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waiting for its turn.
    Queued,
    /// Being measured.
    Running,
    /// Measured.
    Completed,
    /// Stopped on request.
    Cancelled,
    /// Stopped by an error.
    Failed,
}

/// How far an evaluation is. Examples include those of the base model's cells that are measured for comparison only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Cells measured.
    pub cells_done: usize,
    /// Cells to measure.
    pub cells_total: usize,
    /// Examples answered.
    pub examples_done: usize,
    /// Examples to answer.
    pub examples_total: usize,
}

/// One measurement of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CellReport {
    /// The adapter's name, or `base`.
    pub adapter: String,
    /// Its version; null for the base model.
    pub version: Option<String>,
    /// The task it was trained for.
    pub trained_task: Option<String>,
    /// The task measured.
    pub task: String,
    /// The data set.
    pub dataset: String,
    /// `in`, `out` or `cross`.
    pub domain: String,
    /// Demonstrations in front of each example.
    pub shots: usize,
    /// The prompt's number.
    pub prompt: usize,
    /// Examples.
    pub n: usize,
    /// `accuracy` or `rouge_l`.
    pub metric: String,
    /// The measured value, 0 to 1.
    pub value: f64,
    /// 95 % bootstrap interval of `value`.
    pub ci95: [f64; 2],
    /// The base model's value in the same cell.
    pub baseline: f64,
    /// `value - baseline`.
    pub delta: f64,
    /// macro_f1 and confusion, or rouge_1, rouge_2, rouge_l, bleu and bare_labels; always `delta_ci95`, the paired 95 % bootstrap
    /// interval of `delta`, and `truncated`, the examples whose prompt had to be cut at its beginning to fit.
    #[schema(value_type = Object)]
    pub extra: Value,
}

impl Status {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::Completed,
        Self::Cancelled,
        Self::Failed,
    ];

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Completed | Self::Cancelled | Self::Failed => true,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl Evaluation {
    /// Ends the evaluation.
    pub fn finish(&mut self, status: Status, error: Option<String>) {
        self.status = status;
        self.error = error;
        self.finished = Some(unix_seconds());
    }
}
