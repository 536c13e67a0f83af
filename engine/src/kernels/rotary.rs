//! Rotary embedding of a step's queries and keys, and storing keys and values in the cache.

use half::f16;

use super::{AttentionShape, BLOCK_TOKENS, Pool, SharedPointer, rope_row};

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
