//! Matrix products over a batch of rows: a base matrix over all rows and low-rank deltas over groups of them.
//!
//! Work is shared among the pool's threads by output tiles. Rows of different adapters go through one call, in two
//! rounds whatever their number: first the base product and every `x · Aᵀ`, then every `+= (x · Aᵀ) · Bᵀ`.

use std::ops::Range;

use super::packed::{BLOCK, PackedMatrix, TILE_ROWS};
use super::{KernelChoice, Pool, QuantizedRows, SharedPointer, portable};

/// Tiles of a base matrix that a thread takes at a time.
const BASE_TILES: usize = 4;
/// Tiles of an expansion that a thread takes at a time; they are short.
const EXPANSION_TILES: usize = 24;
/// The largest group of rows that share one pass over a tile.
const ROW_GROUP: usize = 8;

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
    let rows = input.floats.len() / base.inputs;
    check(base, &input, groups, (rows, output.values.len()));
    let widest = groups.iter().map(|group| group.delta.reduction.outputs);
    let reduced_stride = widest.max().unwrap_or(0);
    output.reduced.resize(rows * reduced_stride, 0.0);
    let base_span = Span {
        pointer: SharedPointer(output.values.as_mut_ptr()),
        stride: base.outputs,
        accumulate: output.accumulate,
    };
    let reduced_pointer = SharedPointer(output.reduced.as_mut_ptr());

    let base_units = base.tile_count().div_ceil(BASE_TILES);
    let reductions = units(groups, |delta| delta.reduction.tile_count());
    pool.for_each_chunk(base_units + reductions.len(), 1, |start, end| {
        for unit in start..end {
            if unit < base_units {
                let tiles = unit * BASE_TILES..((unit + 1) * BASE_TILES).min(base.tile_count());
                tiles.for_each(|tile| base_tile(kernels, base, &input, tile, &base_span));
                continue;
            }
            let (group, tile) = reductions[unit - base_units];
            let RowGroup { rows, delta } = &groups[group];
            let span = Span {
                pointer: reduced_pointer.offset(rows.start * reduced_stride),
                stride: reduced_stride,
                accumulate: false,
            };
            let values = &input.floats[rows.start * base.inputs..rows.end * base.inputs];
            let rows = FloatRows::new(values, base.inputs, rows.len());
            float_tile(kernels, &delta.reduction, &rows, tile, &span);
        }
    });
    if groups.is_empty() {
        return;
    }

    let reduced = output.reduced.as_slice();
    let expansions = units(groups, expansion_runs);
    pool.for_each_chunk(expansions.len(), 1, |start, end| {
        for &(group, unit) in &expansions[start..end] {
            expand(
                kernels,
                &groups[group],
                unit,
                (reduced, reduced_stride),
                &base_span,
            );
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
        for tile in unit * EXPANSION_TILES..((unit + 1) * EXPANSION_TILES).min(tiles) {
            float_tile(kernels, &expansion.matrix, &rows, tile, &span);
        }
        return;
    }
}

/// Lists (group, unit) for every unit of work that `count` finds in a group's delta.
fn units(groups: &[RowGroup<'_>], count: fn(&LowRank) -> usize) -> Vec<(usize, usize)> {
    let indexed = groups.iter().enumerate();
    indexed
        .flat_map(|(index, group)| (0..count(group.delta)).map(move |unit| (index, unit)))
        .collect()
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
    assert!(rows * base.inputs == input.floats.len() && output_length >= rows * base.outputs);
    if base.is_quantized() {
        let quantized = input.quantized;
        assert!(quantized.rows == rows && quantized.blocks * BLOCK == base.inputs);
    }
    let mut next_row = 0;
    for group in groups {
        assert!(group.rows.start >= next_row && group.rows.end <= rows);
        next_row = group.rows.end;
        assert_eq!(group.delta.reduction.inputs, base.inputs);
        let mut next_column = 0;
        for expansion in &group.delta.expansions {
            assert!(expansion.output_column >= next_column);
            next_column = expansion.output_column + expansion.matrix.outputs;
            let reduced_end = expansion.reduced_column + expansion.matrix.inputs;
            assert!(reduced_end <= group.delta.reduction.outputs);
        }
        assert!(next_column <= base.outputs);
    }
}

/// Where tile sums go: row `i` of the product starts at `i * stride`.
struct Span {
    pointer: SharedPointer,
    stride: usize,
    accumulate: bool,
}

/// Float rows, possibly a range of columns of wider ones.
pub(super) struct FloatRows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a> FloatRows<'a> {
    fn new(values: &'a [f32], stride: usize, count: usize) -> Self {
        Self {
            values,
            stride,
            count,
        }
    }
}

fn base_tile(
    kernels: KernelChoice,
    base: &PackedMatrix,
    input: &BatchRows<'_>,
    tile: usize,
    span: &Span,
) {
    if base.is_quantized() {
        quantized_tile(kernels, base, input.quantized, tile, span);
    } else {
        let count = input.floats.len() / base.inputs;
        let rows = FloatRows::new(input.floats, base.inputs, count);
        float_tile(kernels, base, &rows, tile, span);
    }
}

fn quantized_tile(
    kernels: KernelChoice,
    matrix: &PackedMatrix,
    rows: &QuantizedRows,
    tile: usize,
    span: &Span,
) {
    for_row_groups(rows.rows, |first, sums| {
        match kernels {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
            KernelChoice::Avx512Vnni => unsafe {
                super::avx512::quantized_tile(matrix, tile, rows, first, sums);
            },
            #[cfg(not(target_arch = "x86_64"))]
            KernelChoice::Avx512Vnni => portable::quantized_tile(matrix, tile, rows, first, sums),
            KernelChoice::Portable => portable::quantized_tile(matrix, tile, rows, first, sums),
        }
        store(matrix, tile, first, sums, span);
    });
}

fn float_tile(
    kernels: KernelChoice,
    matrix: &PackedMatrix,
    rows: &FloatRows<'_>,
    tile: usize,
    span: &Span,
) {
    for_row_groups(rows.count, |first, sums| {
        match kernels {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
            KernelChoice::Avx512Vnni => unsafe {
                super::avx512::float_tile(matrix, tile, rows, first, sums);
            },
            #[cfg(not(target_arch = "x86_64"))]
            KernelChoice::Avx512Vnni => portable::float_tile(matrix, tile, rows, first, sums),
            KernelChoice::Portable => portable::float_tile(matrix, tile, rows, first, sums),
        }
        store(matrix, tile, first, sums, span);
    });
}

fn for_row_groups(rows: usize, mut run: impl FnMut(usize, &mut [[f32; TILE_ROWS]])) {
    let mut first = 0;
    while first < rows {
        let count = match rows - first {
            8.. => ROW_GROUP,
            4..=7 => 4,
            remaining => remaining,
        };
        let mut sums = [[0.0f32; TILE_ROWS]; ROW_GROUP];
        run(first, &mut sums[..count]);
        first += count;
    }
}

fn store(matrix: &PackedMatrix, tile: usize, first: usize, sums: &[[f32; TILE_ROWS]], span: &Span) {
    let column = tile * TILE_ROWS;
    let width = TILE_ROWS.min(matrix.outputs - column);
    for (index, sums) in sums.iter().enumerate() {
        let start = span
            .pointer
            .get()
            .wrapping_add((first + index) * span.stride + column);
        // SAFETY: `check` made sure that every row and column lies inside the buffer. In one round, a tile's columns of
        // a row belong to one matrix (groups have disjoint rows, expansions disjoint columns), and one thread has it.
        let out = unsafe { std::slice::from_raw_parts_mut(start, width) };
        if span.accumulate {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out += sum;
            }
        } else {
            out.copy_from_slice(&sums[..width]);
        }
    }
}
