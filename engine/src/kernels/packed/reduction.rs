//! An adapter's `A` in the order its products read it.

use half::f16;

use super::{ByteLine, TILE_ROWS, fit_f16};
use crate::kernels::prefetch::prefetch_beginning;

/// Rows of `A` that stand together.
pub(in crate::kernels) const RANKS: usize = 4;

/// The `A`s of projections that share their input, below each other.
pub struct PackedReduction {
    values: ReductionValues,
    outputs: usize,
    inputs: usize,
}

/// `[outputs / 4][inputs / 16][4][16]`, padded with zeros.
pub(in crate::kernels) enum ReductionValues {
    F16(Vec<[[f16; TILE_ROWS]; RANKS]>),
    F32(Vec<[[f32; TILE_ROWS]; RANKS]>),
    Bytes(Vec<[ByteLine; RANKS]>),
}

impl PackedReduction {
    /// Packs a row-major `[outputs, inputs]` matrix as f16, or as f32 when a value is too large for f16.
    pub fn from_floats(values: &[f32], outputs: usize, inputs: usize) -> Self {
        let values = if fit_f16(values) {
            ReductionValues::F16(interleave(values, inputs, f16::from_f32))
        } else {
            ReductionValues::F32(interleave(values, inputs, |value| value))
        };
        Self {
            values,
            outputs,
            inputs,
        }
    }

    /// Packs a row-major `[outputs, inputs]` matrix as bytes with a scale for every sixteen inputs of an output.
    pub fn from_floats_as_bytes(values: &[f32], outputs: usize, inputs: usize) -> Self {
        let lines = interleave(values, inputs, |value| value);
        let bytes = |ranks: &[[f32; TILE_ROWS]; RANKS]| ranks.each_ref().map(ByteLine::of);
        Self {
            values: ReductionValues::Bytes(lines.iter().map(bytes).collect()),
            outputs,
            inputs,
        }
    }

    /// Rows of the matrix, the sum of the ranks, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes the packed values occupy.
    pub fn bytes(&self) -> usize {
        match &self.values {
            ReductionValues::F16(values) => size_of_val(values.as_slice()),
            ReductionValues::F32(values) => size_of_val(values.as_slice()),
            ReductionValues::Bytes(values) => size_of_val(values.as_slice()),
        }
    }

    /// Writes the elements of row `row`, as the product sees them, to `out` of `inputs` elements.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let first = row / RANKS * self.inputs.div_ceil(TILE_ROWS);
        for (step, out) in out.chunks_mut(TILE_ROWS).enumerate() {
            for (lane, out) in out.iter_mut().enumerate() {
                *out = match &self.values {
                    ReductionValues::F16(values) => {
                        values[first + step][row % RANKS][lane].to_f32()
                    }
                    ReductionValues::F32(values) => values[first + step][row % RANKS][lane],
                    ReductionValues::Bytes(values) => values[first + step][row % RANKS].value(lane),
                };
            }
        }
    }

    /// Asks for the first of them.
    pub(in crate::kernels) fn prefetch(&self) {
        match &self.values {
            ReductionValues::F16(values) => prefetch_beginning(values),
            ReductionValues::F32(values) => prefetch_beginning(values),
            ReductionValues::Bytes(values) => prefetch_beginning(values),
        }
    }

    pub(in crate::kernels) fn values(&self) -> &ReductionValues {
        &self.values
    }

    /// Groups of four rows, the last one padded.
    pub(in crate::kernels) fn units(&self) -> usize {
        self.outputs.div_ceil(RANKS)
    }
}

fn interleave<T: Copy + Default>(
    values: &[f32],
    inputs: usize,
    convert: impl Fn(f32) -> T,
) -> Vec<[[T; TILE_ROWS]; RANKS]> {
    let steps = inputs.div_ceil(TILE_ROWS);
    let units = (values.len() / inputs).div_ceil(RANKS);
    let mut packed = vec![[[T::default(); TILE_ROWS]; RANKS]; units * steps];
    for (row, values) in values.chunks_exact(inputs).enumerate() {
        let packed = &mut packed[row / RANKS * steps..];
        for (packed, values) in packed.iter_mut().zip(values.chunks(TILE_ROWS)) {
            for (packed, value) in packed[row % RANKS].iter_mut().zip(values) {
                *packed = convert(*value);
            }
        }
    }
    packed
}
