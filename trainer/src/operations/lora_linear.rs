//! Projections that share an input, with their low-rank deltas: `y = x Wᵀ + scale · (x Aᵀ) Bᵀ` (Hu et al., 2021).
//!
//! The weight of a group is its projections' weights stacked (query, key, value; or gate, up), so that the input is
//! read once. The frozen weight gets no gradient, and nobody asks for one.

use engine::kernels::float_product::{Matrix, MatrixMut, Product, multiply};
use rayon::prelude::*;

use super::frozen_matrix::FrozenMatrix;
use crate::layout::GroupLayout;

/// Drops inputs of the low-rank path at random, scaling the rest by `1 / (1 − probability)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dropout {
    /// Chance of an input to be dropped, `0 ≤ p < 1`.
    pub(crate) probability: f32,
    /// Chooses the mask: the same seed gives the same mask in backward as in forward.
    pub(crate) seed: u64,
}

/// One group of projections of one layer.
#[derive(Clone, Copy)]
pub(crate) struct LoraLinear<'a> {
    /// Shapes, and where each factor stands among the layer's parameters.
    pub(crate) layout: &'a GroupLayout,
    /// `[outputs, inputs]`.
    pub(crate) weight: &'a FrozenMatrix,
    /// All trained values of the layer.
    pub(crate) parameters: &'a [f32],
    /// Of the low-rank path.
    pub(crate) dropout: Option<Dropout>,
}

impl LoraLinear<'_> {
    /// Adds the projections of `input` (`[rows, inputs]`) to `output` (`[rows, outputs]`) or overwrites it with them.
    /// Returns the low-rank inner values `x Aᵀ`, `[rows, rank]`, which backward needs.
    pub(crate) fn forward(&self, input: &[f32], output: &mut [f32], accumulate: bool) -> Vec<f32> {
        let GroupLayout {
            inputs,
            outputs,
            rank,
            ..
        } = *self.layout;
        let rows = input.len() / inputs;
        self.weight.forward(input, output, accumulate);
        if rank == 0 {
            return Vec::new();
        }
        let dropped = self.dropped(input);
        let mut inner = vec![0.0; rows * rank];
        multiply(
            MatrixMut::new(&mut inner, rows, rank),
            Matrix::new(dropped.as_deref().unwrap_or(input), rows, inputs),
            self.a().transposed(),
            Product::WRITE,
        );
        for (part, slot) in self.layout.adapted() {
            multiply(
                MatrixMut::strided(&mut output[part.offset..], rows, part.outputs, outputs),
                Matrix::strided(&inner[slot.column..], rows, slot.rank, rank),
                Matrix::new(&self.parameters[slot.b.clone()], part.outputs, slot.rank).transposed(),
                Product::ADD.scaled(slot.scale),
            );
        }
        inner
    }

    /// Writes the gradients of this group's factors into `parameter_gradient` (the layer's) and returns that of the
    /// inner values, `[rows, rank]`.
    pub(crate) fn backward(
        &self,
        input: &[f32],
        inner: &[f32],
        gradient: &[f32],
        parameter_gradient: &mut [f32],
    ) -> Vec<f32> {
        let GroupLayout {
            inputs,
            outputs,
            rank,
            ..
        } = *self.layout;
        let rows = input.len() / inputs;
        let mut inner_gradient = vec![0.0; rows * rank];
        for (part, slot) in self.layout.adapted() {
            let part_gradient =
                Matrix::strided(&gradient[part.offset..], rows, part.outputs, outputs);
            multiply(
                MatrixMut::strided(&mut inner_gradient[slot.column..], rows, slot.rank, rank),
                part_gradient,
                Matrix::new(&self.parameters[slot.b.clone()], part.outputs, slot.rank),
                Product::WRITE.scaled(slot.scale),
            );
            multiply(
                MatrixMut::new(
                    &mut parameter_gradient[slot.b.clone()],
                    part.outputs,
                    slot.rank,
                ),
                part_gradient.transposed(),
                Matrix::strided(&inner[slot.column..], rows, slot.rank, rank),
                Product::WRITE.scaled(slot.scale),
            );
        }
        if rank > 0 {
            let dropped = self.dropped(input);
            multiply(
                MatrixMut::new(&mut parameter_gradient[self.layout.a.clone()], rank, inputs),
                Matrix::new(&inner_gradient, rows, rank).transposed(),
                Matrix::new(dropped.as_deref().unwrap_or(input), rows, inputs),
                Product::WRITE,
            );
        }
        inner_gradient
    }

    /// The gradient of the input, `[rows, inputs]`: `g W + (dz A)`, the second term through the dropout.
    pub(crate) fn input_gradient(&self, gradient: &[f32], inner_gradient: &[f32]) -> Vec<f32> {
        let GroupLayout {
            inputs,
            outputs,
            rank,
            ..
        } = *self.layout;
        let rows = gradient.len() / outputs;
        let mut result = vec![0.0; rows * inputs];
        let low_rank = |destination: &mut [f32], product| {
            let inner_gradient = Matrix::new(inner_gradient, rows, rank);
            multiply(
                MatrixMut::new(destination, rows, inputs),
                inner_gradient,
                self.a(),
                product,
            );
        };
        if rank > 0 {
            low_rank(&mut result, Product::WRITE);
            if let Some(dropout) = self.dropout {
                dropout.apply(&mut result);
            }
        }
        self.weight.backward(gradient, &mut result, rank > 0);
        result
    }

    fn a(&self) -> Matrix<'_> {
        Matrix::new(
            &self.parameters[self.layout.a.clone()],
            self.layout.rank,
            self.layout.inputs,
        )
    }

    fn dropped(&self, input: &[f32]) -> Option<Vec<f32>> {
        self.dropout.map(|dropout| {
            let mut copy = input.to_vec();
            dropout.apply(&mut copy);
            copy
        })
    }
}

impl Dropout {
    /// The same dropout with a mask of its own for another group of projections.
    pub(crate) fn for_group(self, group: usize) -> Self {
        Self {
            seed: mix(self.seed ^ ((group as u64 + 1) << 48)),
            ..self
        }
    }

    fn apply(&self, values: &mut [f32]) {
        const CHUNK: usize = 4096;
        let keep = 1.0 / (1.0 - self.probability);
        let threshold = (f64::from(self.probability) * 2f64.powi(64)) as u64;
        values
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, values)| {
                for (index, value) in values.iter_mut().enumerate() {
                    let dropped =
                        mix(self.seed.wrapping_add((chunk * CHUNK + index) as u64)) < threshold;
                    *value *= if dropped { 0.0 } else { keep };
                }
            });
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a counter in, independent-looking bits out.
fn mix(counter: u64) -> u64 {
    let mut z = counter
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
