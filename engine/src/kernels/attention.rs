//! Causal attention of single rows over paged keys and values.

use half::f16;

use super::{KernelChoice, Pool, SharedPointer, portable, rope_row};

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

/// What one row may look at: the first `tokens` tokens of a sequence, in the blocks of its table.
#[derive(Clone, Copy)]
pub struct KvView<'a> {
    /// The cache of one layer, `[blocks][block_elements]`.
    pub cache: &'a [f16],
    /// The sequence's blocks in order.
    pub table: &'a [u32],
    /// Tokens to attend to, the row's own included.
    pub tokens: usize,
}

impl KvView<'_> {
    /// The blocks to visit with the number of valid tokens in each.
    pub(super) fn blocks(&self, _: &AttentionShape) -> impl Iterator<Item = (usize, usize)> {
        let tokens = self.tokens;
        self.table[..tokens.div_ceil(BLOCK_TOKENS)]
            .iter()
            .enumerate()
            .map(move |(index, block)| {
                (
                    *block as usize,
                    (tokens - index * BLOCK_TOKENS).min(BLOCK_TOKENS),
                )
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
        KernelChoice::Avx512Vnni if shape.head_dim.is_multiple_of(16) && shape.head_dim <= 128 => {
            // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
            unsafe { super::avx512::attend_group(shape, view, kv_head, query, out) }
        }
        _ => portable::attend_group(shape, view, kv_head, query, out),
    }
}

/// Where one row's key and value go.
#[derive(Debug, Clone, Copy)]
pub struct KvRow {
    /// Position in the sequence.
    pub position: usize,
    /// Block of the cache.
    pub block: u32,
}

/// Cosines and sines of the rotary embedding, `[positions, head_dim / 2]` each.
pub struct RotaryTable {
    half: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RotaryTable {
    /// Angles `position · theta^(-2i / head_dim)`, in f32 as the reference implementation computes them.
    pub fn new(positions: usize, head_dim: usize, theta: f32) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| 1.0 / theta.powf(2.0 * i as f32 / head_dim as f32))
            .collect();
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        let (cosines, sines) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self {
            half,
            cosines,
            sines,
        }
    }

    /// Angle 0 everywhere.
    #[cfg(test)]
    pub(super) fn without_rotation(positions: usize, head_dim: usize) -> Self {
        Self {
            half: head_dim / 2,
            cosines: vec![1.0; positions * head_dim / 2],
            sines: vec![0.0; positions * head_dim / 2],
        }
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cosines[range.clone()], &self.sines[range])
    }
}

/// Rotates queries and keys of `[rows, query | key | value]` in place and stores keys and values in one layer's cache.
///
/// # Panics
///
/// If two rows go to the same place, or a row outside the cache.
pub fn rotate_and_store(
    pool: &mut Pool,
    shape: &AttentionShape,
    rotary: &RotaryTable,
    rows: &[KvRow],
    (projected, cache): (&mut [f32], &mut [f16]),
) {
    let width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    assert_eq!(projected.len(), rows.len() * width);
    let blocks = cache.len() / shape.block_elements();
    assert!(rows.iter().all(|row| (row.block as usize) < blocks));
    debug_assert!(
        {
            let mut places: Vec<_> = rows
                .iter()
                .map(|row| (row.block, row.position % BLOCK_TOKENS))
                .collect();
            places.sort_unstable();
            places.windows(2).all(|pair| pair[0] != pair[1])
        },
        "two rows of a step write to the same place"
    );
    let projected = SharedPointer(projected.as_mut_ptr());
    let cache = SharedCache(cache.as_mut_ptr());
    pool.for_each_chunk(rows.len(), rows.len().div_ceil(16).max(4), |start, end| {
        for (index, row) in rows[start..end].iter().enumerate() {
            // SAFETY: `projected` holds `width` floats for each row and this thread alone has the row.
            let values = unsafe {
                std::slice::from_raw_parts_mut(projected.get().add((start + index) * width), width)
            };
            let rotated = (shape.heads + shape.kv_heads) * shape.head_dim;
            let (cosines, sines) = rotary.at(row.position);
            for head in values[..rotated].chunks_exact_mut(shape.head_dim) {
                rope_row(head, cosines, sines);
            }
            store_row(shape, row, &values[shape.heads * shape.head_dim..], &cache);
        }
    });
}

/// Writes one row's keys (first half of `keys_and_values`) and values into its slot.
fn store_row(shape: &AttentionShape, row: &KvRow, keys_and_values: &[f32], cache: &SharedCache) {
    let width = shape.head_dim;
    let slot = row.position % BLOCK_TOKENS;
    let (keys, values) = keys_and_values.split_at(shape.kv_heads * width);
    let heads = keys.chunks_exact(width).zip(values.chunks_exact(width));
    for (head, (keys, values)) in heads.enumerate() {
        let start = row.block as usize * shape.block_elements() + head * shape.head_elements();
        for (element, (key, value)) in keys.iter().zip(values).enumerate() {
            let key_at = start + element * BLOCK_TOKENS + slot;
            let value_at = start + (BLOCK_TOKENS + slot) * width + element;
            // SAFETY: the block lies inside the cache (checked by the caller) and no other row has this slot.
            unsafe {
                cache.0.add(key_at).write(f16::from_f32(*key));
                cache.0.add(value_at).write(f16::from_f32(*value));
            }
        }
    }
}

struct SharedCache(*mut f16);

// SAFETY: rows write to distinct slots, see `rotate_and_store`.
unsafe impl Sync for SharedCache {}
