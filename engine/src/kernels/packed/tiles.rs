//! How tiles of quantised weights are laid out in memory, and reading single values back. Where the values come from
//! stands in `stored.rs`.
//!
//! A tile has 16 rows. Its inputs go in blocks of 32, and a block in eight parts of four inputs: byte `lane · 4 + j` of a
//! part is input `4 · part + j` of row `lane`, so that 32-bit lanes hold what is multiplied and added together. Parts 0–3
//! are kept in the low halves of 4 × 64 bytes, parts 4–7 in the high halves.

use half::f16;

use super::{BLOCK, TILE_ROWS};
use crate::kernels::set::KernelSet;

/// Blocks of a super-block, the unit of the K formats.
pub(in crate::kernels) const SUPER_BLOCKS: usize = 8;

/// 16 rows × 32 inputs of unsigned 4-bit values: value = `scale · quant + minimum`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels) struct TileQ4 {
    pub(super) quants: [u8; 256],
    pub(super) scales: [f16; TILE_ROWS],
    pub(super) minimums: [f16; TILE_ROWS],
}

/// The same with 5-bit values: bit `part` of a byte of `high` is the fifth bit of that part's value.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels) struct TileQ5 {
    pub(super) quants: [u8; 256],
    pub(super) high: [u8; 64],
    pub(super) scales: [f16; TILE_ROWS],
    pub(super) minimums: [f16; TILE_ROWS],
}

/// 16 rows × 32 inputs of 8-bit values: value = `scale · (quant - 128)`; each part has 64 bytes of its own.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(in crate::kernels) struct TileQ8 {
    pub(super) quants: [u8; 512],
    pub(super) scales: [f16; TILE_ROWS],
}

/// 16 rows × 256 inputs of 4-bit values: value = `d · scale · quant + m · minimum` with a scale and a minimum for each
/// block of 32 and `d` and `m` for all.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels) struct TileQ4K {
    pub(super) quants: [[u8; 256]; SUPER_BLOCKS],
    pub(super) affine: AffineK,
}

/// The same with 5-bit values.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels) struct TileQ5K {
    pub(super) quants: [[u8; 256]; SUPER_BLOCKS],
    pub(super) high: [[u8; 64]; SUPER_BLOCKS],
    pub(super) affine: AffineK,
}

/// Scales and minimums of Q4_K and Q5_K.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::kernels) struct AffineK {
    pub(super) scales: [[u8; TILE_ROWS]; SUPER_BLOCKS],
    pub(super) minimums: [[u8; TILE_ROWS]; SUPER_BLOCKS],
    pub(super) scale: [f16; TILE_ROWS],
    /// What the format subtracts, with its sign turned.
    pub(super) minimum: [f16; TILE_ROWS],
}

/// 16 rows × 256 inputs of 6-bit values: value = `d · scale · (quant - 32)` with a scale for each 16 inputs.
///
/// Bits `2 · (part % 4)` and the next of a byte of half `part / 4` of `high` are the fifth and sixth bit.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(in crate::kernels) struct TileQ6K {
    pub(super) quants: [[u8; 256]; SUPER_BLOCKS],
    pub(super) high: [[u8; 128]; SUPER_BLOCKS],
    /// Two for each block.
    pub(super) scales: [[[i8; TILE_ROWS]; 2]; SUPER_BLOCKS],
    pub(super) scale: [f16; TILE_ROWS],
}

/// A tile of a quantised format.
pub(in crate::kernels) trait Tile: Copy + Send + Sync {
    /// Blocks of 32 inputs in it.
    const BLOCKS: usize;
    /// A tile of zeros.
    const EMPTY: Self;

    /// The value of row `lane` at `input`.
    fn value(&self, lane: usize, input: usize) -> f32;
}

/// Tiles whose values are `scale · quant + minimum` within a block.
pub(in crate::kernels) trait AffineTile: Tile {
    /// Bits of a quant.
    const BITS: u32;

    /// Quants, scales and minimums of one block.
    fn block<S: KernelSet>(&self, set: S, block: usize) -> (S::Weights, S::Floats, S::Floats);
}

impl Tile for TileQ4 {
    const BLOCKS: usize = 1;
    const EMPTY: Self = Self {
        quants: [0; 256],
        scales: [f16::ZERO; TILE_ROWS],
        minimums: [f16::ZERO; TILE_ROWS],
    };

    fn value(&self, lane: usize, input: usize) -> f32 {
        let quant = f32::from(low_bits(&self.quants, lane, input));
        self.scales[lane].to_f32() * quant + self.minimums[lane].to_f32()
    }
}

impl AffineTile for TileQ4 {
    const BITS: u32 = 4;

    #[inline(always)]
    fn block<S: KernelSet>(&self, set: S, _: usize) -> (S::Weights, S::Floats, S::Floats) {
        let (scales, minimums) = (set.load_f16(&self.scales), set.load_f16(&self.minimums));
        (set.unpack_4(&self.quants), scales, minimums)
    }
}

impl Tile for TileQ5 {
    const BLOCKS: usize = 1;
    const EMPTY: Self = Self {
        quants: [0; 256],
        high: [0; 64],
        scales: [f16::ZERO; TILE_ROWS],
        minimums: [f16::ZERO; TILE_ROWS],
    };

    fn value(&self, lane: usize, input: usize) -> f32 {
        let low = low_bits(&self.quants, lane, input);
        let quant = f32::from(low | fifth_bit(&self.high, lane, input));
        self.scales[lane].to_f32() * quant + self.minimums[lane].to_f32()
    }
}

impl AffineTile for TileQ5 {
    const BITS: u32 = 5;

    #[inline(always)]
    fn block<S: KernelSet>(&self, set: S, _: usize) -> (S::Weights, S::Floats, S::Floats) {
        let (scales, minimums) = (set.load_f16(&self.scales), set.load_f16(&self.minimums));
        (set.unpack_5(&self.quants, &self.high), scales, minimums)
    }
}

impl Tile for TileQ8 {
    const BLOCKS: usize = 1;
    const EMPTY: Self = Self {
        quants: [128; 512],
        scales: [f16::ZERO; TILE_ROWS],
    };

    fn value(&self, lane: usize, input: usize) -> f32 {
        let quant = i32::from(self.quants[(input / 4 * TILE_ROWS + lane) * 4 + input % 4]) - 128;
        self.scales[lane].to_f32() * quant as f32
    }
}

impl TileQ8 {
    /// Quants and scales.
    #[inline(always)]
    pub(in crate::kernels) fn block<S: KernelSet>(&self, set: S) -> (S::Weights, S::Floats) {
        (set.unpack_8(&self.quants), set.load_f16(&self.scales))
    }
}

impl AffineK {
    const EMPTY: Self = Self {
        scales: [[0; TILE_ROWS]; SUPER_BLOCKS],
        minimums: [[0; TILE_ROWS]; SUPER_BLOCKS],
        scale: [f16::ZERO; TILE_ROWS],
        minimum: [f16::ZERO; TILE_ROWS],
    };

    #[inline(always)]
    fn block<S: KernelSet>(&self, set: S, block: usize) -> (S::Floats, S::Floats) {
        let scales = set.load_u8(&self.scales[block]);
        let minimums = set.load_u8(&self.minimums[block]);
        (
            set.mul(set.load_f16(&self.scale), scales),
            set.mul(set.load_f16(&self.minimum), minimums),
        )
    }

    fn value(&self, lane: usize, input: usize, quant: u8) -> f32 {
        let block = input / BLOCK;
        let scale = self.scale[lane].to_f32() * f32::from(self.scales[block][lane]);
        let minimum = self.minimum[lane].to_f32() * f32::from(self.minimums[block][lane]);
        scale * f32::from(quant) + minimum
    }
}

impl Tile for TileQ4K {
    const BLOCKS: usize = SUPER_BLOCKS;
    const EMPTY: Self = Self {
        quants: [[0; 256]; SUPER_BLOCKS],
        affine: AffineK::EMPTY,
    };

    fn value(&self, lane: usize, input: usize) -> f32 {
        let quant = low_bits(&self.quants[input / BLOCK], lane, input % BLOCK);
        self.affine.value(lane, input, quant)
    }
}

impl AffineTile for TileQ4K {
    const BITS: u32 = 4;

    #[inline(always)]
    fn block<S: KernelSet>(&self, set: S, block: usize) -> (S::Weights, S::Floats, S::Floats) {
        let (scales, minimums) = self.affine.block(set, block);
        (set.unpack_4(&self.quants[block]), scales, minimums)
    }
}

impl Tile for TileQ5K {
    const BLOCKS: usize = SUPER_BLOCKS;
    const EMPTY: Self = Self {
        quants: [[0; 256]; SUPER_BLOCKS],
        high: [[0; 64]; SUPER_BLOCKS],
        affine: AffineK::EMPTY,
    };

    fn value(&self, lane: usize, input: usize) -> f32 {
        let (block, within) = (input / BLOCK, input % BLOCK);
        let low = low_bits(&self.quants[block], lane, within);
        let quant = low | fifth_bit(&self.high[block], lane, within);
        self.affine.value(lane, input, quant)
    }
}

impl AffineTile for TileQ5K {
    const BITS: u32 = 5;

    #[inline(always)]
    fn block<S: KernelSet>(&self, set: S, block: usize) -> (S::Weights, S::Floats, S::Floats) {
        let (scales, minimums) = self.affine.block(set, block);
        let weights = set.unpack_5(&self.quants[block], &self.high[block]);
        (weights, scales, minimums)
    }
}

impl Tile for TileQ6K {
    const BLOCKS: usize = SUPER_BLOCKS;
    const EMPTY: Self = Self {
        quants: [[0; 256]; SUPER_BLOCKS],
        high: [[0; 128]; SUPER_BLOCKS],
        scales: [[[0; TILE_ROWS]; 2]; SUPER_BLOCKS],
        scale: [f16::ZERO; TILE_ROWS],
    };

    fn value(&self, lane: usize, input: usize) -> f32 {
        let (block, within) = (input / BLOCK, input % BLOCK);
        let part = within / 4;
        let byte = self.high[block][part / 4 * 64 + lane * 4 + within % 4];
        let high = (byte >> (part % 4 * 2)) & 3;
        let quant = low_bits(&self.quants[block], lane, within) | high << 4;
        let scale = self.scale[lane].to_f32() * f32::from(self.scales[block][within / 16][lane]);
        scale * (i32::from(quant) - 32) as f32
    }
}

impl TileQ6K {
    /// Quants of one block, and the scales of its halves.
    #[inline(always)]
    pub(in crate::kernels) fn block<S: KernelSet>(
        &self,
        set: S,
        block: usize,
    ) -> (S::Weights, [S::Floats; 2]) {
        let scale = set.load_f16(&self.scale);
        let [first, last] = &self.scales[block];
        let weights = set.unpack_6(&self.quants[block], &self.high[block]);
        let scales = [
            set.mul(scale, set.load_i8(first)),
            set.mul(scale, set.load_i8(last)),
        ];
        (weights, scales)
    }
}

/// The low four bits of input `input` of a block.
fn low_bits(quants: &[u8; 256], lane: usize, input: usize) -> u8 {
    let part = input / 4;
    let byte = quants[part % 4 * 64 + lane * 4 + input % 4];
    if part < 4 { byte & 15 } else { byte >> 4 }
}

/// The fifth bit of input `input` of a block, in its place.
fn fifth_bit(high: &[u8; 64], lane: usize, input: usize) -> u8 {
    ((high[lane * 4 + input % 4] >> (input / 4)) & 1) << 4
}
