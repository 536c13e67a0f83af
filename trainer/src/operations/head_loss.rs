//! The output head and the cross-entropy of the rows that carry a target, forward and backward in one go.
//!
//! Logits exist for a few rows at a time and become their own gradient in place: nothing of the vocabulary's width is
//! kept.

use rayon::prelude::*;

use super::exponential::exponential;
use super::frozen_matrix::FrozenMatrix;
use super::rms_norm::{RmsNorm, sum_by_lanes};

/// Rows whose logits exist at once.
const ROWS_AT_ONCE: usize = 128;

/// The final normalisation and the output projection, both frozen.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Before the projection.
    pub(crate) norm: RmsNorm<'a>,
    /// `[vocabulary, hidden]`.
    pub(crate) weight: &'a FrozenMatrix,
}

impl Head<'_> {
    fn hidden(&self) -> usize {
        self.norm.weight.len()
    }

    fn vocabulary(&self) -> usize {
        self.weight.outputs()
    }

    /// Logits `[rows, vocabulary]` of `[rows, hidden]`.
    pub(crate) fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; hidden.len() / self.hidden() * self.vocabulary()];
        self.weight
            .forward(&self.norm.forward(hidden), &mut logits, false);
        logits
    }

    /// The log-probability of `targets[i]` at row `i` of `[rows, hidden]`.
    pub(crate) fn log_probabilities(&self, hidden: &[f32], targets: &[u32]) -> Vec<f64> {
        let normed = self.norm.forward(hidden);
        let mut logits = vec![0.0; targets.len().min(ROWS_AT_ONCE) * self.vocabulary()];
        let mut result = Vec::with_capacity(targets.len());
        let inputs = normed.chunks(ROWS_AT_ONCE * self.hidden());
        for (normed, targets) in inputs.zip(targets.chunks(ROWS_AT_ONCE)) {
            let logits = &mut logits[..targets.len() * self.vocabulary()];
            self.weight.forward(normed, logits, false);
            let rows = logits.par_chunks_exact_mut(self.vocabulary()).zip(targets);
            result.par_extend(rows.map(|(row, &target)| -exponentiate(row, target).0));
        }
        result
    }

    /// The negative log-probability of each row's target, and the gradient of `weight · Σ loss` by the rows,
    /// `[rows, hidden]`.
    pub(crate) fn loss_and_gradient(
        &self,
        hidden: &[f32],
        targets: &[u32],
        weight: f32,
    ) -> (Vec<f64>, Vec<f32>) {
        let (width, vocabulary) = (self.hidden(), self.vocabulary());
        let normed = self.norm.forward(hidden);
        let mut normed_gradient = vec![0.0; hidden.len()];
        let mut logits = vec![0.0; targets.len().min(ROWS_AT_ONCE) * vocabulary];
        let mut losses = Vec::with_capacity(targets.len());
        let chunks = normed
            .chunks(ROWS_AT_ONCE * width)
            .zip(normed_gradient.chunks_mut(ROWS_AT_ONCE * width));
        for ((normed, gradient), targets) in chunks.zip(targets.chunks(ROWS_AT_ONCE)) {
            let logits = &mut logits[..targets.len() * vocabulary];
            self.weight.forward(normed, logits, false);
            let rows = logits.par_chunks_exact_mut(vocabulary).zip(targets);
            losses.par_extend(rows.map(|(row, &target)| {
                let (loss, sum) = exponentiate(row, target);
                let factor = weight / sum;
                row.iter_mut().for_each(|value| *value *= factor);
                row[target as usize] -= weight;
                loss
            }));
            self.weight.backward(logits, gradient, false);
        }
        let mut gradient = vec![0.0; hidden.len()];
        self.norm.backward(hidden, &normed_gradient, &mut gradient);
        (losses, gradient)
    }
}

/// Turns logits into `e^(logit − largest)` and returns the target's negative log-probability and their sum.
fn exponentiate(row: &mut [f32], target: u32) -> (f64, f32) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in row.chunks(16) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*value);
        }
    }
    let largest = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let target = row[target as usize] - largest;
    for value in row.iter_mut() {
        *value = exponential(*value - largest);
    }
    let sum = sum_by_lanes(row.len(), |j| row[j]);
    (f64::from(sum).ln() - f64::from(target), sum)
}
