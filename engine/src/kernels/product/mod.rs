//! Matrix products over a batch of rows: a base matrix over all rows and low-rank deltas over groups of them.
//!
//! Work is shared among the pool's threads by output tiles. Rows of different adapters go through one call, in two
//! rounds whatever their number: first the base product and every `x · Aᵀ`, then every `+= (x · Aᵀ) · Bᵀ`.

mod floats;
mod quantized;
mod reduction;
mod span;

use std::ops::Range;

use super::packed::{BLOCK, PackedMatrix, PackedReduction, RANKS};
use super::{KernelChoice, Pool, QuantizedRows, SharedPointer};

use floats::{FloatRows, float_tiles};
use quantized::quantized_tiles;
use reduction::{Reduced, reduce};
use span::Span;

/// Tiles of a base matrix that a thread takes at a time at most when several groups of rows meet them: they fit its cache,
/// and which blocks of a group have a second byte is learnt by the branch predictor once for all of them.
const TILES_OF_MANY_ROWS: usize = 24;

/// One `Bᵀ` with its scale folded in: reads some of the reduced columns, adds to some of the output columns.
pub struct Expansion {
    /// `[outputs, rank]`.
    pub matrix: PackedMatrix,
    /// First reduced column it reads.
    pub reduced_column: usize,
    /// First output column it adds to.
    pub output_column: usize,
}

/// The low-rank deltas of projections that share their input: the `A`s below each other, one expansion for each.
pub struct LowRank {
    /// `[sum of ranks, inputs]`.
    pub reduction: PackedReduction,
    /// Expansions to disjoint output columns, in order.
    pub expansions: Vec<Expansion>,
}

/// Consecutive rows of the batch that one adapter changes.
pub struct RowGroup<'a> {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// What is added to them.
    pub delta: &'a LowRank,
}

/// The rows of a batch, as floats and quantised.
#[derive(Clone, Copy)]
pub struct BatchRows<'a> {
    /// Row-major `[rows, inputs]`.
    floats: &'a [f32],
    quantized: &'a QuantizedRows,
}

impl<'a> BatchRows<'a> {
    /// Row-major `[rows, inputs]` values, and the same rows quantised, which are only read by quantised matrices.
    pub fn new(floats: &'a [f32], quantized: &'a QuantizedRows) -> Self {
        Self { floats, quantized }
    }
}

/// What a projection writes to.
pub struct ProjectionOutput<'a> {
    /// Row-major `[rows, outputs]`.
    values: &'a mut [f32],
    accumulate: bool,
    reduced: &'a mut Vec<f32>,
}

impl<'a> ProjectionOutput<'a> {
    /// Replaces row-major `[rows, outputs]` values; `reduced` is scratch.
    pub fn replacing(values: &'a mut [f32], reduced: &'a mut Vec<f32>) -> Self {
        Self {
            values,
            accumulate: false,
            reduced,
        }
    }

    /// Adds to row-major `[rows, outputs]` values; `reduced` is scratch.
    pub fn adding(values: &'a mut [f32], reduced: &'a mut Vec<f32>) -> Self {
        Self {
            values,
            accumulate: true,
            reduced,
        }
    }
}

/// `values (+)= rows · baseᵀ`, then `values[group] += (rows[group] · Aᵀ) · Bᵀ` for every group.
///
/// # Panics
///
/// If the shapes do not fit, or groups overlap or reach past the batch.
pub fn project(
    pool: &mut Pool,
    kernels: KernelChoice,
    base: &PackedMatrix,
    input: BatchRows<'_>,
    (groups, output): (&[RowGroup<'_>], ProjectionOutput<'_>),
) {
    let rows = input.floats.len() / base.inputs();
    check(base, &input, groups, (rows, output.values.len()));
    let widest = groups.iter().map(|group| group.delta.reduction.units());
    let stride = widest.max().unwrap_or(0) * RANKS;
    output.reduced.resize(rows * stride, 0.0);
    let span = Span {
        pointer: SharedPointer(output.values.as_mut_ptr()),
        stride: base.outputs(),
        accumulate: output.accumulate,
    };
    let pointer = SharedPointer(output.reduced.as_mut_ptr());
    let reduced = Reduced { pointer, stride };

    let tiles = base.tile_count();
    let reductions = groups.iter().map(|group| group.delta.reduction.units());
    let most = match rows > kernels.row_group() {
        true => TILES_OF_MANY_ROWS,
        false => tiles,
    };
    let units = tiles + reductions.sum::<usize>();
    pool.for_each_run(units, most, |start, end| {
        base_tiles(
            kernels,
            base,
            &input,
            start.min(tiles)..end.min(tiles),
            &span,
        );
        let units = start.max(tiles) - tiles..end.max(tiles) - tiles;
        reduce_units(kernels, groups, (input.floats, units), reduced);
    });
    if groups.is_empty() {
        return;
    }

    let reduced = (output.reduced.as_slice(), stride);
    let span = Span {
        accumulate: true,
        ..span
    };
    let units = groups.iter().map(|group| group.delta.expansion_tiles());
    pool.for_each_run(units.sum(), usize::MAX, |start, end| {
        expand_units(kernels, groups, (reduced, start..end), &span);
    });
}

impl LowRank {
    fn expansion_tiles(&self) -> usize {
        let tiles = |one: &Expansion| one.matrix.tile_count();
        self.expansions.iter().map(tiles).sum()
    }
}

/// Reduces with units `units` of all groups' reductions.
fn reduce_units(
    kernels: KernelChoice,
    groups: &[RowGroup<'_>],
    (floats, mut units): (&[f32], Range<usize>),
    reduced: Reduced,
) {
    for (index, RowGroup { rows, delta }) in groups.iter().enumerate() {
        let matrix = &delta.reduction;
        let inputs = matrix.inputs();
        let own = take(&mut units, matrix.units());
        if let (false, Some(next)) = (own.is_empty(), groups.get(index + 1)) {
            next.delta.reduction.prefetch();
        }
        for unit in own {
            let pointer = reduced.pointer.offset(rows.start * reduced.stride);
            let values = &floats[rows.start * inputs..rows.end * inputs];
            let rows = FloatRows::new(values, inputs, rows.len());
            reduce(kernels, matrix, unit, &rows, Reduced { pointer, ..reduced });
        }
    }
}

/// Adds tiles `tiles` of all groups' expansions.
fn expand_units(
    kernels: KernelChoice,
    groups: &[RowGroup<'_>],
    ((reduced, stride), mut tiles): ((&[f32], usize), Range<usize>),
    span: &Span,
) {
    let mut expansions = groups
        .iter()
        .flat_map(|group| {
            group
                .delta
                .expansions
                .iter()
                .map(move |one| (&group.rows, one))
        })
        .peekable();
    while let Some((rows, expansion)) = expansions.next() {
        let matrix = &expansion.matrix;
        let own = take(&mut tiles, matrix.tile_count());
        if own.is_empty() {
            continue;
        }
        if let Some((_, next)) = expansions.peek() {
            next.matrix.prefetch();
        }
        let start = rows.start * stride + expansion.reduced_column;
        let reduced = FloatRows::new(&reduced[start..], stride, rows.len());
        let span = span.from(rows.start, expansion.output_column);
        for_row_groups(kernels, rows.len(), |rows| {
            for run in matrix.runs(own.clone()) {
                let target = span.target(rows.start, &run);
                float_tiles(kernels, &run, (&reduced, rows.clone()), target);
            }
        });
    }
}

/// The part of `range` that lies in `0..count`; what remains of `range` then counts from there.
fn take(range: &mut Range<usize>, count: usize) -> Range<usize> {
    let taken = range.start.min(count)..range.end.min(count);
    *range = range.start.max(count) - count..range.end.max(count) - count;
    taken
}

fn check(
    base: &PackedMatrix,
    input: &BatchRows<'_>,
    groups: &[RowGroup<'_>],
    (rows, output_length): (usize, usize),
) {
    assert!(rows * base.inputs() == input.floats.len() && output_length >= rows * base.outputs());
    if base.is_quantized() {
        let quantized = input.quantized;
        assert!(quantized.rows == rows && quantized.blocks * BLOCK == base.inputs());
    }
    let mut next_row = 0;
    for group in groups {
        assert!(group.rows.start >= next_row && group.rows.end <= rows);
        next_row = group.rows.end;
        assert_eq!(group.delta.reduction.inputs(), base.inputs());
        let mut next_column = 0;
        for expansion in &group.delta.expansions {
            assert!(expansion.output_column >= next_column);
            next_column = expansion.output_column + expansion.matrix.outputs();
            let reduced_end = expansion.reduced_column + expansion.matrix.inputs();
            assert!(reduced_end <= group.delta.reduction.outputs());
        }
        assert!(next_column <= base.outputs());
    }
}

/// Tiles of the base over all rows. A group of rows meets all the tiles before the next, as it fits the nearest cache.
fn base_tiles(
    kernels: KernelChoice,
    base: &PackedMatrix,
    input: &BatchRows<'_>,
    tiles: Range<usize>,
    span: &Span,
) {
    let count = input.floats.len() / base.inputs();
    let floats = FloatRows::new(input.floats, base.inputs(), count);
    if tiles.is_empty() {
        return;
    }
    for_row_groups(kernels, count, |rows| {
        for run in base.runs(tiles.clone()) {
            let target = span.target(rows.start, &run);
            if run.tiles.is_quantized() {
                quantized_tiles(kernels, &run, (input.quantized, rows.clone()), target);
            } else {
                float_tiles(kernels, &run, (&floats, rows.clone()), target);
            }
        }
    });
}

/// Splits rows into groups of 1, 2, 3, 4 or 8, which share their pass over a tile.
fn for_row_groups(kernels: KernelChoice, rows: usize, mut run: impl FnMut(Range<usize>)) {
    let most = kernels.row_group();
    let mut first = 0;
    while first < rows {
        let count = match rows - first {
            8.. => most,
            4..=7 => 4,
            remaining => remaining,
        };
        run(first..first + count);
        first += count;
    }
}
