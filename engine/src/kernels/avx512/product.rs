//! Quantising rows, and tiles of matrix products.

use std::arch::x86_64::*;

use half::f16;

use crate::kernels::activation::{FINE_STEPS, RowQuants};
use crate::kernels::packed::{BLOCK, PackedMatrix, TILE_ROWS, TileQ4, TileQ8, Tiles};
use crate::kernels::product::FloatRows;
use crate::kernels::{QuantizedRows, Resolution};

/// Quantises one row; the same values as `portable::quantize_row`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::kernels) fn quantize_row(values: &[f32], quants: RowQuants<'_>) {
    let RowQuants {
        coarse: (coarse, coarse_sums),
        mut fine,
        scales,
    } = quants;
    for (block, values) in values.chunks_exact(BLOCK).enumerate() {
        // SAFETY: the chunk holds 32 floats.
        let values = unsafe {
            [
                _mm512_loadu_ps(values.as_ptr()),
                _mm512_loadu_ps(values.as_ptr().add(16)),
            ]
        };
        let magnitudes = values.map(|half| _mm512_abs_ps(half));
        let largest = _mm512_reduce_max_ps(_mm512_max_ps(magnitudes[0], magnitudes[1]));
        let inverse = _mm512_set1_ps(if largest > 0.0 { 127.0 / largest } else { 0.0 });
        scales[block] = largest / 127.0;
        let scaled = values.map(|half| _mm512_mul_ps(half, inverse));
        let rounded = scaled.map(|half| _mm512_cvtps_epi32(half));
        let range = block * BLOCK..(block + 1) * BLOCK;
        coarse_sums[block] = store_bytes(rounded, &mut coarse[range.clone()]);
        if let Some((fine, fine_sums)) = &mut fine {
            let steps = _mm512_set1_ps(FINE_STEPS);
            let lost = [0, 1].map(|half| {
                let lost = _mm512_sub_ps(scaled[half], _mm512_cvtepi32_ps(rounded[half]));
                _mm512_cvtps_epi32(_mm512_mul_ps(lost, steps))
            });
            fine_sums[block] = store_bytes(lost, &mut fine[range]);
        }
    }
}

/// Stores 32 values as bytes and returns their sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn store_bytes(values: [__m512i; 2], out: &mut [i8]) -> i32 {
    assert_eq!(out.len(), BLOCK);
    let out = out.as_mut_ptr().cast::<__m128i>();
    // SAFETY: `out` holds 32 bytes; the stores are unaligned.
    unsafe {
        _mm_storeu_si128(out, _mm512_cvtepi32_epi8(values[0]));
        _mm_storeu_si128(out.add(1), _mm512_cvtepi32_epi8(values[1]));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(values[0], values[1]))
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
    match (rows.resolution, sums.len()) {
        (Resolution::Coarse, 8) => tile_rows::<8, false>(matrix, tile, rows, first, sums),
        (Resolution::Coarse, 4) => tile_rows::<4, false>(matrix, tile, rows, first, sums),
        (Resolution::Coarse, 3) => tile_rows::<3, false>(matrix, tile, rows, first, sums),
        (Resolution::Coarse, 2) => tile_rows::<2, false>(matrix, tile, rows, first, sums),
        (Resolution::Coarse, _) => tile_rows::<1, false>(matrix, tile, rows, first, sums),
        (Resolution::Fine, 8) => tile_rows::<8, true>(matrix, tile, rows, first, sums),
        (Resolution::Fine, 4) => tile_rows::<4, true>(matrix, tile, rows, first, sums),
        (Resolution::Fine, 3) => tile_rows::<3, true>(matrix, tile, rows, first, sums),
        (Resolution::Fine, 2) => tile_rows::<2, true>(matrix, tile, rows, first, sums),
        (Resolution::Fine, _) => tile_rows::<1, true>(matrix, tile, rows, first, sums),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
fn tile_rows<const ROWS: usize, const FINE: bool>(
    matrix: &PackedMatrix,
    tile: usize,
    rows: &QuantizedRows,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let range = tile * rows.blocks..(tile + 1) * rows.blocks;
    let group = RowGroup::new(rows, first, ROWS, FINE);
    let totals = match &matrix.tiles {
        Tiles::Q4(tiles) => tile_q4::<ROWS, FINE>(&tiles[range], &group),
        Tiles::Q8(tiles) => tile_q8::<ROWS, FINE>(&tiles[range], &group),
        Tiles::F32(_) | Tiles::F16(_) => unreachable!("float matrices go through float_tile"),
    };
    store_totals(&totals, sums);
}

/// The rows that share one pass over a tile; all slices start at the first of them.
struct RowGroup<'a> {
    scales: &'a [f32],
    coarse: (&'a [i8], &'a [i32]),
    /// Empty at coarse resolution.
    fine: (&'a [i8], &'a [i32]),
}

impl<'a> RowGroup<'a> {
    fn new(rows: &'a QuantizedRows, first: usize, count: usize, fine: bool) -> Self {
        let range = first * rows.blocks..(first + count) * rows.blocks;
        let bytes = range.start * BLOCK..range.end * BLOCK;
        Self {
            scales: &rows.scales[range.clone()],
            coarse: (
                &rows.coarse.values[bytes.clone()],
                &rows.coarse.sums[range.clone()],
            ),
            fine: if fine {
                (&rows.fine.values[bytes], &rows.fine.sums[range])
            } else {
                (&[], &[])
            },
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
fn tile_q4<const ROWS: usize, const FINE: bool>(
    tiles: &[TileQ4],
    rows: &RowGroup<'_>,
) -> [__m512; ROWS] {
    let mask = _mm512_set1_epi8(15);
    let mut totals = [_mm512_setzero_ps(); ROWS];
    for (block, tile) in tiles.iter().enumerate() {
        let packed = tile.quants.as_ptr();
        // SAFETY: a tile holds 256 quants at 64-byte alignment.
        let bytes = [0, 64, 128, 192].map(|at| unsafe { _mm512_load_si512(packed.add(at).cast()) });
        let (scale, minimum) = (halves(&tile.scales), halves(&tile.minimums));
        let low = bytes.map(|bytes| _mm512_and_si512(bytes, mask));
        let high = bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask));
        let weights = [
            low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3],
        ];
        for (row, total) in totals.iter_mut().enumerate() {
            let at = row * tiles.len() + block;
            let mut dot = block_dot(&weights, rows.coarse.0, at, 0);
            let mut sum = rows.coarse.1[at] as f32;
            if FINE {
                let steps = _mm512_set1_ps(1.0 / FINE_STEPS);
                dot = _mm512_fmadd_ps(block_dot(&weights, rows.fine.0, at, 0), steps, dot);
                sum += rows.fine.1[at] as f32 * (1.0 / FINE_STEPS);
            }
            let both = _mm512_mul_ps(scale, _mm512_set1_ps(rows.scales[at]));
            *total = _mm512_fmadd_ps(dot, both, *total);
            let sum = _mm512_set1_ps(rows.scales[at] * sum);
            *total = _mm512_fmadd_ps(minimum, sum, *total);
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
fn tile_q8<const ROWS: usize, const FINE: bool>(
    tiles: &[TileQ8],
    rows: &RowGroup<'_>,
) -> [__m512; ROWS] {
    let mut totals = [_mm512_setzero_ps(); ROWS];
    for (block, tile) in tiles.iter().enumerate() {
        let packed = tile.quants.as_ptr();
        // SAFETY: a tile holds 512 quants, read unaligned.
        let weights = [0, 1, 2, 3, 4, 5, 6, 7]
            .map(|part| unsafe { _mm512_loadu_si512(packed.add(part * 64).cast()) });
        let scale = halves(&tile.scales);
        for (row, total) in totals.iter_mut().enumerate() {
            let at = row * tiles.len() + block;
            let mut dot = block_dot(&weights, rows.coarse.0, at, -128 * rows.coarse.1[at]);
            if FINE {
                let steps = _mm512_set1_ps(1.0 / FINE_STEPS);
                let fine = block_dot(&weights, rows.fine.0, at, -128 * rows.fine.1[at]);
                dot = _mm512_fmadd_ps(fine, steps, dot);
            }
            let both = _mm512_mul_ps(scale, _mm512_set1_ps(rows.scales[at]));
            *total = _mm512_fmadd_ps(dot, both, *total);
        }
    }
    totals
}

/// `start` plus the products of a tile's 16 rows with block `at` of the quants, as floats; exact.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn block_dot(weights: &[__m512i; 8], quants: &[i8], at: usize, start: i32) -> __m512 {
    let words = quants[at * BLOCK..(at + 1) * BLOCK].as_ptr().cast::<i32>();
    // Two chains, so that one product need not wait for the last.
    let mut chains = [_mm512_set1_epi32(start), _mm512_setzero_si512()];
    for (part, weights) in weights.iter().enumerate() {
        // SAFETY: the block has 32 bytes: eight unaligned 32-bit words.
        let word = unsafe { words.add(part).read_unaligned() };
        let chain = &mut chains[part / 4];
        *chain = _mm512_dpbusd_epi32(*chain, *weights, _mm512_set1_epi32(word));
    }
    _mm512_cvtepi32_ps(_mm512_add_epi32(chains[0], chains[1]))
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
