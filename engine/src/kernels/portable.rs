//! The kernels in plain Rust: the reference for the others and the path for CPUs without them.

use super::activation::{FINE_STEPS, Quants, RowQuants};
use super::packed::{BLOCK, PackedMatrix, TILE_ROWS, Tiles};
use super::product::FloatRows;
use super::{AttentionShape, BLOCK_TOKENS, KvView, QuantizedRows, Resolution};

/// Quantises one row in blocks of 32: `scale = max |x| / 127`, quants rounded to nearest, ties to even.
pub(super) fn quantize_row(values: &[f32], quants: RowQuants<'_>) {
    let RowQuants {
        coarse: (coarse, coarse_sums),
        mut fine,
        scales,
    } = quants;
    for (block, values) in values.chunks_exact(BLOCK).enumerate() {
        let largest = values
            .iter()
            .fold(0.0f32, |largest, x| largest.max(x.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        scales[block] = largest / 127.0;
        let (mut coarse_sum, mut fine_sum) = (0, 0);
        for (index, value) in values.iter().enumerate() {
            let at = block * BLOCK + index;
            let scaled = value * inverse;
            let rounded = scaled.round_ties_even();
            coarse[at] = rounded as i8;
            coarse_sum += i32::from(coarse[at]);
            if let Some((fine, _)) = &mut fine {
                fine[at] = ((scaled - rounded) * FINE_STEPS).round_ties_even() as i8;
                fine_sum += i32::from(fine[at]);
            }
        }
        coarse_sums[block] = coarse_sum;
        if let Some((_, fine_sums)) = &mut fine {
            fine_sums[block] = fine_sum;
        }
    }
}

/// `sums[i][lane]` = row `first + i` times weight row `tile * 16 + lane`.
pub(super) fn quantized_tile(
    matrix: &PackedMatrix,
    tile: usize,
    rows: &QuantizedRows,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let blocks = rows.blocks;
    for (index, sums) in sums.iter_mut().enumerate() {
        for block in 0..blocks {
            let at = (first + index) * blocks + block;
            let scale = rows.scales[at];
            let tile = tile * blocks + block;
            let (mut dots, mut sum) = block_dots(matrix, tile, &rows.coarse, at);
            if rows.resolution == Resolution::Fine {
                let (fine_dots, fine_sum) = block_dots(matrix, tile, &rows.fine, at);
                for (dot, fine) in dots.iter_mut().zip(fine_dots) {
                    *dot += fine * (1.0 / FINE_STEPS);
                }
                sum += fine_sum * (1.0 / FINE_STEPS);
            }
            let (scales, minimums) = match &matrix.tiles {
                Tiles::Q4(tiles) => (&tiles[tile].scales, Some(&tiles[tile].minimums)),
                Tiles::Q8(tiles) => (&tiles[tile].scales, None),
                Tiles::F32(_) | Tiles::F16(_) => {
                    unreachable!("float matrices go through float_tile")
                }
            };
            for lane in 0..TILE_ROWS {
                sums[lane] += dots[lane] * (scales[lane].to_f32() * scale);
                if let Some(minimums) = minimums {
                    sums[lane] += minimums[lane].to_f32() * (scale * sum);
                }
            }
        }
    }
}

/// Integer products of one block of a row with the tile's rows, and the sum of the block's quants; exact in f32.
fn block_dots(
    matrix: &PackedMatrix,
    tile: usize,
    quants: &Quants,
    at: usize,
) -> ([f32; TILE_ROWS], f32) {
    let values = &quants.values[at * BLOCK..(at + 1) * BLOCK];
    let sum = quants.sums[at];
    let dots = match &matrix.tiles {
        Tiles::Q4(tiles) => dot_q4(&tiles[tile].quants, values),
        Tiles::Q8(tiles) => dot_q8(&tiles[tile].quants, values).map(|dot| dot - 128 * sum),
        Tiles::F32(_) | Tiles::F16(_) => unreachable!("float matrices go through float_tile"),
    };
    (dots.map(|dot| dot as f32), sum as f32)
}

fn dot_q4(weights: &[u8; 256], quants: &[i8]) -> [i32; TILE_ROWS] {
    let mut dots = [0i32; TILE_ROWS];
    for group in 0..4 {
        for (lane, dot) in dots.iter_mut().enumerate() {
            for j in 0..4 {
                let byte = i32::from(weights[(group * TILE_ROWS + lane) * 4 + j]);
                *dot += (byte & 15) * i32::from(quants[group * 4 + j]);
                *dot += (byte >> 4) * i32::from(quants[16 + group * 4 + j]);
            }
        }
    }
    dots
}

fn dot_q8(weights: &[u8; 512], quants: &[i8]) -> [i32; TILE_ROWS] {
    let mut dots = [0i32; TILE_ROWS];
    for group in 0..8 {
        for (lane, dot) in dots.iter_mut().enumerate() {
            for j in 0..4 {
                let weight = i32::from(weights[(group * TILE_ROWS + lane) * 4 + j]);
                *dot += weight * i32::from(quants[group * 4 + j]);
            }
        }
    }
    dots
}

/// `sums[i][lane]` = float row `first + i` times weight row `tile * 16 + lane`.
pub(super) fn float_tile(
    matrix: &PackedMatrix,
    tile: usize,
    rows: &FloatRows<'_>,
    first: usize,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let inputs = matrix.inputs;
    let base = tile * inputs * TILE_ROWS;
    for (index, sums) in sums.iter_mut().enumerate() {
        let start = (first + index) * rows.stride;
        for (input, value) in rows.values[start..start + inputs].iter().enumerate() {
            let at = base + input * TILE_ROWS;
            match &matrix.tiles {
                Tiles::F32(weights) => {
                    for (sum, weight) in sums.iter_mut().zip(&weights[at..at + TILE_ROWS]) {
                        *sum += value * weight;
                    }
                }
                Tiles::F16(weights) => {
                    for (sum, weight) in sums.iter_mut().zip(&weights[at..at + TILE_ROWS]) {
                        *sum += value * weight.to_f32();
                    }
                }
                Tiles::Q4(_) | Tiles::Q8(_) => {
                    unreachable!("quantised matrices go through quantized_tile")
                }
            }
        }
    }
}

/// Attention of one query row for the query heads of one key head; see [`super::attend`].
pub(super) fn attend_group(
    shape: &AttentionShape,
    view: &KvView<'_>,
    kv_head: usize,
    query: &[f32],
    out: &mut [f32],
) {
    let width = shape.head_dim;
    for (query, out) in query.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0f32);
        out.fill(0.0);
        for (block, visible) in view.blocks() {
            let keys = view.keys(shape, block, kv_head);
            let values = view.values(shape, block, kv_head);
            let mut scores = [0.0f32; BLOCK_TOKENS];
            for (query, keys) in query.iter().zip(keys.chunks_exact(BLOCK_TOKENS)) {
                for (score, key) in scores.iter_mut().zip(keys) {
                    *score += query * shape.scale * key.to_f32();
                }
            }
            let before = largest;
            largest = scores[visible.clone()]
                .iter()
                .fold(largest, |a, b| a.max(*b));
            let correction = (before - largest).exp();
            total *= correction;
            for out in out.iter_mut() {
                *out *= correction;
            }
            let values = values.chunks_exact(width).skip(visible.start);
            for (score, values) in scores[visible].iter().zip(values) {
                let weight = (score - largest).exp();
                total += weight;
                for (out, value) in out.iter_mut().zip(values) {
                    *out += weight * value.to_f32();
                }
            }
        }
        for out in out.iter_mut() {
            *out /= total;
        }
    }
}

/// `out = silu(gate) · up`.
pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = gate / (1.0 + (-gate).exp()) * up;
    }
}

/// `out = gelu(gate) · up`, tanh form.
pub(super) fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // gelu(x) = x / 2 · (1 + tanh y) = x · sigmoid(2 y) with y = sqrt(2 / pi) · (x + 0.044715 x³).
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        let y = 0.797_884_6 * (gate + 0.044_715 * gate * gate * gate);
        *out = gate / (1.0 + (-2.0 * y).exp()) * up;
    }
}
