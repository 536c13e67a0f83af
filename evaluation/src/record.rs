//! What is known of an evaluation, on the wire and on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cell_report::CellReport;
use crate::plan::{EvaluationPlan, Scoring};

/// An evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// How labels are chosen.
    #[serde(default)]
    pub scoring: Scoring,
    /// The model that all are compared with beside the base, as it was named.
    #[serde(default)]
    pub against: Option<String>,
    /// SHA-256 of the examples and demonstrations of each data set, by `<task>/<id>`.
    #[serde(default)]
    pub datasets: BTreeMap<String, String>,
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
    /// Where the time went.
    #[serde(default)]
    pub stages: Stages,
    /// What was measured so far.
    pub cells: Vec<CellReport>,
    /// The scores behind each cell; on disk, not on the wire.
    #[serde(skip)]
    pub scores: Vec<Arc<CellScores>>,
    /// What is measured; on disk, not on the wire. Evaluations of earlier versions have none.
    #[serde(skip)]
    pub plan: Option<Arc<EvaluationPlan>>,
}

/// What a cell's figures are made of: the metric of each example, 0 to 1, in the order of the data set, and where its answers are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellScores {
    /// Of the model of the cell.
    pub own: Vec<f64>,
    /// Of the base model.
    pub base: Vec<f64>,
    /// The name of the model's measurement.
    #[serde(default)]
    pub measurement: String,
    /// The name of the base's.
    #[serde(default)]
    pub baseline: String,
}

/// A part of an evaluation's work. Preparing and scoring of one cell go on while the examples of another are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading examples and making prompts.
    Preparing,
    /// Waiting for labels.
    Classification,
    /// Waiting for texts.
    Generation,
    /// Metrics and intervals.
    Scoring,
    /// Writing the record.
    Saving,
}

/// Seconds spent in each stage. `classification_seconds` and `generation_seconds` add up to the time from the first cell to the last; the
/// others are parts of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stages {
    /// Reading examples and making prompts.
    pub preparing_seconds: f64,
    /// Cells of classification tasks.
    pub classification_seconds: f64,
    /// Cells of generation tasks.
    pub generation_seconds: f64,
    /// Metrics and intervals.
    pub scoring_seconds: f64,
    /// Writing the record.
    pub saving_seconds: f64,
}

impl Stages {
    /// Books seconds.
    pub fn add(&mut self, stage: Stage, seconds: f64) {
        *match stage {
            Stage::Preparing => &mut self.preparing_seconds,
            Stage::Classification => &mut self.classification_seconds,
            Stage::Generation => &mut self.generation_seconds,
            Stage::Scoring => &mut self.scoring_seconds,
            Stage::Saving => &mut self.saving_seconds,
        } += seconds;
    }
}

/// Where an evaluation stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waiting for its turn.
    #[default]
    Queued,
    /// Being measured.
    Running,
    /// Stopped on request, to be gone on with.
    Paused,
    /// Measured.
    Completed,
    /// Stopped on request.
    Cancelled,
    /// Stopped by an error.
    Failed,
}

/// How far an evaluation is. Examples include those of the base model's cells that are measured for comparison only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Cells measured.
    pub cells_done: usize,
    /// Cells to measure.
    pub cells_total: usize,
    /// Examples answered.
    pub examples_done: usize,
    /// Examples to answer.
    pub examples_total: usize,
    /// Seconds until the end, as long as the work goes on as it did; null before there is anything to judge by and when nothing runs.
    #[serde(default)]
    pub estimated_seconds_left: Option<f64>,
}

impl Status {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Completed,
        Self::Cancelled,
        Self::Failed,
    ];

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Paused => false,
            Self::Completed | Self::Cancelled | Self::Failed => true,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl Evaluation {
    /// Ends the evaluation at a time, seconds since 1970.
    pub fn finish(&mut self, status: Status, error: Option<String>, now: u64) {
        self.status = status;
        self.error = error;
        self.finished = Some(now);
        self.progress.estimated_seconds_left = None;
    }
}
