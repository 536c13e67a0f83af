//! Attention against the softmax of its scores in f64.

use half::f16;
use proptest::prelude::*;

use super::{kernel_sets, random};
use crate::kernels::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn attention_is_the_softmax_of_the_scores(
        (tokens, rows) in (1usize..70, 1usize..12), window in 1usize..90, heads in 1usize..5,
        width in prop_oneof![(1usize..17).prop_map(|vectors| vectors * 16), Just(8), Just(40)],
        seed in any::<u64>(),
    ) {
        let rows = rows.min(tokens);
        let shape = AttentionShape { heads: 2 * heads, kv_heads: 2, head_dim: width, scale: 0.3 };
        let stored = stored_tokens(&shape, tokens, seed);
        let queries = random(seed ^ 6, rows * shape.heads * width);
        let visible = |row: usize| {
            let end = tokens - rows + row + 1;
            end.saturating_sub(window)..end
        };
        for kernels in kernel_sets() {
            let out = attention(kernels, &shape, &stored, &queries, visible);
            let mut expected = Vec::new();
            for row in 0..rows {
                let queries = &queries[row * shape.heads * width..][..shape.heads * width];
                for (head, query) in queries.chunks_exact(width).enumerate() {
                    expected.extend(plain_attention(query, &stored, head / heads, visible(row)));
                }
                // The last row's bits are the same when it goes alone.
                if row + 1 == rows {
                    let alone = attention(kernels, &shape, &stored, queries, |_| visible(row));
                    prop_assert_eq!(&out[row * queries.len()..], alone);
                }
            }
            for (got, expected) in out.iter().zip(&expected) {
                prop_assert!((got - expected).abs() <= 2e-3, "{kernels:?} {got} {expected}");
            }
        }
    }
}

/// A sequence in the cache, and its keys and values `[kv_heads, tokens, head_dim]` before they became f16.
struct Stored {
    shape: AttentionShape,
    tokens: usize,
    cache: Vec<f16>,
    table: Vec<u32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

fn attention(
    kernels: KernelChoice,
    shape: &AttentionShape,
    stored: &Stored,
    queries: &[f32],
    visible: impl Fn(usize) -> std::ops::Range<usize> + Sync,
) -> Vec<f32> {
    let rows = AttentionRows {
        queries,
        stride: shape.heads * shape.head_dim,
        view: |row| KvView {
            cache: &stored.cache,
            table: &stored.table,
            first: visible(row).start,
            tokens: visible(row).end,
        },
    };
    let mut out = vec![f32::NAN; queries.len()];
    let groups = &mut QueryGroups::default();
    attend_rows(&mut Pool::new(2), kernels, shape, (&rows, groups), &mut out);
    out
}

/// Stores random keys and values through `rotate_and_store` without turning them, in blocks of descending number.
fn stored_tokens(shape: &AttentionShape, tokens: usize, seed: u64) -> Stored {
    let blocks = tokens.div_ceil(BLOCK_TOKENS);
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    // Unwritten slots hold NaN: whatever reads them shows.
    let mut cache = vec![f16::NAN; blocks * shape.block_elements()];
    let width = shape.head_dim;
    let keys = random(seed, shape.kv_heads * tokens * width);
    let values = random(seed ^ 8, shape.kv_heads * tokens * width);
    let mut projected = Vec::new();
    for token in 0..tokens {
        projected.extend(vec![0.0; shape.heads * width]);
        for all in [&keys, &values] {
            for head in 0..shape.kv_heads {
                projected.extend(&all[(head * tokens + token) * width..][..width]);
            }
        }
    }
    let rows: Vec<KvRow> = (0..tokens)
        .map(|position| KvRow {
            position,
            block: table[position / BLOCK_TOKENS],
        })
        .collect();
    let still = RotaryTable::without_rotation(tokens, width);
    let written = (projected.as_mut_slice(), cache.as_mut_slice());
    rotate_and_store(
        &mut Pool::new(2),
        shape,
        HeadTransform::rotation(&still),
        &rows,
        written,
    );
    Stored {
        shape: *shape,
        tokens,
        cache,
        table,
        keys,
        values,
    }
}

fn plain_attention(
    query: &[f32],
    stored: &Stored,
    kv_head: usize,
    visible: std::ops::Range<usize>,
) -> Vec<f32> {
    let width = query.len();
    let of_head = |all: &'_ [f32]| -> Vec<f32> {
        let start = kv_head * stored.tokens;
        all[(start + visible.start) * width..(start + visible.end) * width].to_vec()
    };
    let (keys, values) = (of_head(&stored.keys), of_head(&stored.values));
    let scores: Vec<f64> = keys
        .chunks_exact(width)
        .map(|key| {
            let terms = key.iter().zip(query);
            let sum: f64 = terms.map(|(k, q)| f64::from(*k) * f64::from(*q)).sum();
            sum * f64::from(stored.shape.scale)
        })
        .collect();
    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..width)
        .map(|element| {
            let column = values.iter().skip(element).step_by(width);
            let sum: f64 = column.zip(&weights).map(|(v, w)| f64::from(*v) * w).sum();
            (sum / total) as f32
        })
        .collect()
}
