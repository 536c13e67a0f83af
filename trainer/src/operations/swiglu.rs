//! The gate of the feed-forward block: `silu(gate) · up` (Shazeer, 2020), on rows that hold gate and up side by side.

use rayon::prelude::*;

use super::ROWS_PER_TASK;
use super::exponential::exponential;

/// `[rows, 2·width]` (gate, then up) to `[rows, width]`.
pub(crate) fn forward(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut output = vec![0.0; gate_up.len() / 2];
    output
        .par_chunks_exact_mut(width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .with_min_len(ROWS_PER_TASK)
        .for_each(|(y, row)| {
            let (gate, up) = row.split_at(width);
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate / (1.0 + exponential(-gate)) * up;
            }
        });
    output
}

/// The gradient of `gate_up` given that of the output: with σ = sigmoid(gate),
/// `d gate = g · up · σ (1 + gate (1 − σ))` and `d up = g · gate · σ`.
pub(crate) fn backward(gate_up: &[f32], gradient: &[f32], width: usize) -> Vec<f32> {
    let mut input_gradient = vec![0.0; gate_up.len()];
    input_gradient
        .par_chunks_exact_mut(2 * width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .zip(gradient.par_chunks_exact(width))
        .with_min_len(ROWS_PER_TASK)
        .for_each(|((d, row), g)| {
            let (gate, up) = row.split_at(width);
            let (gate_gradient, up_gradient) = d.split_at_mut(width);
            for j in 0..width {
                let sigmoid = 1.0 / (1.0 + exponential(-gate[j]));
                gate_gradient[j] = g[j] * up[j] * sigmoid * (1.0 + gate[j] * (1.0 - sigmoid));
                up_gradient[j] = g[j] * gate[j] * sigmoid;
            }
        });
    input_gradient
}
