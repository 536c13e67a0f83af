//! Causal attention of single rows over paged keys and values.

use std::ops::Range;

use half::f16;

use super::{KernelChoice, portable};

/// Tokens in one block of the cache.
pub const BLOCK_TOKENS: usize = 16;

/// The shape of the attention of a model.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What scores are multiplied by, `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionShape {
    /// Elements of one block in one layer: for each key head `[head_dim][16]` keys, then `[16][head_dim]` values.
    pub fn block_elements(&self) -> usize {
        self.kv_heads * self.head_elements()
    }

    pub(super) fn head_elements(&self) -> usize {
        2 * self.head_dim * BLOCK_TOKENS
    }
}

/// What one row may look at: tokens `first..tokens` of a sequence, in the blocks of its table.
#[derive(Clone, Copy)]
pub struct KvView<'a> {
    /// The cache of one layer, `[blocks][block_elements]`.
    pub cache: &'a [f16],
    /// The sequence's blocks in order.
    pub table: &'a [u32],
    /// The first visible token; 0 but for a sliding window. Below `tokens`.
    pub first: usize,
    /// Tokens of the sequence up to the row's own, which is the last one visible.
    pub tokens: usize,
}

impl KvView<'_> {
    /// The blocks to visit with the visible slots of each.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (first, tokens) = (self.first, self.tokens);
        (first / BLOCK_TOKENS..tokens.div_ceil(BLOCK_TOKENS)).map(move |index| {
            let start = index * BLOCK_TOKENS;
            let visible = first.saturating_sub(start)..(tokens - start).min(BLOCK_TOKENS);
            (self.table[index] as usize, visible)
        })
    }

    /// Keys of one head in a block, `[head_dim][16]`.
    pub(super) fn keys(&self, shape: &AttentionShape, block: usize, kv_head: usize) -> &[f16] {
        let start = block * shape.block_elements() + kv_head * shape.head_elements();
        &self.cache[start..start + shape.head_dim * BLOCK_TOKENS]
    }

    /// Values of one head in a block, `[16][head_dim]`.
    pub(super) fn values(&self, shape: &AttentionShape, block: usize, kv_head: usize) -> &[f16] {
        let start = block * shape.block_elements()
            + kv_head * shape.head_elements()
            + shape.head_dim * BLOCK_TOKENS;
        &self.cache[start..start + shape.head_dim * BLOCK_TOKENS]
    }
}

/// Softmax attention of the query heads that share `kv_head`, for one row.
///
/// `query` and `out` are `[heads / kv_heads, head_dim]`. Blocks are visited in order with a running maximum
/// (Milakov & Gimelshein 2018, *Online normalizer calculation for softmax*), so the result depends on nothing but the
/// row's position and what stands before it.
pub fn attend(
    kernels: KernelChoice,
    shape: &AttentionShape,
    view: &KvView<'_>,
    kv_head: usize,
    (query, out): (&[f32], &mut [f32]),
) {
    match kernels {
        #[cfg(target_arch = "x86_64")]
        KernelChoice::Avx512Vnni if shape.head_dim.is_multiple_of(16) && shape.head_dim <= 256 => {
            // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
            unsafe { super::avx512::attend_group(shape, view, kv_head, query, out) }
        }
        _ => portable::attend_group(shape, view, kv_head, query, out),
    }
}
