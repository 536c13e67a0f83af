//! Products of rows of floats with tiles of float weights: f32, f16 and bf16 matrices, and an adapter's `Bᵀ`.

use std::ops::Range;

use half::{bf16, f16};

use super::span::Target;
use crate::kernels::KernelChoice;
use crate::kernels::packed::{ByteLine, TILE_ROWS, TileRun, Tiles};
use crate::kernels::prefetch::prefetch_after;
use crate::kernels::set::{KernelSet, Operation};

/// Float rows, possibly a range of columns of wider ones.
pub(super) struct FloatRows<'a> {
    values: &'a [f32],
    stride: usize,
    pub(super) count: usize,
}

impl<'a> FloatRows<'a> {
    /// Row `i` of `count` starts at `i * stride`.
    pub(super) fn new(values: &'a [f32], stride: usize, count: usize) -> Self {
        Self {
            values,
            stride,
            count,
        }
    }

    /// `width` columns of each row from `first` on.
    #[inline(always)]
    pub(super) fn group<const ROWS: usize>(&self, first: usize, width: usize) -> [&'a [f32]; ROWS] {
        std::array::from_fn(|row| {
            let start = (first + row) * self.stride;
            &self.values[start..start + width]
        })
    }
}

/// The products of a run of float tiles with rows `group`: 1, 2, 3, 4 or 8.
pub(super) fn float_tiles(
    kernels: KernelChoice,
    run: &TileRun<'_>,
    (rows, group): (&FloatRows<'_>, Range<usize>),
    target: Target<'_>,
) {
    match group.len() {
        8 => floats::<8>(kernels, run, rows.group(group.start, run.inputs), target),
        4 => floats::<4>(kernels, run, rows.group(group.start, run.inputs), target),
        3 => floats::<3>(kernels, run, rows.group(group.start, run.inputs), target),
        2 => floats::<2>(kernels, run, rows.group(group.start, run.inputs), target),
        _ => floats::<1>(kernels, run, rows.group(group.start, run.inputs), target),
    }
}

fn floats<const ROWS: usize>(
    kernels: KernelChoice,
    run: &TileRun<'_>,
    rows: [&[f32]; ROWS],
    target: Target<'_>,
) {
    fn of_run<'a, L>(lines: &'a [L], run: &TileRun<'_>) -> &'a [L] {
        &lines[run.indices.start * run.inputs..run.indices.end * run.inputs]
    }
    match run.tiles {
        Tiles::F32(all) => kernels.run(Floats(of_run(all.as_chunks().0, run), rows, target)),
        Tiles::F16(all) => kernels.run(Floats(of_run(all.as_chunks().0, run), rows, target)),
        Tiles::Bf16(all) => kernels.run(Floats(of_run(all.as_chunks().0, run), rows, target)),
        Tiles::Bytes(all) => kernels.run(Floats(of_run(all, run), rows, target)),
        _ => unreachable!("quantised tiles go through quantized_tiles"),
    }
}

/// Sixteen weights as they are kept; the product is that of their values as f32.
pub(super) trait FloatLine: Copy {
    fn load<S: KernelSet>(set: S, line: &Self) -> S::Floats;
}

impl FloatLine for [f32; TILE_ROWS] {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, line: &Self) -> S::Floats {
        set.load(line)
    }
}

impl FloatLine for [f16; TILE_ROWS] {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, line: &Self) -> S::Floats {
        set.load_f16(line)
    }
}

impl FloatLine for [bf16; TILE_ROWS] {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, line: &Self) -> S::Floats {
        set.load_bf16(line)
    }
}

impl FloatLine for ByteLine {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, line: &Self) -> S::Floats {
        set.mul(set.load_i8(&line.quants), set.splat(line.scale()))
    }
}

/// Tiles `[tiles][inputs][16]`, the rows they meet and where the products go.
struct Floats<'a, L, const ROWS: usize>(&'a [L], [&'a [f32]; ROWS], Target<'a>);

impl<L: FloatLine, const ROWS: usize> Operation for Floats<'_, L, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, target) = self;
        for (index, weights) in tiles.chunks_exact(rows[0].len()).enumerate() {
            let inputs = weights.len();
            for row in rows {
                assert_eq!(row.len(), inputs);
            }
            // Inputs go to the chains in turn; see `KernelSet::CHAINS`.
            let mut totals = [[set.splat(0.0); ROWS]; 2];
            let mut first = 0;
            while first + 1 < inputs {
                prefetch_after(&weights[first..first + 2]);
                for step in 0..2 {
                    let weights = L::load(set, &weights[first + step]);
                    let totals = &mut totals[step % S::CHAINS];
                    for (total, row) in totals.iter_mut().zip(rows) {
                        *total = set.fma(set.splat(row[first + step]), weights, *total);
                    }
                }
                first += 2;
            }
            let [mut totals, others] = totals;
            if first < inputs {
                let weights = L::load(set, &weights[first]);
                for (total, row) in totals.iter_mut().zip(rows) {
                    *total = set.fma(set.splat(row[first]), weights, *total);
                }
            }
            if S::CHAINS == 2 {
                for (total, other) in totals.iter_mut().zip(others) {
                    *total = set.add(*total, other);
                }
            }
            target.take(set, index, &totals);
        }
    }
}
