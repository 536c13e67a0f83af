//! Matrix products over a batch of rows: a base matrix over all rows and low-rank deltas over groups of them.
//!
//! Work is shared among the pool's threads by output tiles. Rows of different adapters go through one call, in two
//! rounds whatever their number: first the base product and every `x · Aᵀ`, then every `+= (x · Aᵀ) · Bᵀ`.

mod tile;

use std::ops::Range;

use super::packed::{BLOCK, PackedMatrix, TILE_ROWS};
use super::{KernelChoice, Pool, QuantizedRows, SharedPointer};

use tile::{FloatRows, Sums, float_tile, quantized_tile};

/// Tiles of a base matrix that a thread takes at a time when there are few rows.
const BASE_TILES: usize = 4;
/// The same when there are many: a group of rows then meets more tiles, and which of its blocks have a second byte is
/// learnt by the branch predictor once for all of them.
const BASE_TILES_OF_MANY_ROWS: usize = 24;
/// More rows are many.
const FEW_ROWS: usize = 16;
/// Tiles of an expansion that a thread takes at a time; they are short.
const EXPANSION_TILES: usize = 24;

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
    pub reduction: PackedMatrix,
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
    let widest = groups.iter().map(|group| group.delta.reduction.outputs());
    let reduced_stride = widest.max().unwrap_or(0);
    output.reduced.resize(rows * reduced_stride, 0.0);
    let base_span = Span {
        pointer: SharedPointer(output.values.as_mut_ptr()),
        stride: base.outputs(),
        accumulate: output.accumulate,
    };
    let reduced_pointer = SharedPointer(output.reduced.as_mut_ptr());

    let base_unit = match rows {
        0..=FEW_ROWS => BASE_TILES,
        _ => BASE_TILES_OF_MANY_ROWS.min(base.tile_count().div_ceil(2 * pool.threads())),
    };
    let base_units = base.tile_count().div_ceil(base_unit);
    let reductions = count_units(groups, reduction_tiles);
    pool.for_each_chunk(base_units + reductions, 1, |start, end| {
        for unit in start..end {
            if unit < base_units {
                let tiles = unit * base_unit..((unit + 1) * base_unit).min(base.tile_count());
                base_tiles(kernels, base, &input, tiles, &base_span);
                continue;
            }
            let (group, tile) = find_unit(groups, unit - base_units, reduction_tiles);
            let RowGroup { rows, delta } = group;
            let span = Span {
                pointer: reduced_pointer.offset(rows.start * reduced_stride),
                stride: reduced_stride,
                accumulate: false,
            };
            let inputs = base.inputs();
            let values = &input.floats[rows.start * inputs..rows.end * inputs];
            let rows = FloatRows::new(values, inputs, rows.len());
            float_tiles(kernels, &delta.reduction, &rows, tile..tile + 1, &span);
        }
    });
    if groups.is_empty() {
        return;
    }

    let reduced = output.reduced.as_slice();
    let expansions = count_units(groups, expansion_runs);
    pool.for_each_chunk(expansions, 1, |start, end| {
        for unit in start..end {
            let (group, unit) = find_unit(groups, unit, expansion_runs);
            expand(kernels, group, unit, (reduced, reduced_stride), &base_span);
        }
    });
}

/// Runs the `unit`-th run of tiles of a group's expansions.
fn expand(
    kernels: KernelChoice,
    group: &RowGroup<'_>,
    mut unit: usize,
    (reduced, stride): (&[f32], usize),
    output: &Span,
) {
    for expansion in &group.delta.expansions {
        let tiles = expansion.matrix.tile_count();
        let runs = tiles.div_ceil(EXPANSION_TILES);
        if unit >= runs {
            unit -= runs;
            continue;
        }
        let start = group.rows.start * stride + expansion.reduced_column;
        let rows = FloatRows::new(&reduced[start..], stride, group.rows.len());
        let span = Span {
            pointer: output
                .pointer
                .offset(group.rows.start * output.stride + expansion.output_column),
            stride: output.stride,
            accumulate: true,
        };
        let tiles = unit * EXPANSION_TILES..((unit + 1) * EXPANSION_TILES).min(tiles);
        return float_tiles(kernels, &expansion.matrix, &rows, tiles, &span);
    }
}

/// Units of work in all groups, where `count` says how many a delta has.
fn count_units(groups: &[RowGroup<'_>], count: fn(&LowRank) -> usize) -> usize {
    groups.iter().map(|group| count(group.delta)).sum()
}

/// The group that unit `unit` of all belongs to, and its number in that group.
fn find_unit<'a, 'g>(
    groups: &'a [RowGroup<'g>],
    mut unit: usize,
    count: fn(&LowRank) -> usize,
) -> (&'a RowGroup<'g>, usize) {
    for group in groups {
        let units = count(group.delta);
        if unit < units {
            return (group, unit);
        }
        unit -= units;
    }
    unreachable!("units are numbered below their count")
}

fn reduction_tiles(delta: &LowRank) -> usize {
    delta.reduction.tile_count()
}

/// Runs of tiles in all expansions of a delta.
fn expansion_runs(delta: &LowRank) -> usize {
    let runs = |one: &Expansion| one.matrix.tile_count().div_ceil(EXPANSION_TILES);
    delta.expansions.iter().map(runs).sum()
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

/// Where tile sums go: row `i` of the product starts at `i * stride`.
struct Span {
    pointer: SharedPointer,
    stride: usize,
    accumulate: bool,
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
    for_row_groups(kernels, count, |rows, sums| {
        for tile in tiles.clone() {
            let tile = base.tile(tile);
            if tile.tiles.is_quantized() {
                quantized_tile(kernels, &tile, (input.quantized, &rows), sums);
            } else {
                float_tile(kernels, &tile, (&floats, &rows), sums);
            }
            span.take(
                rows.start,
                &sums[..rows.len()],
                (tile.first_output, tile.outputs),
            );
        }
    });
}

/// Tiles of a float matrix over all `rows`.
fn float_tiles(
    kernels: KernelChoice,
    matrix: &PackedMatrix,
    rows: &FloatRows<'_>,
    tiles: Range<usize>,
    span: &Span,
) {
    for_row_groups(kernels, rows.count, |group, sums| {
        for tile in tiles.clone() {
            let tile = matrix.tile(tile);
            float_tile(kernels, &tile, (rows, &group), sums);
            span.take(
                group.start,
                &sums[..group.len()],
                (tile.first_output, tile.outputs),
            );
        }
    });
}

/// Splits rows into groups of 1, 2, 3, 4 or 8, which share their pass over a tile.
fn for_row_groups(
    kernels: KernelChoice,
    rows: usize,
    mut run: impl FnMut(Range<usize>, &mut Sums),
) {
    let most = kernels.row_group();
    let mut sums = Sums::default();
    let mut first = 0;
    while first < rows {
        let count = match rows - first {
            8.. => most,
            4..=7 => 4,
            remaining => remaining,
        };
        run(first..first + count, &mut sums);
        first += count;
    }
}

impl Span {
    /// Writes or adds the sums of a tile, for consecutive rows from `first` on.
    fn take(
        &self,
        first: usize,
        sums: &[[f32; TILE_ROWS]],
        (first_output, outputs): (usize, usize),
    ) {
        for (index, sums) in sums.iter().enumerate() {
            let start =
                (self.pointer.get()).wrapping_add((first + index) * self.stride + first_output);
            // SAFETY: `check` made sure that every row and column lies inside the buffer. In one round, a tile's columns
            // of a row belong to one matrix (groups have disjoint rows, expansions disjoint columns), and one thread has
            // it.
            let out = unsafe { std::slice::from_raw_parts_mut(start, outputs) };
            if self.accumulate {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            } else {
                out.copy_from_slice(&sums[..outputs]);
            }
        }
    }
}
