//! From the bytes of GGML's quantised formats to tiles. The layouts of the stored blocks are GGML's (`ggml-common.h`).

use candle_core::quantized::GgmlDType;
use half::{bf16, f16};

use crate::kernels::arena::Arena;

use super::tiles::{AffineK, Tile, TileQ4, TileQ4K, TileQ5, TileQ5K, TileQ6K, TileQ8};
use super::{BLOCK, TILE_ROWS, Tiles};

/// Packs stored rows of one type into `arena`; `None` for types without tiles of their own.
pub(super) fn pack_rows(
    dtype: GgmlDType,
    rows: &[&[u8]],
    inputs: usize,
    arena: &Arena,
) -> Option<Tiles> {
    let blocks = inputs / BLOCK;
    Some(match dtype {
        GgmlDType::Q4_0 | GgmlDType::Q4_1 => {
            let has_minimum = dtype == GgmlDType::Q4_1;
            Tiles::Q4(arena.keep(pack(rows, blocks, |tile, lane, stored| {
                store_q4(tile, lane, stored, has_minimum);
            })))
        }
        GgmlDType::Q5_0 | GgmlDType::Q5_1 => {
            let has_minimum = dtype == GgmlDType::Q5_1;
            Tiles::Q5(arena.keep(pack(rows, blocks, |tile, lane, stored| {
                store_q5(tile, lane, stored, has_minimum);
            })))
        }
        GgmlDType::Q8_0 => Tiles::Q8(arena.keep(pack_q8(rows, inputs))),
        GgmlDType::Q4K => Tiles::Q4K(arena.keep(pack(rows, blocks, store_q4k))),
        GgmlDType::Q5K => Tiles::Q5K(arena.keep(pack(rows, blocks, store_q5k))),
        GgmlDType::Q6K => Tiles::Q6K(arena.keep(pack(rows, blocks, store_q6k))),
        GgmlDType::F16 => Tiles::F16(arena.keep(interleave(chunked(rows), f16::from_le_bytes))),
        GgmlDType::BF16 => Tiles::Bf16(arena.keep(interleave(chunked(rows), bf16::from_le_bytes))),
        GgmlDType::F32 => Tiles::F32(arena.keep(interleave(chunked(rows), f32::from_le_bytes))),
        _ => return None,
    })
}

/// Packs rows stored in Q8_0.
pub(super) fn pack_q8(rows: &[&[u8]], inputs: usize) -> Vec<TileQ8> {
    pack(rows, inputs / BLOCK, store_q8)
}

/// A row in Q8_0: for every 32 values a scale, of which the largest magnitude is 127, and a byte each.
pub(super) fn q8_row(values: impl Iterator<Item = f32>) -> Vec<u8> {
    let values: Vec<f32> = values.collect();
    let mut stored = Vec::with_capacity(values.len() / BLOCK * (2 + BLOCK));
    for block in values.as_chunks::<BLOCK>().0 {
        let largest = block.iter().fold(0f32, |most, value| most.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        stored.extend(f16::from_f32(scale).to_le_bytes());
        let quant = |value: &f32| (value * inverse).round_ties_even() as i8 as u8;
        stored.extend(block.iter().map(quant));
    }
    stored
}

/// Rows of bytes as rows of values of `BYTES` bytes.
fn chunked<'a, const BYTES: usize>(
    rows: &[&'a [u8]],
) -> impl ExactSizeIterator<Item = &'a [[u8; BYTES]]> {
    rows.iter().map(|row| row.as_chunks::<BYTES>().0)
}

/// Rows to `[rows / 16][inputs][16]`, zero rows at the end.
pub(super) fn interleave<'a, V: Copy + 'a, T: Copy + Default>(
    rows: impl ExactSizeIterator<Item = &'a [V]>,
    convert: impl Fn(V) -> T,
) -> Vec<T> {
    let mut tiles = Vec::new();
    let groups = rows.len().div_ceil(TILE_ROWS);
    for (row, values) in rows.enumerate() {
        if row == 0 {
            tiles.resize(groups * TILE_ROWS * values.len(), T::default());
        }
        let base = row / TILE_ROWS * values.len() * TILE_ROWS + row % TILE_ROWS;
        for (input, value) in values.iter().enumerate() {
            tiles[base + input * TILE_ROWS] = convert(*value);
        }
    }
    tiles
}

/// Tiles of rows of `blocks` blocks of 32 inputs; `store(tile, lane, stored bytes)` fills one row of one tile.
fn pack<T: Tile>(rows: &[&[u8]], blocks: usize, store: impl Fn(&mut T, usize, &[u8])) -> Vec<T> {
    let tiles_in_row = blocks / T::BLOCKS;
    let mut tiles = vec![T::EMPTY; rows.len().div_ceil(TILE_ROWS) * tiles_in_row];
    for (row, bytes) in rows.iter().enumerate() {
        let first = row / TILE_ROWS * tiles_in_row;
        let stored = bytes.chunks_exact(bytes.len() / tiles_in_row);
        for (tile, stored) in tiles[first..first + tiles_in_row].iter_mut().zip(stored) {
            store(tile, row % TILE_ROWS, stored);
        }
    }
    tiles
}

fn half_at(bytes: &[u8], offset: usize) -> f16 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// The minimum of a format with one, or `offset · scale` of one that has a middle instead; the product is exact.
fn minimum_of(stored: &[u8], has_minimum: bool, offset: f32) -> f16 {
    if has_minimum {
        half_at(stored, 2)
    } else {
        f16::from_f32(offset * half_at(stored, 0).to_f32())
    }
}

/// `d, [m,] 16 bytes`: byte `i` has input `i` in its low and input `16 + i` in its high half, as the tile does.
fn store_q4(tile: &mut TileQ4, lane: usize, stored: &[u8], has_minimum: bool) {
    tile.scales[lane] = half_at(stored, 0);
    tile.minimums[lane] = minimum_of(stored, has_minimum, -8.0);
    store_nibbles(&mut tile.quants, lane, &stored[stored.len() - 16..]);
}

/// `d, [m,] 4 bytes with the fifth bits, 16 bytes` as above.
fn store_q5(tile: &mut TileQ5, lane: usize, stored: &[u8], has_minimum: bool) {
    tile.scales[lane] = half_at(stored, 0);
    tile.minimums[lane] = minimum_of(stored, has_minimum, -16.0);
    let (fifth, nibbles) = stored[stored.len() - 20..].split_at(4);
    store_nibbles(&mut tile.quants, lane, nibbles);
    let fifth = |input: usize| (fifth[input / 8] >> (input % 8)) & 1;
    store_fifth(&mut tile.high, lane, fifth);
}

/// `d, 32 bytes`, signed.
fn store_q8(tile: &mut TileQ8, lane: usize, stored: &[u8]) {
    tile.scales[lane] = half_at(stored, 0);
    for (part, quants) in stored[2..].as_chunks::<4>().0.iter().enumerate() {
        let start = (part * TILE_ROWS + lane) * 4;
        tile.quants[start..start + 4].copy_from_slice(&quants.map(|quant| quant ^ 0x80));
    }
}

/// `d, dmin, 12 bytes of scales and minimums, 128 bytes`: of each 32 bytes, the low halves are one block of 32 inputs and
/// the high halves the next.
fn store_q4k(tile: &mut TileQ4K, lane: usize, stored: &[u8]) {
    store_affine(&mut tile.affine, lane, stored);
    for (block, quants) in tile.quants.iter_mut().enumerate() {
        let values = block_of_nibbles(&stored[16..], block);
        store_values(quants, lane, &values);
    }
}

/// `d, dmin, 12 bytes of scales and minimums, 32 bytes, 128 bytes`: bit `block` of byte `i` of the 32 is the fifth bit of
/// input `i` of that block.
fn store_q5k(tile: &mut TileQ5K, lane: usize, stored: &[u8]) {
    store_affine(&mut tile.affine, lane, stored);
    for block in 0..tile.quants.len() {
        let values = block_of_nibbles(&stored[48..], block);
        store_values(&mut tile.quants[block], lane, &values);
        let fifth = |input: usize| (stored[16 + input] >> block) & 1;
        store_fifth(&mut tile.high[block], lane, fifth);
    }
}

/// `128 bytes of low bits, 64 bytes of high bits, 16 signed scales, d`, in two halves of 128 inputs. In a half, blocks 0 and
/// 1 take the low, blocks 2 and 3 the high halves of its 2 × 32 bytes of low bits, and block `b` bits `2 b` and the next of
/// its 32 bytes of high bits.
fn store_q6k(tile: &mut TileQ6K, lane: usize, stored: &[u8]) {
    tile.scale[lane] = half_at(stored, 208);
    for block in 0..tile.quants.len() {
        let (half, within) = (block / 4, block % 4);
        let low = &stored[half * 64 + within % 2 * 32..][..32];
        let high = &stored[128 + half * 32..][..32];
        let values = std::array::from_fn(|input| (low[input] >> (within / 2 * 4)) & 15);
        store_values(&mut tile.quants[block], lane, &values);
        for (input, high) in high.iter().enumerate() {
            let part = input / 4;
            let bits = (high >> (within * 2)) & 3;
            tile.high[block][part / 4 * 64 + lane * 4 + input % 4] |= bits << (part % 4 * 2);
        }
        for part in 0..2 {
            tile.scales[block][part][lane] = stored[192 + block * 2 + part] as i8;
        }
    }
}

/// `d, dmin` and eight pairs of 6 bits in 12 bytes: of the first four pairs the low six bits of bytes `i` and `4 + i`, of the
/// others the halves of byte `8 + i` with the two bits that the first left over.
fn store_affine(affine: &mut AffineK, lane: usize, stored: &[u8]) {
    affine.scale[lane] = half_at(stored, 0);
    affine.minimum[lane] = -half_at(stored, 2);
    let packed = &stored[4..16];
    for block in 0..4 {
        let (scale, minimum, rest) = (packed[block], packed[4 + block], packed[8 + block]);
        affine.scales[block][lane] = scale & 63;
        affine.minimums[block][lane] = minimum & 63;
        affine.scales[4 + block][lane] = rest & 15 | scale >> 6 << 4;
        affine.minimums[4 + block][lane] = rest >> 4 | minimum >> 6 << 4;
    }
}

/// The 32 4-bit values of a block of Q4_K or Q5_K.
fn block_of_nibbles(stored: &[u8], block: usize) -> [u8; BLOCK] {
    std::array::from_fn(|input| (stored[block / 2 * 32 + input] >> (block % 2 * 4)) & 15)
}

fn store_values(quants: &mut [u8; 256], lane: usize, values: &[u8; BLOCK]) {
    let nibbles: [u8; 16] = std::array::from_fn(|input| values[input] | values[16 + input] << 4);
    store_nibbles(quants, lane, &nibbles);
}

/// Byte `i` has input `i` in its low and input `16 + i` in its high half.
fn store_nibbles(quants: &mut [u8; 256], lane: usize, nibbles: &[u8]) {
    for (part, nibbles) in nibbles.as_chunks::<4>().0.iter().enumerate() {
        let start = (part * TILE_ROWS + lane) * 4;
        quants[start..start + 4].copy_from_slice(nibbles);
    }
}

fn store_fifth(high: &mut [u8; 64], lane: usize, fifth: impl Fn(usize) -> u8) {
    for input in 0..BLOCK {
        high[lane * 4 + input % 4] |= fifth(input) << (input / 4);
    }
}
