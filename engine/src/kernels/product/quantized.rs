//! The products of a run of quantised tiles with up to 8 activation rows. Every row's sum is computed by the same
//! operations in the same order however many rows share the pass.

use std::ops::Range;

use super::span::Target;
use crate::kernels::activation::BlockScale;
use crate::kernels::packed::tiles::{AffineTile, Tile, TileQ6K, TileQ8};
use crate::kernels::packed::{BLOCK, TileRun, Tiles};
use crate::kernels::prefetch::prefetch_after;
use crate::kernels::set::{KernelSet, Operation};
use crate::kernels::{KernelChoice, QuantizedRows, Resolution};

/// The products of a run of quantised tiles with rows `group`: 1, 2, 3, 4 or 8.
pub(super) fn quantized_tiles(
    kernels: KernelChoice,
    run: &TileRun<'_>,
    (rows, group): (&QuantizedRows, Range<usize>),
    target: Target<'_>,
) {
    match rows.resolution {
        Resolution::Coarse => of_rows::<false>(kernels, run, (rows, group), target),
        Resolution::Mixed | Resolution::Fine => {
            of_rows::<true>(kernels, run, (rows, group), target)
        }
    }
}

fn of_rows<const FINE: bool>(
    kernels: KernelChoice,
    run: &TileRun<'_>,
    (rows, group): (&QuantizedRows, Range<usize>),
    target: Target<'_>,
) {
    let first = group.start;
    match group.len() {
        8 => of_blocks(kernels, run, RowBlocks::<8, FINE>::new(rows, first), target),
        4 => of_blocks(kernels, run, RowBlocks::<4, FINE>::new(rows, first), target),
        3 => of_blocks(kernels, run, RowBlocks::<3, FINE>::new(rows, first), target),
        2 => of_blocks(kernels, run, RowBlocks::<2, FINE>::new(rows, first), target),
        _ => of_blocks(kernels, run, RowBlocks::<1, FINE>::new(rows, first), target),
    }
}

fn of_blocks<const ROWS: usize, const FINE: bool>(
    kernels: KernelChoice,
    run: &TileRun<'_>,
    rows: RowBlocks<'_, ROWS, FINE>,
    target: Target<'_>,
) {
    fn of_run<'a, T: Tile>(tiles: &'a [T], run: &TileRun<'_>) -> &'a [T] {
        let count = run.inputs / (T::BLOCKS * BLOCK);
        &tiles[run.indices.start * count..run.indices.end * count]
    }
    match run.tiles {
        Tiles::Q4(tiles) => kernels.run(Affine(of_run(tiles, run), rows, target)),
        Tiles::Q5(tiles) => kernels.run(Affine(of_run(tiles, run), rows, target)),
        Tiles::Q4K(tiles) => kernels.run(Affine(of_run(tiles, run), rows, target)),
        Tiles::Q5K(tiles) => kernels.run(Affine(of_run(tiles, run), rows, target)),
        Tiles::Q8(tiles) => kernels.run(Middle8(of_run(tiles, run), rows, target)),
        Tiles::Q6K(tiles) => kernels.run(Middle6(of_run(tiles, run), rows, target)),
        Tiles::F32(_) | Tiles::F16(_) | Tiles::Bf16(_) | Tiles::Bytes(_) => {
            unreachable!("float tiles go through float_tiles")
        }
    }
}

/// The blocks of a group of rows, row after row.
struct RowBlocks<'a, const ROWS: usize, const FINE: bool> {
    /// Blocks in a row.
    blocks: usize,
    scales: &'a [BlockScale],
    coarse: &'a [[i8; BLOCK]],
    /// Empty at coarse resolution.
    fine: &'a [[i8; BLOCK]],
}

impl<'a, const ROWS: usize, const FINE: bool> RowBlocks<'a, ROWS, FINE> {
    fn new(rows: &'a QuantizedRows, first: usize) -> Self {
        let range = first * rows.blocks..(first + ROWS) * rows.blocks;
        Self {
            blocks: rows.blocks,
            scales: &rows.scales[range.clone()],
            coarse: &rows.coarse.as_chunks().0[range.clone()],
            fine: if FINE {
                &rows.fine.as_chunks().0[range]
            } else {
                &[]
            },
        }
    }

    /// Block `block` of row `row`: its first bytes, its second ones where it has them, and its scale.
    ///
    /// # Safety
    ///
    /// `row < ROWS` and `block < blocks`.
    #[inline(always)]
    unsafe fn at(
        &self,
        row: usize,
        block: usize,
    ) -> (&'a [i8; BLOCK], Option<&'a [i8; BLOCK]>, &'a BlockScale) {
        debug_assert!(row < ROWS && block < self.blocks);
        let at = row * self.blocks + block;
        // SAFETY: `new` took `ROWS * blocks` elements of each, of `fine` if FINE is set. Checks here would have the compiler
        // put off all the sums of a block to after the last of them, and spill what they need.
        unsafe {
            let scale = self.scales.get_unchecked(at);
            let fine = if FINE && scale.fine {
                Some(self.fine.get_unchecked(at))
            } else {
                None
            };
            (self.coarse.get_unchecked(at), fine, scale)
        }
    }
}

/// Weights `scale · quant + minimum`: a block adds `scale · unit · Σ quants + minimum · Σ activations`.
struct Affine<'a, T, const ROWS: usize, const FINE: bool>(
    &'a [T],
    RowBlocks<'a, ROWS, FINE>,
    Target<'a>,
);

impl<T: AffineTile, const ROWS: usize, const FINE: bool> Operation for Affine<'_, T, ROWS, FINE> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, target) = self;
        for (number, tiles) in tiles.chunks_exact(rows.blocks / T::BLOCKS).enumerate() {
            let mut totals = [set.splat(0.0); ROWS];
            for (index, tile) in tiles.iter().enumerate() {
                prefetch_after(std::slice::from_ref(tile));
                for block in 0..T::BLOCKS {
                    let (weights, scale, minimum) = tile.block(set, block);
                    for (row, total) in totals.iter_mut().enumerate() {
                        // SAFETY: `chunks_exact` gave no more blocks of weights than a row of activations has.
                        let (coarse, fine, activations) =
                            unsafe { rows.at(row, index * T::BLOCKS + block) };
                        let mut dot = set.dot(&weights, T::BITS, coarse);
                        if let Some(fine) = fine {
                            dot = set.combine(dot, set.dot(&weights, T::BITS, fine));
                        }
                        let scale = set.mul(scale, set.splat(activations.unit));
                        *total = set.fma(set.to_floats(dot), scale, *total);
                        *total = set.fma(minimum, set.splat(activations.sum), *total);
                    }
                }
            }
            target.take(set, number, &totals);
        }
    }
}

/// Weights `scale · (quant - 128)`.
struct Middle8<'a, const ROWS: usize, const FINE: bool>(
    &'a [TileQ8],
    RowBlocks<'a, ROWS, FINE>,
    Target<'a>,
);

impl<const ROWS: usize, const FINE: bool> Operation for Middle8<'_, ROWS, FINE> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, target) = self;
        for (number, tiles) in tiles.chunks_exact(rows.blocks / TileQ8::BLOCKS).enumerate() {
            let mut totals = [set.splat(0.0); ROWS];
            for (block, tile) in tiles.iter().enumerate() {
                prefetch_after(std::slice::from_ref(tile));
                let (weights, scale) = tile.block(set);
                for (row, total) in totals.iter_mut().enumerate() {
                    // SAFETY: `chunks_exact` gave no more blocks of weights than a row of activations has.
                    let (coarse, fine, activations) = unsafe { rows.at(row, block) };
                    let mut dot = set.dot_8(&weights, coarse);
                    if let Some(fine) = fine {
                        dot = set.combine(dot, set.dot_8(&weights, fine));
                    }
                    if S::OFFSET_8 != 0 {
                        let [first, last] = activations.quants;
                        let offset = -S::OFFSET_8 * (first + last);
                        dot = set.add_ints(dot, set.splat_int(offset));
                    }
                    let scale = set.mul(scale, set.splat(activations.unit));
                    *total = set.fma(set.to_floats(dot), scale, *total);
                }
            }
            target.take(set, number, &totals);
        }
    }
}

/// Weights `scale · (quant - 32)` with a scale for each half of a block.
struct Middle6<'a, const ROWS: usize, const FINE: bool>(
    &'a [TileQ6K],
    RowBlocks<'a, ROWS, FINE>,
    Target<'a>,
);

impl<const ROWS: usize, const FINE: bool> Operation for Middle6<'_, ROWS, FINE> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, target) = self;
        for (number, tiles) in tiles
            .chunks_exact(rows.blocks / TileQ6K::BLOCKS)
            .enumerate()
        {
            let mut totals = [set.splat(0.0); ROWS];
            for (index, tile) in tiles.iter().enumerate() {
                prefetch_after(std::slice::from_ref(tile));
                for block in 0..TileQ6K::BLOCKS {
                    let (weights, scales) = tile.block(set, block);
                    for (row, total) in totals.iter_mut().enumerate() {
                        // SAFETY: `chunks_exact` gave no more blocks of weights than a row of activations has.
                        let (coarse, fine, activations) =
                            unsafe { rows.at(row, index * TileQ6K::BLOCKS + block) };
                        let mut dots = set.dot_halves(&weights, coarse);
                        if let Some(fine) = fine {
                            let fine = set.dot_halves(&weights, fine);
                            dots = [set.combine(dots[0], fine[0]), set.combine(dots[1], fine[1])];
                        }
                        let unit = set.splat(activations.unit);
                        for half in 0..2 {
                            let offset = set.splat_int(-32 * activations.quants[half]);
                            let dot = set.to_floats(set.add_ints(dots[half], offset));
                            *total = set.fma(dot, set.mul(scales[half], unit), *total);
                        }
                    }
                }
            }
            target.take(set, number, &totals);
        }
    }
}
