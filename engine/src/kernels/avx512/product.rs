//! Quantising rows, and tiles of matrix products.

use std::arch::x86_64::*;

use half::f16;

use crate::kernels::QuantizedRows;
use crate::kernels::packed::{BLOCK, PackedMatrix, TILE_ROWS, TileQ4, TileQ8, Tiles};
use crate::kernels::product::FloatRows;

/// Quantises one row; the same values as `portable::quantize_row`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::kernels) fn quantize_row(
    values: &[f32],
    quants: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let blocks = values
        .chunks_exact(BLOCK)
        .zip(quants.chunks_exact_mut(BLOCK));
    for ((values, quants), (scale, sum)) in blocks.zip(scales.iter_mut().zip(sums)) {
        // SAFETY: `values` holds 32 floats and `quants` 32 bytes.
        unsafe {
            let low = _mm512_loadu_ps(values.as_ptr());
            let high = _mm512_loadu_ps(values.as_ptr().add(16));
            let magnitudes = _mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high));
            let largest = _mm512_reduce_max_ps(magnitudes);
            let inverse = _mm512_set1_ps(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
            let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
            *scale = largest / 127.0;
            *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
            let out = quants.as_mut_ptr().cast::<__m128i>();
            _mm_storeu_si128(out, _mm512_cvtepi32_epi8(low));
            _mm_storeu_si128(out.add(1), _mm512_cvtepi32_epi8(high));
        }
    }
}

/// See `portable::quantized_tile`; `sums` has 1, 2, 3, 4 or 8 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
pub(in crate::kernels) fn quantized_tile(
    matrix: &PackedMatrix,
    tile: usize,
    rows: &QuantizedRows,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let range = tile * rows.blocks..(tile + 1) * rows.blocks;
    match &matrix.tiles {
        Tiles::Q4(tiles) => {
            let tiles = &tiles[range];
            match sums.len() {
                8 => tile_q4::<8>(tiles, rows, first, sums),
                4 => tile_q4::<4>(tiles, rows, first, sums),
                3 => tile_q4::<3>(tiles, rows, first, sums),
                2 => tile_q4::<2>(tiles, rows, first, sums),
                _ => tile_q4::<1>(tiles, rows, first, sums),
            }
        }
        Tiles::Q8(tiles) => {
            let tiles = &tiles[range];
            match sums.len() {
                8 => tile_q8::<8>(tiles, rows, first, sums),
                4 => tile_q8::<4>(tiles, rows, first, sums),
                3 => tile_q8::<3>(tiles, rows, first, sums),
                2 => tile_q8::<2>(tiles, rows, first, sums),
                _ => tile_q8::<1>(tiles, rows, first, sums),
            }
        }
        Tiles::F32(_) | Tiles::F16(_) => unreachable!("float matrices go through float_tile"),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
fn tile_q4<const ROWS: usize>(
    tiles: &[TileQ4],
    rows: &QuantizedRows,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let blocks = tiles.len();
    let (quants, scales, block_sums) = row_group::<ROWS>(rows, first, blocks);
    let mask = _mm512_set1_epi8(15);
    let mut totals = [_mm512_setzero_ps(); ROWS];
    for (block, tile) in tiles.iter().enumerate() {
        let packed = tile.quants.as_ptr();
        // SAFETY: a tile holds 256 quants at 64-byte alignment and 16 scales and minimums each.
        let (bytes, scale, minimum) = unsafe {
            (
                [0, 64, 128, 192].map(|at| _mm512_load_si512(packed.add(at).cast())),
                halves(&tile.scales),
                halves(&tile.minimums),
            )
        };
        let low = bytes.map(|bytes| _mm512_and_si512(bytes, mask));
        let high = bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask));
        for (row, total) in totals.iter_mut().enumerate() {
            let at = row * blocks + block;
            let group = quants[at * BLOCK..(at + 1) * BLOCK].as_ptr().cast::<i32>();
            let mut even = _mm512_setzero_si512();
            let mut odd = _mm512_setzero_si512();
            for part in 0..4 {
                // SAFETY: the row's block has 32 bytes: eight unaligned 32-bit words.
                let (left, right) = unsafe {
                    (
                        group.add(part).read_unaligned(),
                        group.add(part + 4).read_unaligned(),
                    )
                };
                even = _mm512_dpbusd_epi32(even, low[part], _mm512_set1_epi32(left));
                odd = _mm512_dpbusd_epi32(odd, high[part], _mm512_set1_epi32(right));
            }
            let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            let both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[at]));
            *total = _mm512_fmadd_ps(dot, both, *total);
            let sum = _mm512_set1_ps(scales[at] * block_sums[at] as f32);
            *total = _mm512_fmadd_ps(minimum, sum, *total);
        }
    }
    store_totals(&totals, sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
fn tile_q8<const ROWS: usize>(
    tiles: &[TileQ8],
    rows: &QuantizedRows,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let blocks = tiles.len();
    let (quants, scales, block_sums) = row_group::<ROWS>(rows, first, blocks);
    let mut totals = [_mm512_setzero_ps(); ROWS];
    for (block, tile) in tiles.iter().enumerate() {
        let packed = tile.quants.as_ptr();
        // SAFETY: a tile holds 512 quants, read unaligned, and 16 scales.
        let (weights, scale) = unsafe {
            (
                [0, 1, 2, 3, 4, 5, 6, 7]
                    .map(|part| _mm512_loadu_si512(packed.add(part * 64).cast())),
                halves(&tile.scales),
            )
        };
        for (row, total) in totals.iter_mut().enumerate() {
            let at = row * blocks + block;
            let group = quants[at * BLOCK..(at + 1) * BLOCK].as_ptr().cast::<i32>();
            let mut even = _mm512_set1_epi32(-128 * block_sums[at]);
            let mut odd = _mm512_setzero_si512();
            for part in 0..4 {
                // SAFETY: the row's block has 32 bytes: eight unaligned 32-bit words.
                let (left, right) = unsafe {
                    (
                        group.add(part).read_unaligned(),
                        group.add(part + 4).read_unaligned(),
                    )
                };
                even = _mm512_dpbusd_epi32(even, weights[part], _mm512_set1_epi32(left));
                odd = _mm512_dpbusd_epi32(odd, weights[part + 4], _mm512_set1_epi32(right));
            }
            let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            let both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[at]));
            *total = _mm512_fmadd_ps(dot, both, *total);
        }
    }
    store_totals(&totals, sums);
}

/// Quants, scales and sums of `ROWS` rows from `first` on.
fn row_group<const ROWS: usize>(
    rows: &QuantizedRows,
    first: usize,
    blocks: usize,
) -> (&[i8], &[f32], &[i32]) {
    let range = first * blocks..(first + ROWS) * blocks;
    (
        &rows.quants[range.start * BLOCK..range.end * BLOCK],
        &rows.scales[range.clone()],
        &rows.sums[range],
    )
}

#[target_feature(enable = "avx512f,f16c")]
fn halves(values: &[f16; TILE_ROWS]) -> __m512 {
    // SAFETY: 16 halves are 32 bytes; the load is unaligned.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
fn store_totals<const ROWS: usize>(totals: &[__m512; ROWS], sums: &mut [[f32; TILE_ROWS]]) {
    for (total, sums) in totals.iter().zip(sums) {
        // SAFETY: 16 floats, unaligned.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) };
    }
}

/// See `portable::float_tile`; `sums` has 1, 2, 3, 4 or 8 rows.
#[target_feature(enable = "avx512f,f16c")]
pub(in crate::kernels) fn float_tile(
    matrix: &PackedMatrix,
    tile: usize,
    rows: &FloatRows<'_>,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    match sums.len() {
        8 => float_rows::<8>(matrix, tile, rows, first, sums),
        4 => float_rows::<4>(matrix, tile, rows, first, sums),
        3 => float_rows::<3>(matrix, tile, rows, first, sums),
        2 => float_rows::<2>(matrix, tile, rows, first, sums),
        _ => float_rows::<1>(matrix, tile, rows, first, sums),
    }
}

#[target_feature(enable = "avx512f,f16c")]
fn float_rows<const ROWS: usize>(
    matrix: &PackedMatrix,
    tile: usize,
    rows: &FloatRows<'_>,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let inputs = matrix.inputs;
    let range = tile * inputs * TILE_ROWS..(tile + 1) * inputs * TILE_ROWS;
    let values: [&[f32]; ROWS] = std::array::from_fn(|row| {
        let start = (first + row) * rows.stride;
        &rows.values[start..start + inputs]
    });
    let mut totals = [_mm512_setzero_ps(); ROWS];
    match &matrix.tiles {
        Tiles::F32(weights) => {
            for (input, weights) in weights[range].chunks_exact(TILE_ROWS).enumerate() {
                // SAFETY: the chunk holds 16 floats.
                let weights = unsafe { _mm512_loadu_ps(weights.as_ptr()) };
                for row in 0..ROWS {
                    let value = _mm512_set1_ps(values[row][input]);
                    totals[row] = _mm512_fmadd_ps(value, weights, totals[row]);
                }
            }
        }
        Tiles::F16(weights) => {
            for (input, weights) in weights[range].chunks_exact(TILE_ROWS).enumerate() {
                // SAFETY: the chunk holds 16 halves, 32 bytes.
                let weights =
                    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(weights.as_ptr().cast()) });
                for row in 0..ROWS {
                    let value = _mm512_set1_ps(values[row][input]);
                    totals[row] = _mm512_fmadd_ps(value, weights, totals[row]);
                }
            }
        }
        Tiles::Q4(_) | Tiles::Q8(_) => {
            unreachable!("quantised matrices go through quantized_tile")
        }
    }
    store_totals(&totals, sums);
}
