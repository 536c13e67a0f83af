//! Root-mean-square normalisation: `y = x / sqrt(mean(x²) + ε) · w`, row by row (Zhang and Sennrich, 2019).

use rayon::prelude::*;

use super::ROWS_PER_TASK;

/// The frozen weights and ε of one normalisation.
#[derive(Clone, Copy)]
pub(crate) struct RmsNorm<'a> {
    /// `[width]`.
    pub(crate) weight: &'a [f32],
    /// Added to the mean square.
    pub(crate) epsilon: f32,
}

impl RmsNorm<'_> {
    /// `[rows, width]` to `[rows, width]`.
    pub(crate) fn forward(&self, input: &[f32]) -> Vec<f32> {
        let width = self.weight.len();
        let mut output = vec![0.0; input.len()];
        output
            .par_chunks_exact_mut(width)
            .zip(input.par_chunks_exact(width))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(y, x)| {
                let inverse = self.inverse_root(x);
                for ((y, x), w) in y.iter_mut().zip(x).zip(self.weight) {
                    *y = x * inverse * w;
                }
            });
        output
    }

    /// Adds the gradient of the input to `input_gradient`:
    /// `dx += (g·w − x · mean(g·w·x) / (mean(x²) + ε)) / sqrt(mean(x²) + ε)`.
    pub(crate) fn backward(&self, input: &[f32], gradient: &[f32], input_gradient: &mut [f32]) {
        let width = self.weight.len();
        input_gradient
            .par_chunks_exact_mut(width)
            .zip(input.par_chunks_exact(width))
            .zip(gradient.par_chunks_exact(width))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|((dx, x), g)| {
                let inverse = self.inverse_root(x);
                let projection = sum_by_lanes(width, |j| g[j] * self.weight[j] * x[j]);
                let correction = projection * inverse * inverse / width as f32;
                for j in 0..width {
                    dx[j] += inverse * (g[j] * self.weight[j] - x[j] * correction);
                }
            });
    }

    fn inverse_root(&self, x: &[f32]) -> f32 {
        let squares = sum_by_lanes(x.len(), |j| x[j] * x[j]);
        1.0 / (squares / x.len() as f32 + self.epsilon).sqrt()
    }
}

/// A sum in sixteen interleaved lanes, so that it vectorises and its order never depends on threads.
#[inline(always)]
pub(crate) fn sum_by_lanes(length: usize, value: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += value(start + lane);
        }
    }
    for j in whole..length {
        lanes[j - whole] += value(j);
    }
    lanes.iter().sum()
}
