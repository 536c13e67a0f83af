//! Causal attention over paged keys and values: which rows look at what, and sharing the work. The arithmetic of a few
//! queries stands in `online.rs`.

mod online;

use std::array::from_fn;
use std::ops::Range;

use half::f16;

use super::{KernelChoice, Pool, SharedPointer};

use online::Queries;

/// Tokens in one block of the cache.
pub const BLOCK_TOKENS: usize = super::set::LANES;
/// Rows of one sequence that may share a pass over its keys and values.
const MOST_QUERIES: usize = 8;

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

/// The queries of a step's rows.
pub struct AttentionRows<'a, F> {
    /// `[rows, stride]`, of which each row begins with its `[heads, head_dim]` queries.
    pub queries: &'a [f32],
    /// Distance of two rows.
    pub stride: usize,
    /// What a row may look at.
    pub view: F,
}

/// Softmax attention of every row: writes `[rows, heads, head_dim]`.
///
/// Blocks are visited in order with a running maximum (Milakov & Gimelshein 2018, *Online normalizer calculation for
/// softmax*), so a result depends on nothing but the row's position and what stands before it. Rows of one sequence that
/// stand together share their loads of keys and values, not their arithmetic.
///
/// # Panics
///
/// If the shapes do not fit, or a view shows nothing.
pub fn attend_rows<'v, F: Fn(usize) -> KvView<'v> + Sync>(
    pool: &mut Pool,
    kernels: KernelChoice,
    shape: &AttentionShape,
    rows: &AttentionRows<'_, F>,
    out: &mut [f32],
) {
    let width = shape.heads * shape.head_dim;
    let count = out.len() / width;
    assert!(out.len() == count * width && rows.stride >= width);
    assert!(count == 0 || rows.queries.len() >= (count - 1) * rows.stride + width);
    // Small enough to keep all threads busy, large enough to share keys and values where there are many rows.
    let run = (count / (4 * pool.threads())).clamp(1, MOST_QUERIES);
    let out = SharedPointer(out.as_mut_ptr());
    let units = count.div_ceil(run) * shape.kv_heads;
    pool.for_each_chunk(units, 1, |start, end| {
        for unit in start..end {
            let first = unit / shape.kv_heads * run;
            let job = Job {
                kernels,
                shape,
                kv_head: unit % shape.kv_heads,
                rows,
                out: &out,
            };
            job.attend(first..(first + run).min(count));
        }
    });
}

/// Attention of one key head for some rows.
struct Job<'a, F> {
    kernels: KernelChoice,
    shape: &'a AttentionShape,
    kv_head: usize,
    rows: &'a AttentionRows<'a, F>,
    out: &'a SharedPointer,
}

impl<'v, F: Fn(usize) -> KvView<'v>> Job<'_, F> {
    fn attend(&self, mut rows: Range<usize>) {
        let heads = self.shape.heads / self.shape.kv_heads;
        let most = self.kernels.row_group();
        while !rows.is_empty() {
            let view = (self.rows.view)(rows.start);
            let same = |row: &usize| std::ptr::eq((self.rows.view)(*row).table, view.table);
            let run = rows.clone().take_while(same).count();
            let queries = run * heads;
            let mut next = 0;
            while next < queries {
                let count = match queries - next {
                    8.. => most,
                    4..=7 => 4,
                    remaining => remaining,
                };
                match count {
                    8 => self.queries::<8>(&view, rows.start, next),
                    4 => self.queries::<4>(&view, rows.start, next),
                    3 => self.queries::<3>(&view, rows.start, next),
                    2 => self.queries::<2>(&view, rows.start, next),
                    _ => self.queries::<1>(&view, rows.start, next),
                }
                next += count;
            }
            rows.start += run;
        }
    }

    /// Queries `next..next + COUNT` of the rows from `first` on, the query heads of this key head counted row after row.
    fn queries<const COUNT: usize>(&self, view: &KvView<'_>, first: usize, next: usize) {
        let heads = self.shape.heads / self.shape.kv_heads;
        let width = self.shape.head_dim;
        let place = |index: usize| {
            let (row, head) = (first + (next + index) / heads, (next + index) % heads);
            (row, (self.kv_head * heads + head) * width)
        };
        let queries = Queries::<COUNT> {
            shape: self.shape,
            view,
            kv_head: self.kv_head,
            queries: from_fn(|index| {
                let (row, at) = place(index);
                let start = row * self.rows.stride + at;
                &self.rows.queries[start..start + width]
            }),
            visible: from_fn(|index| {
                let view = (self.rows.view)(place(index).0);
                assert!(view.first < view.tokens);
                view.first..view.tokens
            }),
            out: from_fn(|index| {
                let (row, at) = place(index);
                let start = row * self.shape.heads * width + at;
                // SAFETY: the row and head lie inside the buffer (`attend_rows` checked its length), and each pair of
                // them belongs to one query of one unit of work.
                unsafe { std::slice::from_raw_parts_mut(self.out.get().add(start), width) }
            }),
        };
        self.kernels.run(queries);
    }
}
