//! Causal attention over paged keys and values: which rows look at what, and sharing the work. The arithmetic of a few
//! queries stands in `online.rs`.

mod online;

use half::f16;
use std::array::from_fn;

use super::{KernelChoice, Pool, SharedPointer};

use online::Queries;

/// Tokens in one block of the cache.
pub const BLOCK_TOKENS: usize = super::set::LANES;

/// Units of work that a thread takes at a time at most: contexts differ in length.
const UNITS: usize = 4;

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

/// Which queries share a pass over the keys and values of a key head; scratch that is kept between calls.
#[derive(Default)]
pub struct QueryGroups(Vec<QueryGroup>);

/// Some queries of one key head, the query heads of which are counted row after row from `row` on.
#[derive(Clone, Copy)]
struct QueryGroup {
    row: usize,
    first: usize,
    count: usize,
}

impl QueryGroups {
    /// Groups the queries of `rows` rows with `heads` query heads for a key head; rows with one table stand together.
    fn fill<'v>(
        &mut self,
        (rows, heads, most): (usize, usize, usize),
        view: impl Fn(usize) -> KvView<'v>,
    ) {
        self.0.clear();
        let mut row = 0;
        while row < rows {
            let table = view(row).table;
            let same = |other: &usize| std::ptr::eq(view(*other).table, table);
            let run = (row..rows).take_while(same).count();
            let mut first = 0;
            while first < run * heads {
                let count = match run * heads - first {
                    remaining if remaining >= most => most,
                    4.. => 4,
                    remaining => remaining,
                };
                self.0.push(QueryGroup { row, first, count });
                first += count;
            }
            row += run;
        }
    }
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
    (rows, groups): (&AttentionRows<'_, F>, &mut QueryGroups),
    out: &mut [f32],
) {
    let width = shape.heads * shape.head_dim;
    let count = out.len() / width;
    assert!(out.len() == count * width && rows.stride >= width);
    assert!(count == 0 || rows.queries.len() >= (count - 1) * rows.stride + width);
    let heads = shape.heads / shape.kv_heads;
    groups.fill((count, heads, kernels.query_group()), &rows.view);
    let groups = groups.0.as_slice();
    let out = SharedPointer(out.as_mut_ptr());
    // Neighbours look at the same head, whose keys and values may still be in the cache of the core.
    pool.for_each_run(groups.len() * shape.kv_heads, UNITS, |start, end| {
        for unit in start..end {
            let job = Job {
                kernels,
                shape,
                kv_head: unit / groups.len(),
                rows,
                out: &out,
            };
            job.attend(groups[unit % groups.len()]);
        }
    });
}

/// Attention of one key head for some queries.
struct Job<'a, F> {
    kernels: KernelChoice,
    shape: &'a AttentionShape,
    kv_head: usize,
    rows: &'a AttentionRows<'a, F>,
    out: &'a SharedPointer,
}

impl<'v, F: Fn(usize) -> KvView<'v>> Job<'_, F> {
    fn attend(&self, group: QueryGroup) {
        let view = (self.rows.view)(group.row);
        match group.count {
            8 => self.queries::<8>(&view, group.row, group.first),
            4 => self.queries::<4>(&view, group.row, group.first),
            3 => self.queries::<3>(&view, group.row, group.first),
            2 => self.queries::<2>(&view, group.row, group.first),
            _ => self.queries::<1>(&view, group.row, group.first),
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
