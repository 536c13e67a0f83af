//! The answers behind an evaluation's figures, one JSON object a line.

use evaluation::{CellReport, CellScores, Measurement, Prediction, read_measurement};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tasks::Task;
use utoipa::ToSchema;

use super::{Evaluations, persistence};
use crate::error::ApiError;

/// One example of one cell: what the model answered, what the base answered, what would have been right.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PredictionLine {
    /// Place of the cell in the evaluation's `cells`.
    pub cell: usize,
    /// The adapter's name, or `base`.
    pub adapter: String,
    /// Its version; null for the base model.
    pub version: Option<String>,
    /// The task measured.
    pub task: String,
    /// The data set.
    pub dataset: String,
    /// Demonstrations in front of the example.
    pub shots: usize,
    /// The prompt's number.
    pub prompt: usize,
    /// Place of the example in the data set; those without a gold label are not counted.
    pub index: usize,
    /// The label or the text that would have been right.
    pub gold: String,
    /// The label or the text of the model, uncut.
    pub prediction: String,
    /// Log-probability of each label, nats; null for texts.
    pub logprobs: Option<BTreeMap<String, f64>>,
    /// What the answer is worth by the cell's metric, 0 to 1.
    pub score: f64,
    /// The label or the text of the base model.
    pub baseline_prediction: String,
    /// What that is worth.
    pub baseline_score: f64,
}

/// What is read for one cell.
pub struct CellPredictions {
    place: usize,
    report: CellReport,
    scores: Arc<CellScores>,
    folder: PathBuf,
}

impl Evaluations {
    /// The measured cells of an evaluation, or one of them, to read predictions of.
    ///
    /// # Errors
    /// `NotFound` for an unknown evaluation or cell, and when its predictions are not kept.
    pub fn predictions(
        &self,
        id: &str,
        cell: Option<usize>,
    ) -> Result<Vec<CellPredictions>, ApiError> {
        let record = self.get(id)?.snapshot();
        let folder = persistence::measurements_of(self.directory(), &record.id);
        if !folder.is_dir() && !record.cells.is_empty() {
            return Err(ApiError::NotFound {
                kind: "prediction",
                id: format!("{}/*", record.id),
                hint: format!(
                    "the server keeps those of the newest {} finished evaluations (--retain-predictions)",
                    self.retained
                ),
            });
        }
        let cells = record.cells.into_iter().zip(record.scores).enumerate();
        let cells: Vec<_> = cells
            .filter(|(place, _)| cell.is_none_or(|wanted| wanted == *place))
            .map(|(place, (report, scores))| CellPredictions {
                place,
                report,
                scores,
                folder: folder.clone(),
            })
            .collect();
        match (cell, cells.is_empty()) {
            (Some(wanted), true) => Err(ApiError::NotFound {
                kind: "cell",
                id: wanted.to_string(),
                hint: "cells are numbered from 0 in the evaluation's `cells`".to_owned(),
            }),
            _ => Ok(cells),
        }
    }
}

impl CellPredictions {
    /// The lines of the cell, each ended by a line break. Reads files.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lines(&self) -> Result<Vec<u8>, ApiError> {
        let read = |key: &str| read(&self.folder, key);
        let (own, base) = (
            read(&self.scores.measurement)?,
            read(&self.scores.baseline)?,
        );
        let labels = self
            .report
            .task
            .parse()
            .map(Task::labels)
            .unwrap_or_default();
        let mut lines = Vec::new();
        for index in 0..own.predictions.len().min(base.predictions.len()) {
            let line = PredictionLine {
                cell: self.place,
                adapter: self.report.adapter.clone(),
                version: self.report.version.clone(),
                task: self.report.task.clone(),
                dataset: self.report.dataset.clone(),
                shots: self.report.shots,
                prompt: self.report.prompt,
                index,
                gold: own.golds[index].clone(),
                prediction: text(&own.predictions[index], labels),
                logprobs: logprobs(&own.predictions[index], labels),
                score: own.result.per_example[index],
                baseline_prediction: text(&base.predictions[index], labels),
                baseline_score: base.result.per_example[index],
            };
            serde_json::to_writer(&mut lines, &line).map_err(ApiError::internal)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

fn read(folder: &Path, key: &str) -> Result<Measurement, ApiError> {
    read_measurement(folder, key).map_err(ApiError::internal)
}

fn text(prediction: &Prediction, labels: &[&str]) -> String {
    match prediction {
        Prediction::Label { label, .. } => {
            labels.get(*label).copied().unwrap_or_default().to_owned()
        }
        Prediction::Text { text } => text.clone(),
    }
}

fn logprobs(prediction: &Prediction, labels: &[&str]) -> Option<BTreeMap<String, f64>> {
    match prediction {
        Prediction::Label { logprobs, .. } => {
            let names = labels.iter().map(|label| (*label).to_owned());
            Some(names.zip(logprobs.iter().copied()).collect())
        }
        Prediction::Text { .. } => None,
    }
}
