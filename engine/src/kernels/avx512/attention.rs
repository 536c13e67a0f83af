//! Attention of one row over the blocks of its sequence.

use std::arch::x86_64::*;

use half::f16;

use super::exponential;
use crate::kernels::{AttentionShape, BLOCK_TOKENS, KvView};

/// See `portable::attend_group`; `head_dim` is a multiple of 16 up to 256.
#[target_feature(enable = "avx512f,avx512dq,f16c")]
pub(in crate::kernels) fn attend_group(
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
        8 => attend_heads::<1, 8>(shape, view, kv_head, query, out),
        12 => attend_heads::<1, 12>(shape, view, kv_head, query, out),
        16 => attend_heads::<1, 16>(shape, view, kv_head, query, out),
        _ => crate::kernels::portable::attend_group(shape, view, kv_head, query, out),
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
    for (block, visible) in view.blocks() {
        let scores = block_scores::<HEADS>(shape, view.keys(shape, block, kv_head), query);
        let visible_lanes = ((1u32 << visible.end) - (1u32 << visible.start)) as __mmask16;
        let mut weights = [[0.0f32; BLOCK_TOKENS]; HEADS];
        for head in 0..HEADS {
            let scores = _mm512_mask_blend_ps(
                visible_lanes,
                _mm512_set1_ps(f32::NEG_INFINITY),
                scores[head],
            );
            let before = largest[head];
            largest[head] = before.max(_mm512_reduce_max_ps(scores));
            let shifted = _mm512_sub_ps(scores, _mm512_set1_ps(largest[head]));
            let exponentials = _mm512_maskz_mov_ps(visible_lanes, exponential(shifted));
            let correction = (before - largest[head]).exp();
            weight_sums[head] = weight_sums[head] * correction + _mm512_reduce_add_ps(exponentials);
            for total in &mut totals[head] {
                *total = _mm512_mul_ps(*total, _mm512_set1_ps(correction));
            }
            // SAFETY: 16 floats, unaligned.
            unsafe { _mm512_storeu_ps(weights[head].as_mut_ptr(), exponentials) };
        }
        let values = view.values(shape, block, kv_head);
        let slots = values.chunks_exact(width).enumerate();
        for (slot, values) in slots.take(visible.end).skip(visible.start) {
            for (vector, values) in values.chunks_exact(16).enumerate() {
                // SAFETY: the chunk holds 16 halves, 32 bytes.
                let value = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) });
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
