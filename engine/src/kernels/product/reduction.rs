//! `x · Aᵀ`: rows of floats with the few rows of an adapter's `A`.
//!
//! Lanes run along the inputs, not along the outputs as in a tile: a rank of 8 would leave half of a tile empty.

use super::floats::{FloatLine, FloatRows};
use crate::kernels::packed::{PackedReduction, RANKS, ReductionValues, TILE_ROWS};
use crate::kernels::prefetch::prefetch_after;
use crate::kernels::set::{KernelSet, Operation};
use crate::kernels::{KernelChoice, SharedPointer};

/// Where reduced values go: row `i` starts at `i * stride`, and each is a multiple of four wide.
#[derive(Clone, Copy)]
pub(super) struct Reduced {
    pub(super) pointer: SharedPointer,
    pub(super) stride: usize,
}

/// The products of `rows` with ranks `4 · unit` to `4 · unit + 3`.
pub(super) fn reduce(
    kernels: KernelChoice,
    matrix: &PackedReduction,
    unit: usize,
    rows: &FloatRows<'_>,
    reduced: Reduced,
) {
    let steps = matrix.inputs().div_ceil(TILE_ROWS);
    let unit_range = unit * steps..(unit + 1) * steps;
    let out = Reduced {
        pointer: reduced.pointer.offset(unit * RANKS),
        ..reduced
    };
    match matrix.values() {
        ReductionValues::F16(all) => of_rows(kernels, &all[unit_range], matrix.inputs(), rows, out),
        ReductionValues::F32(all) => of_rows(kernels, &all[unit_range], matrix.inputs(), rows, out),
        ReductionValues::Bytes(all) => {
            of_rows(kernels, &all[unit_range], matrix.inputs(), rows, out)
        }
    }
}

fn of_rows<L: FloatLine>(
    kernels: KernelChoice,
    weights: &[[L; RANKS]],
    inputs: usize,
    rows: &FloatRows<'_>,
    reduced: Reduced,
) {
    let mut first = 0;
    while first < rows.count {
        let pointer = reduced.pointer.offset(first * reduced.stride);
        let out = Reduced { pointer, ..reduced };
        if rows.count - first >= 4 {
            kernels.run(Dots::<_, 4>(weights, rows.group(first, inputs), out));
            first += 4;
        } else {
            kernels.run(Dots::<_, 1>(weights, rows.group(first, inputs), out));
            first += 1;
        }
    }
}

/// Weights `[inputs / 16][4 ranks][16]`, the rows they meet and where the four sums of each row go.
struct Dots<'a, L, const ROWS: usize>(&'a [[L; RANKS]], [&'a [f32]; ROWS], Reduced);

impl<L: FloatLine, const ROWS: usize> Operation for Dots<'_, L, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(weights, rows, reduced) = self;
        let mut totals = [[set.splat(0.0); RANKS]; ROWS];
        for (step, weights) in weights.iter().enumerate() {
            prefetch_after(weights);
            let mut loaded = [set.splat(0.0); RANKS];
            for (loaded, weights) in loaded.iter_mut().zip(weights) {
                *loaded = L::load(set, weights);
            }
            for (totals, row) in totals.iter_mut().zip(rows) {
                let (chunks, rest) = row.as_chunks::<TILE_ROWS>();
                let values = match chunks.get(step) {
                    Some(values) => set.load(values),
                    None => {
                        let mut padded = [0.0; TILE_ROWS];
                        padded[..rest.len()].copy_from_slice(rest);
                        set.load(&padded)
                    }
                };
                for (total, weights) in totals.iter_mut().zip(loaded) {
                    *total = set.fma(values, weights, *total);
                }
            }
        }
        for (row, totals) in totals.iter().enumerate() {
            let start = reduced.pointer.get().wrapping_add(row * reduced.stride);
            for (rank, total) in totals.iter().enumerate() {
                // SAFETY: rows of `stride` elements, which `project` rounds up to whole units, and every unit of a row
                // belongs to one thread.
                unsafe { start.wrapping_add(rank).write(set.sum(*total)) };
            }
        }
    }
}
