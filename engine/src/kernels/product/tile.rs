//! The products of one tile of 16 weight rows with up to 8 activation rows. Every row's sum is computed by the same
//! operations in the same order however many rows share the pass.

use std::ops::Range;

use half::{bf16, f16};

use crate::kernels::activation::BlockScale;
use crate::kernels::packed::tiles::{AffineTile, Tile, TileQ6K, TileQ8};
use crate::kernels::packed::{BLOCK, PlacedTile, TILE_ROWS, Tiles};
use crate::kernels::set::{KernelSet, Operation};
use crate::kernels::{KernelChoice, QuantizedRows, Resolution};

/// The products of 16 weight rows with each row of a group.
pub(super) type Sums = [[f32; TILE_ROWS]; 8];

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
}

/// `sums[i][lane]` = quantised row `group.start + i` times weight row `lane` of the tile; 1, 2, 3, 4 or 8 rows.
pub(super) fn quantized_tile(
    kernels: KernelChoice,
    tile: &PlacedTile<'_>,
    (rows, group): (&QuantizedRows, &Range<usize>),
    sums: &mut Sums,
) {
    match (rows.resolution, group.len()) {
        (Resolution::Coarse, 8) => quantized::<8, false>(kernels, tile, (rows, group), sums),
        (Resolution::Coarse, 4) => quantized::<4, false>(kernels, tile, (rows, group), sums),
        (Resolution::Coarse, 3) => quantized::<3, false>(kernels, tile, (rows, group), sums),
        (Resolution::Coarse, 2) => quantized::<2, false>(kernels, tile, (rows, group), sums),
        (Resolution::Coarse, _) => quantized::<1, false>(kernels, tile, (rows, group), sums),
        (Resolution::Mixed | Resolution::Fine, 8) => {
            quantized::<8, true>(kernels, tile, (rows, group), sums)
        }
        (Resolution::Mixed | Resolution::Fine, 4) => {
            quantized::<4, true>(kernels, tile, (rows, group), sums)
        }
        (Resolution::Mixed | Resolution::Fine, 3) => {
            quantized::<3, true>(kernels, tile, (rows, group), sums)
        }
        (Resolution::Mixed | Resolution::Fine, 2) => {
            quantized::<2, true>(kernels, tile, (rows, group), sums)
        }
        (Resolution::Mixed | Resolution::Fine, _) => {
            quantized::<1, true>(kernels, tile, (rows, group), sums)
        }
    }
}

fn quantized<const ROWS: usize, const FINE: bool>(
    kernels: KernelChoice,
    tile: &PlacedTile<'_>,
    (rows, group): (&QuantizedRows, &Range<usize>),
    sums: &mut Sums,
) {
    fn of_tile<T: Tile>(tiles: &[T], index: usize, blocks: usize) -> &[T] {
        let count = blocks / T::BLOCKS;
        &tiles[index * count..(index + 1) * count]
    }
    let (index, blocks) = (tile.index, rows.blocks);
    let rows = RowBlocks::<ROWS, FINE>::new(rows, group.start);
    let sums = &mut sums.as_chunks_mut::<ROWS>().0[0];
    match tile.tiles {
        Tiles::Q4(tiles) => kernels.run(Affine(of_tile(tiles, index, blocks), rows, sums)),
        Tiles::Q5(tiles) => kernels.run(Affine(of_tile(tiles, index, blocks), rows, sums)),
        Tiles::Q4K(tiles) => kernels.run(Affine(of_tile(tiles, index, blocks), rows, sums)),
        Tiles::Q5K(tiles) => kernels.run(Affine(of_tile(tiles, index, blocks), rows, sums)),
        Tiles::Q8(tiles) => kernels.run(Middle8(of_tile(tiles, index, blocks), rows, sums)),
        Tiles::Q6K(tiles) => kernels.run(Middle6(of_tile(tiles, index, blocks), rows, sums)),
        Tiles::F32(_) | Tiles::F16(_) | Tiles::Bf16(_) => {
            unreachable!("float tiles go through float_tile")
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
}

/// Weights `scale · quant + minimum`: a block adds `scale · unit · Σ quants + minimum · Σ activations`.
struct Affine<'a, T, const ROWS: usize, const FINE: bool>(
    &'a [T],
    RowBlocks<'a, ROWS, FINE>,
    &'a mut [[f32; TILE_ROWS]; ROWS],
);

impl<T: AffineTile, const ROWS: usize, const FINE: bool> Operation for Affine<'_, T, ROWS, FINE> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, sums) = self;
        let mut totals = [set.splat(0.0); ROWS];
        for (index, tile) in tiles.iter().enumerate() {
            for block in 0..T::BLOCKS {
                let (weights, scale, minimum) = tile.block(set, block);
                for (row, total) in totals.iter_mut().enumerate() {
                    let at = row * rows.blocks + index * T::BLOCKS + block;
                    let mut dot = set.dot(&weights, T::BITS, &rows.coarse[at]);
                    let BlockScale {
                        unit, sum, fine, ..
                    } = rows.scales[at];
                    if FINE && fine {
                        dot = set.combine(dot, set.dot(&weights, T::BITS, &rows.fine[at]));
                    }
                    let scale = set.mul(scale, set.splat(unit));
                    *total = set.fma(set.to_floats(dot), scale, *total);
                    *total = set.fma(minimum, set.splat(sum), *total);
                }
            }
        }
        store(set, &totals, sums);
    }
}

/// Weights `scale · (quant - 128)`.
struct Middle8<'a, const ROWS: usize, const FINE: bool>(
    &'a [TileQ8],
    RowBlocks<'a, ROWS, FINE>,
    &'a mut [[f32; TILE_ROWS]; ROWS],
);

impl<const ROWS: usize, const FINE: bool> Operation for Middle8<'_, ROWS, FINE> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, sums) = self;
        let mut totals = [set.splat(0.0); ROWS];
        for (block, tile) in tiles.iter().enumerate() {
            let (weights, scale) = tile.block(set);
            for (row, total) in totals.iter_mut().enumerate() {
                let at = row * rows.blocks + block;
                let mut dot = set.dot_8(&weights, &rows.coarse[at]);
                let BlockScale {
                    unit, quants, fine, ..
                } = rows.scales[at];
                if FINE && fine {
                    dot = set.combine(dot, set.dot_8(&weights, &rows.fine[at]));
                }
                if S::OFFSET_8 != 0 {
                    let offset = -S::OFFSET_8 * (quants[0] + quants[1]);
                    dot = set.add_ints(dot, set.splat_int(offset));
                }
                let scale = set.mul(scale, set.splat(unit));
                *total = set.fma(set.to_floats(dot), scale, *total);
            }
        }
        store(set, &totals, sums);
    }
}

/// Weights `scale · (quant - 32)` with a scale for each half of a block.
struct Middle6<'a, const ROWS: usize, const FINE: bool>(
    &'a [TileQ6K],
    RowBlocks<'a, ROWS, FINE>,
    &'a mut [[f32; TILE_ROWS]; ROWS],
);

impl<const ROWS: usize, const FINE: bool> Operation for Middle6<'_, ROWS, FINE> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(tiles, rows, sums) = self;
        let mut totals = [set.splat(0.0); ROWS];
        for (index, tile) in tiles.iter().enumerate() {
            for block in 0..TileQ6K::BLOCKS {
                let (weights, scales) = tile.block(set, block);
                for (row, total) in totals.iter_mut().enumerate() {
                    let at = row * rows.blocks + index * TileQ6K::BLOCKS + block;
                    let mut dots = set.dot_halves(&weights, &rows.coarse[at]);
                    let BlockScale {
                        unit, quants, fine, ..
                    } = rows.scales[at];
                    if FINE && fine {
                        let fine = set.dot_halves(&weights, &rows.fine[at]);
                        dots = [set.combine(dots[0], fine[0]), set.combine(dots[1], fine[1])];
                    }
                    let unit = set.splat(unit);
                    for half in 0..2 {
                        let offset = set.splat_int(-32 * quants[half]);
                        let dot = set.to_floats(set.add_ints(dots[half], offset));
                        *total = set.fma(dot, set.mul(scales[half], unit), *total);
                    }
                }
            }
        }
        store(set, &totals, sums);
    }
}

/// `sums[i][lane]` = float row `group.start + i` times weight row `lane` of the tile; 1, 2, 3, 4 or 8 rows.
pub(super) fn float_tile(
    kernels: KernelChoice,
    tile: &PlacedTile<'_>,
    (rows, group): (&FloatRows<'_>, &Range<usize>),
    sums: &mut Sums,
) {
    match group.len() {
        8 => floats::<8>(kernels, tile, (rows, group), sums),
        4 => floats::<4>(kernels, tile, (rows, group), sums),
        3 => floats::<3>(kernels, tile, (rows, group), sums),
        2 => floats::<2>(kernels, tile, (rows, group), sums),
        _ => floats::<1>(kernels, tile, (rows, group), sums),
    }
}

fn floats<const ROWS: usize>(
    kernels: KernelChoice,
    tile: &PlacedTile<'_>,
    (rows, group): (&FloatRows<'_>, &Range<usize>),
    sums: &mut Sums,
) {
    fn of_tile<T>(weights: &[T], index: usize, inputs: usize) -> &[[T; TILE_ROWS]] {
        &weights.as_chunks().0[index * inputs..(index + 1) * inputs]
    }
    let (index, inputs) = (tile.index, tile.inputs);
    let values = std::array::from_fn(|row| {
        let start = (group.start + row) * rows.stride;
        &rows.values[start..start + inputs]
    });
    let sums = &mut sums.as_chunks_mut::<ROWS>().0[0];
    match tile.tiles {
        Tiles::F32(all) => kernels.run(Floats(of_tile(all, index, inputs), values, sums)),
        Tiles::F16(all) => kernels.run(Floats(of_tile(all, index, inputs), values, sums)),
        Tiles::Bf16(all) => kernels.run(Floats(of_tile(all, index, inputs), values, sums)),
        _ => unreachable!("quantised tiles go through quantized_tile"),
    }
}

/// A type that float weights are kept in; all are exact in f32.
trait FloatWeight: Sized {
    fn load<S: KernelSet>(set: S, weights: &[Self; TILE_ROWS]) -> S::Floats;
}

impl FloatWeight for f32 {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, weights: &[Self; TILE_ROWS]) -> S::Floats {
        set.load(weights)
    }
}

impl FloatWeight for f16 {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, weights: &[Self; TILE_ROWS]) -> S::Floats {
        set.load_f16(weights)
    }
}

impl FloatWeight for bf16 {
    #[inline(always)]
    fn load<S: KernelSet>(set: S, weights: &[Self; TILE_ROWS]) -> S::Floats {
        set.load_bf16(weights)
    }
}

/// Weights `[inputs][16]` and the rows they meet.
struct Floats<'a, W, const ROWS: usize>(
    &'a [[W; TILE_ROWS]],
    [&'a [f32]; ROWS],
    &'a mut [[f32; TILE_ROWS]; ROWS],
);

impl<W: FloatWeight, const ROWS: usize> Operation for Floats<'_, W, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self(weights, values, sums) = self;
        let inputs = weights.len();
        for values in values {
            assert_eq!(values.len(), inputs);
        }
        // Inputs go to the chains in turn; see `KernelSet::CHAINS`.
        let mut totals = [[set.splat(0.0); ROWS]; 2];
        let mut first = 0;
        while first + 1 < inputs {
            for step in 0..2 {
                let weights = W::load(set, &weights[first + step]);
                let totals = &mut totals[step % S::CHAINS];
                for (total, values) in totals.iter_mut().zip(&values) {
                    *total = set.fma(set.splat(values[first + step]), weights, *total);
                }
            }
            first += 2;
        }
        let [mut totals, others] = totals;
        if first < inputs {
            let weights = W::load(set, &weights[first]);
            for (total, values) in totals.iter_mut().zip(&values) {
                *total = set.fma(set.splat(values[first]), weights, *total);
            }
        }
        if S::CHAINS == 2 {
            for (total, other) in totals.iter_mut().zip(others) {
                *total = set.add(*total, other);
            }
        }
        store(set, &totals, sums);
    }
}

#[inline(always)]
fn store<S: KernelSet, const ROWS: usize>(
    set: S,
    totals: &[S::Floats; ROWS],
    sums: &mut [[f32; TILE_ROWS]; ROWS],
) {
    for (total, sums) in totals.iter().zip(sums) {
        set.store(*total, sums);
    }
}
