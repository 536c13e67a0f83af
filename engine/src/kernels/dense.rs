//! Products of many rows with a float matrix that never changes, as training makes them: forward with a weight, backward
//! with its transpose.
//!
//! The matrix is packed once, in panels of [`PANEL`] outputs, and read in blocks of [`DEPTH`] inputs that stay in the first
//! cache while all rows pass. Not for serving: results depend on the packing only, but single rows would be slow.

use super::KernelChoice;
use super::set::{KernelSet, LANES, Operation};

/// Outputs side by side: four vectors, so that with six rows their sums fill the registers of AVX-512.
const PANEL: usize = VECTORS * LANES;
const VECTORS: usize = 4;
/// Inputs of a block: 32 KiB of a panel.
const DEPTH: usize = 128;
/// Rows that share a pass over a block.
const ROWS: usize = 6;

/// The weights of one input for a panel's outputs.
type Line = [[f32; LANES]; VECTORS];

/// A packed matrix of f32.
pub struct DenseMatrix {
    /// `[panel][input][PANEL]`; outputs past the last are zero.
    lines: Vec<Line>,
    inputs: usize,
    outputs: usize,
}

impl DenseMatrix {
    /// Packs `values`, `[outputs, inputs]`: the product of rows `x` is `x · valuesᵀ`.
    ///
    /// # Panics
    /// When `values` is not a multiple of `inputs`.
    pub fn new(values: &[f32], inputs: usize) -> Self {
        let outputs = values.len() / inputs.max(1);
        assert_eq!(values.len(), outputs * inputs, "a matrix has whole rows");
        Self::pack(inputs, outputs, |input, output| {
            values[output * inputs + input]
        })
    }

    /// Packs the transpose of `values`, `[inputs, outputs]`: the product of rows `x` is `x · values`.
    ///
    /// # Panics
    /// When `values` is not a multiple of `outputs`.
    pub fn transposed(values: &[f32], outputs: usize) -> Self {
        let inputs = values.len() / outputs.max(1);
        assert_eq!(values.len(), outputs * inputs, "a matrix has whole rows");
        Self::pack(inputs, outputs, |input, output| {
            values[input * outputs + output]
        })
    }

    fn pack(inputs: usize, outputs: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let panels = outputs.div_ceil(PANEL);
        let mut lines = vec![[[0.0; LANES]; VECTORS]; panels * inputs];
        for panel in 0..panels {
            for input in 0..inputs {
                let line = lines[panel * inputs + input].as_flattened_mut();
                let first = panel * PANEL;
                for (lane, output) in (first..outputs.min(first + PANEL)).enumerate() {
                    line[lane] = value(input, output);
                }
            }
        }
        Self {
            lines,
            inputs,
            outputs,
        }
    }

    /// The products of `rows`, `[rows, inputs]`, in `output`, `[rows, outputs]`, added to what is there or in its place.
    /// On the calling thread; rows do not depend on each other.
    ///
    /// # Panics
    /// When the shapes do not chain.
    pub fn product(&self, kernels: KernelChoice, rows: &[f32], output: &mut [f32], add: bool) {
        let count = rows.len() / self.inputs.max(1);
        assert_eq!(rows.len(), count * self.inputs, "whole rows are multiplied");
        assert_eq!(output.len(), count * self.outputs, "a product per row");
        if self.inputs == 0 && !add {
            output.fill(0.0);
        }
        for (panel, lines) in self.lines.chunks_exact(self.inputs.max(1)).enumerate() {
            for (block, lines) in lines.chunks(DEPTH).enumerate() {
                kernels.run(Block {
                    lines,
                    rows: Strided::new(rows, block * DEPTH, self.inputs),
                    output,
                    column: panel * PANEL,
                    outputs: self.outputs,
                    add: add || block > 0,
                });
            }
        }
    }
}

/// A range of columns of a row-major matrix.
#[derive(Clone, Copy)]
struct Strided<'a> {
    values: &'a [f32],
    first: usize,
    width: usize,
}

impl<'a> Strided<'a> {
    fn new(values: &'a [f32], first: usize, width: usize) -> Self {
        Self {
            values,
            first,
            width,
        }
    }

    #[inline(always)]
    fn row(&self, index: usize, length: usize) -> &'a [f32] {
        &self.values[index * self.width + self.first..][..length]
    }
}

/// All rows times one block of one panel.
struct Block<'a> {
    lines: &'a [Line],
    rows: Strided<'a>,
    output: &'a mut [f32],
    column: usize,
    outputs: usize,
    add: bool,
}

impl Operation for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(mut self, set: S) {
        let count = self.rows.values.len() / self.rows.width;
        let mut first = 0;
        while first + ROWS <= count {
            self.rows::<S, ROWS>(set, first);
            first += ROWS;
        }
        match count - first {
            5 => self.rows::<S, 5>(set, first),
            4 => self.rows::<S, 4>(set, first),
            3 => self.rows::<S, 3>(set, first),
            2 => self.rows::<S, 2>(set, first),
            1 => self.rows::<S, 1>(set, first),
            _ => {}
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn rows<S: KernelSet, const COUNT: usize>(&mut self, set: S, first: usize) {
        if S::EIGHT_ROWS {
            self.vectors::<S, COUNT, VECTORS>(set, first, 0);
        } else {
            for vector in 0..VECTORS {
                self.vectors::<S, COUNT, 1>(set, first, vector);
            }
        }
    }

    /// `COUNT` rows times `WIDTH` vectors of every line, from vector `start` on.
    #[inline(always)]
    fn vectors<S: KernelSet, const COUNT: usize, const WIDTH: usize>(
        &mut self,
        set: S,
        first: usize,
        start: usize,
    ) {
        let depth = self.lines.len();
        let rows: [&[f32]; COUNT] = std::array::from_fn(|row| self.rows.row(first + row, depth));
        let mut sums = [[set.splat(0.0); WIDTH]; COUNT];
        for (index, line) in self.lines.iter().enumerate() {
            let mut weights = [set.splat(0.0); WIDTH];
            for (vector, weights) in weights.iter_mut().enumerate() {
                *weights = set.load(&line[start + vector]);
            }
            for (row, sums) in rows.iter().zip(&mut sums) {
                let value = set.splat(row[index]);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = set.fma(value, weights, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let begin = (first + row) * self.outputs;
            let output = &mut self.output[begin..begin + self.outputs];
            for (vector, sum) in sums.iter().enumerate() {
                let column = self.column + (start + vector) * LANES;
                let rest = output.get_mut(column..).unwrap_or_default();
                if let Some(place) = rest.first_chunk_mut() {
                    let sum = if self.add {
                        set.add(set.load(place), *sum)
                    } else {
                        *sum
                    };
                    set.store(sum, place);
                } else {
                    let mut values = [0.0; LANES];
                    set.store(*sum, &mut values);
                    for (place, value) in rest.iter_mut().zip(values) {
                        *place = if self.add { *place + value } else { value };
                    }
                }
            }
        }
    }
}
