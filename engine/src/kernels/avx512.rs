//! The kernels in AVX-512 with VNNI. Callers guarantee the CPU features; see `KernelChoice::is_available`.

use std::arch::x86_64::*;

use half::f16;

use super::packed::{BLOCK, PackedMatrix, TILE_ROWS, TileQ4, TileQ8, Tiles};
use super::product::FloatRows;
use super::{AttentionShape, BLOCK_TOKENS, KvView, QuantizedRows};

/// Quantises one row; the same values as `portable::quantize_row`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn quantize_row(
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
pub(super) fn quantized_tile(
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
        for row in 0..ROWS {
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
            totals[row] = _mm512_fmadd_ps(dot, both, totals[row]);
            let sum = _mm512_set1_ps(scales[at] * block_sums[at] as f32);
            totals[row] = _mm512_fmadd_ps(minimum, sum, totals[row]);
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
        for row in 0..ROWS {
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
            totals[row] = _mm512_fmadd_ps(dot, both, totals[row]);
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
pub(super) fn float_tile(
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

/// See `portable::attend_group`; `head_dim` is a multiple of 16 up to 128.
#[target_feature(enable = "avx512f,avx512dq,f16c")]
pub(super) fn attend_group(
    shape: &AttentionShape,
    view: &KvView<'_>,
    kv_head: usize,
    query: &[f32],
    out: &mut [f32],
) {
    let width = shape.head_dim;
    if (query.len() / width, width / 16) == (3, 4) {
        // The heads of the default base share each key and value they load.
        return attend_heads::<3, 4>(shape, view, kv_head, query, out);
    }
    for (query, out) in query.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        attend_head(shape, view, kv_head, query, out);
    }
}

#[target_feature(enable = "avx512f,avx512dq,f16c")]
fn attend_head(
    shape: &AttentionShape,
    view: &KvView<'_>,
    kv_head: usize,
    query: &[f32],
    out: &mut [f32],
) {
    match shape.head_dim / 16 {
        1 => attend_heads::<1, 1>(shape, view, kv_head, query, out),
        2 => attend_heads::<1, 2>(shape, view, kv_head, query, out),
        3 => attend_heads::<1, 3>(shape, view, kv_head, query, out),
        4 => attend_heads::<1, 4>(shape, view, kv_head, query, out),
        5 => attend_heads::<1, 5>(shape, view, kv_head, query, out),
        6 => attend_heads::<1, 6>(shape, view, kv_head, query, out),
        7 => attend_heads::<1, 7>(shape, view, kv_head, query, out),
        _ => attend_heads::<1, 8>(shape, view, kv_head, query, out),
    }
}

#[target_feature(enable = "avx512f,avx512dq,f16c")]
fn attend_heads<const HEADS: usize, const VECTORS: usize>(
    shape: &AttentionShape,
    view: &KvView<'_>,
    kv_head: usize,
    query: &[f32],
    out: &mut [f32],
) {
    let width = VECTORS * 16;
    assert!(width == shape.head_dim && query.len() == HEADS * width && out.len() == query.len());
    let mut totals = [[_mm512_setzero_ps(); VECTORS]; HEADS];
    let mut largest = [f32::NEG_INFINITY; HEADS];
    let mut weight_sums = [0.0f32; HEADS];
    for (block, valid) in view.blocks(shape) {
        let scores = block_scores::<HEADS>(shape, view.keys(shape, block, kv_head), query);
        let valid_lanes = (u32::MAX >> (32 - valid)) as __mmask16;
        let mut weights = [[0.0f32; BLOCK_TOKENS]; HEADS];
        for head in 0..HEADS {
            let scores =
                _mm512_mask_blend_ps(valid_lanes, _mm512_set1_ps(f32::NEG_INFINITY), scores[head]);
            let before = largest[head];
            largest[head] = before.max(_mm512_reduce_max_ps(scores));
            let shifted = _mm512_sub_ps(scores, _mm512_set1_ps(largest[head]));
            let exponentials = _mm512_maskz_mov_ps(valid_lanes, exponential(shifted));
            let correction = (before - largest[head]).exp();
            weight_sums[head] = weight_sums[head] * correction + _mm512_reduce_add_ps(exponentials);
            for total in &mut totals[head] {
                *total = _mm512_mul_ps(*total, _mm512_set1_ps(correction));
            }
            // SAFETY: 16 floats, unaligned.
            unsafe { _mm512_storeu_ps(weights[head].as_mut_ptr(), exponentials) };
        }
        let values = view.values(shape, block, kv_head);
        for (slot, values) in values.chunks_exact(width).take(valid).enumerate() {
            for vector in 0..VECTORS {
                // SAFETY: `values` holds `VECTORS` times 16 halves.
                let value = _mm512_cvtph_ps(unsafe {
                    _mm256_loadu_si256(values.as_ptr().add(vector * 16).cast())
                });
                for head in 0..HEADS {
                    let weight = _mm512_set1_ps(weights[head][slot]);
                    totals[head][vector] = _mm512_fmadd_ps(weight, value, totals[head][vector]);
                }
            }
        }
    }
    for (head, out) in out.chunks_exact_mut(width).enumerate() {
        let inverse = _mm512_set1_ps(1.0 / weight_sums[head]);
        for (total, out) in totals[head].iter().zip(out.chunks_exact_mut(16)) {
            // SAFETY: 16 floats, unaligned.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(*total, inverse)) };
        }
    }
}

/// Scores of the block's 16 tokens for each head; lanes of tokens not written yet hold anything.
#[target_feature(enable = "avx512f,f16c")]
fn block_scores<const HEADS: usize>(
    shape: &AttentionShape,
    keys: &[f16],
    query: &[f32],
) -> [__m512; HEADS] {
    let width = shape.head_dim;
    let mut scores = [_mm512_setzero_ps(); HEADS];
    for (element, keys) in keys.chunks_exact(BLOCK_TOKENS).enumerate() {
        // SAFETY: the chunk holds 16 halves, 32 bytes.
        let keys = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(keys.as_ptr().cast()) });
        for head in 0..HEADS {
            let query = _mm512_set1_ps(query[head * width + element] * shape.scale);
            scores[head] = _mm512_fmadd_ps(query, keys, scores[head]);
        }
    }
    scores
}

/// `exp(x)` for x ≤ 88, relative error below 2⁻²²: `2ⁿ · p(r)` with `x = n·ln 2 + r` and p the Taylor polynomial of
/// degree 6 on |r| ≤ ln 2 / 2.
#[target_feature(enable = "avx512f,avx512dq")]
fn exponential(x: __m512) -> __m512 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = _mm512_max_ps(x, _mm512_set1_ps(-87.0));
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_HIGH), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_LOW), r);
    let mut p = _mm512_set1_ps(1.0 / 720.0);
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, n)
}

/// See `portable::swiglu`; lengths are equal multiples of 16.
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let rows = gate.chunks_exact(16).zip(up.chunks_exact(16));
    for ((gate, up), out) in rows.zip(out.chunks_exact_mut(16)) {
        // SAFETY: each chunk holds 16 floats.
        unsafe {
            let gate = _mm512_loadu_ps(gate.as_ptr());
            let up = _mm512_loadu_ps(up.as_ptr());
            let negative = exponential(_mm512_sub_ps(_mm512_setzero_ps(), gate));
            let sigmoid = _mm512_div_ps(gate, _mm512_add_ps(_mm512_set1_ps(1.0), negative));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(sigmoid, up));
        }
    }
}
