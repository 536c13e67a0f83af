//! What one model answered in one cell, and what it was worth.

use serde::{Deserialize, Serialize};
use tasks::CellResult;

/// A measured cell of one model. The same plan over the same model gives the same measurement, on any run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The figures.
    pub result: CellResult,
    /// Examples whose prompt had to be cut at its beginning to fit.
    pub truncated: usize,
    /// What would have been right, in the order of the examples.
    pub golds: Vec<String>,
    /// The answers, in the same order.
    pub predictions: Vec<Prediction>,
}

/// A model's answer to one example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prediction {
    /// Of a classification task.
    Label {
        /// The chosen label's place in the task's labels.
        label: usize,
        /// Log-probability of each label, nats, before any calibration.
        logprobs: Vec<f64>,
    },
    /// Of a generation task.
    Text {
        /// The text as it was generated, uncut.
        text: String,
    },
}
