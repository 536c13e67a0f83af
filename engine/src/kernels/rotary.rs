//! What happens to a step's queries, keys and values between their product and the attention: biases, norms of heads,
//! rotary embedding, and storing keys and values in the cache.

use half::f16;

use super::norm::norm_in_place;
use super::{AttentionShape, BLOCK_TOKENS, Pool, SharedPointer, rope_row};

/// Where one row's key and value go.
#[derive(Debug, Clone, Copy)]
pub struct KvRow {
    /// Position in the sequence.
    pub position: usize,
    /// Block of the cache.
    pub block: u32,
}

/// Cosines and sines of the rotary embedding, `[positions, pairs]` each.
pub struct RotaryTable {
    pairs: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RotaryTable {
    /// Angles `position · frequency` of each pair, in f32 as the reference implementation computes them; cosines and
    /// sines are multiplied by `magnitude`.
    pub fn new(positions: usize, frequencies: &[f32], magnitude: f32) -> Self {
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        let (cosines, sines) = angles
            .map(|angle| (angle.cos() * magnitude, angle.sin() * magnitude))
            .unzip();
        Self {
            pairs: frequencies.len(),
            cosines,
            sines,
        }
    }

    /// Angle 0 everywhere.
    #[cfg(test)]
    pub(super) fn without_rotation(positions: usize, head_dim: usize) -> Self {
        Self::new(positions, &vec![0.0; head_dim / 2], 1.0)
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cosines[range.clone()], &self.sines[range])
    }
}

/// What a layer does to queries, keys and values before they are used.
#[derive(Clone, Copy)]
pub struct HeadTransform<'a> {
    /// Added first, `[query | key | value]`.
    pub bias: Option<&'a [f32]>,
    /// RMSNorm factors of every query head and every key head, `[head_dim]` each.
    pub norms: Option<[&'a [f32]; 2]>,
    /// Constant under the root of the norms.
    pub epsilon: f32,
    /// Turns the first elements of query and key heads, twice as many as it has pairs.
    pub rotary: &'a RotaryTable,
}

impl<'a> HeadTransform<'a> {
    /// Nothing but the rotary embedding.
    pub fn rotation(rotary: &'a RotaryTable) -> Self {
        Self {
            bias: None,
            norms: None,
            epsilon: 0.0,
            rotary,
        }
    }

    fn apply(&self, shape: &AttentionShape, position: usize, values: &mut [f32]) {
        if let Some(bias) = self.bias {
            values.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
        let (cosines, sines) = self.rotary.at(position);
        let turned = 2 * cosines.len();
        let heads = values.chunks_exact_mut(shape.head_dim);
        for (index, head) in heads.take(shape.heads + shape.kv_heads).enumerate() {
            if let Some([query, key]) = self.norms {
                let weight = if index < shape.heads { query } else { key };
                norm_in_place(head, weight, self.epsilon);
            }
            rope_row(&mut head[..turned], cosines, sines);
        }
    }
}

/// Transforms the heads of `[rows, query | key | value]` in place and stores keys and values in one layer's cache.
///
/// # Panics
///
/// If two rows go to the same place, a row outside the cache, or a position is not in the rotary table.
pub fn rotate_and_store(
    pool: &mut Pool,
    shape: &AttentionShape,
    transform: HeadTransform<'_>,
    rows: &[KvRow],
    (projected, cache): (&mut [f32], &mut [f16]),
) {
    let width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    assert_eq!(projected.len(), rows.len() * width);
    let blocks = cache.len() / shape.block_elements();
    assert!(rows.iter().all(|row| (row.block as usize) < blocks));
    debug_assert!(
        rows.iter().enumerate().all(|(index, row)| {
            let same = |other: &KvRow| {
                (other.block, other.position % BLOCK_TOKENS)
                    == (row.block, row.position % BLOCK_TOKENS)
            };
            !rows[..index].iter().any(same)
        }),
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
            transform.apply(shape, row.position, values);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_then_norms_then_the_turn_of_the_first_elements() {
        let shape = AttentionShape {
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
            scale: 1.0,
        };
        // One pair that turns a quarter per position, doubled: (x, y) becomes (-2y, 2x) at position 1.
        let rotary = RotaryTable::new(2, &[std::f32::consts::FRAC_PI_2], 2.0);
        let transform = HeadTransform {
            bias: Some(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5]),
            norms: Some([&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 1.0, 2.0]]),
            epsilon: 3.0,
            rotary: &rotary,
        };
        // Both heads have a mean square of 1 once the bias is added, so the norm halves them.
        let mut values = [0.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 0.0, 5.0, 6.0, 7.0, 8.0];
        transform.apply(&shape, 1, &mut values);
        let expected = [-2.0, 1.0, 1.5, 2.0, 1.0, 1.0, 0.5, 1.0, 5.0, 6.0, 7.0, 8.5];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }
}
