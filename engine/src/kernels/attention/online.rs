//! Attention of a few queries over the blocks of one sequence, in one pass with a running maximum.
//!
//! A query's operations and their order depend on what it sees alone. Queries that see all of a block share its pass;
//! where one sees a part only, at the end or at the edge of its window, each goes by itself.

use std::ops::Range;

use half::f16;

use super::{AttentionShape, BLOCK_TOKENS, KvView};
use crate::kernels::elementwise::exponential;
use crate::kernels::prefetch::prefetch;
use crate::kernels::set::{KernelSet, LANES, Operation};

/// Queries of one key head over one sequence, with the tokens each sees and where its result goes.
pub(super) struct Queries<'a, const COUNT: usize> {
    pub(super) shape: &'a AttentionShape,
    /// The cache and the blocks of the sequence.
    pub(super) view: &'a KvView<'a>,
    pub(super) kv_head: usize,
    pub(super) queries: [&'a [f32]; COUNT],
    pub(super) visible: [Range<usize>; COUNT],
    pub(super) out: [&'a mut [f32]; COUNT],
}

/// A query's state between blocks; its weighted values are in `out`.
#[derive(Clone, Copy)]
struct Running {
    largest: f32,
    total: f32,
    /// What earlier weights are multiplied by since the maximum of this block.
    correction: f32,
    weights: [f32; LANES],
}

impl<const COUNT: usize> Operation for Queries<'_, COUNT> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(mut self, set: S) {
        let mut running = [Running {
            largest: f32::NEG_INFINITY,
            total: 0.0,
            correction: 0.0,
            weights: [0.0; LANES],
        }; COUNT];
        let (mut start, mut end) = (usize::MAX, 0);
        for (visible, out) in self.visible.iter().zip(&mut self.out) {
            (start, end) = (start.min(visible.start), end.max(visible.end));
            out.fill(0.0);
        }
        let end = end.div_ceil(BLOCK_TOKENS);
        for index in start / BLOCK_TOKENS..end {
            let (keys, values) = self.block(index);
            let following = if index + 1 < end {
                self.block(index + 1)
            } else {
                Default::default()
            };
            let scores = self.scores(set, keys, following);
            let mut all_see_all = true;
            for query in 0..COUNT {
                let slots = slots(&self.visible[query], index);
                all_see_all &= slots.len() == BLOCK_TOKENS;
                weigh(set, &mut running[query], scores[query], slots);
            }
            if all_see_all {
                add_values(set, values, 0..BLOCK_TOKENS, (&running, &mut self.out));
                continue;
            }
            for query in 0..COUNT {
                let slots = slots(&self.visible[query], index);
                if !slots.is_empty() {
                    let running = std::array::from_ref(&running[query]);
                    let out = std::array::from_mut(&mut self.out[query]);
                    add_values(set, values, slots, (running, out));
                }
            }
        }
        for (running, out) in running.iter().zip(&mut self.out) {
            let inverse = 1.0 / running.total;
            for out in out.iter_mut() {
                *out *= inverse;
            }
        }
    }
}

impl<'a, const COUNT: usize> Queries<'a, COUNT> {
    /// Keys and values of block `index` of the sequence.
    #[inline(always)]
    fn block(&self, index: usize) -> (&'a [f16], &'a [f16]) {
        let (view, block) = (self.view, self.view.table[index] as usize);
        (
            view.keys(self.shape, block, self.kv_head),
            view.values(self.shape, block, self.kv_head),
        )
    }

    /// Scores of a block's tokens for each query; those of tokens not written yet are anything. Meanwhile the block that
    /// follows, if any, is fetched.
    #[inline(always)]
    fn scores<S: KernelSet>(
        &self,
        set: S,
        keys: &[f16],
        following: (&[f16], &[f16]),
    ) -> [S::Floats; COUNT] {
        let keys = keys.as_chunks::<LANES>().0;
        let next_keys = following.0.as_chunks::<LANES>().0;
        let next_values = following.1.as_chunks::<LANES>().0;
        // Even and odd elements are summed apart, so that one addition need not wait for the last.
        let mut sums = [[set.splat(0.0); COUNT]; 2];
        let scale = set.splat(self.shape.scale);
        // Lets the compiler leave out a check for each product.
        for query in &self.queries {
            assert_eq!(query.len(), keys.len());
        }
        let mut first = 0;
        while first + 1 < keys.len() {
            if let Some(next) = next_keys.get(first..first + 2) {
                prefetch(next);
            }
            if let Some(next) = next_values.get(first..first + 2) {
                prefetch(next);
            }
            for step in 0..2 {
                let keys = set.load_f16(&keys[first + step]);
                for (sum, query) in sums[step].iter_mut().zip(&self.queries) {
                    *sum = set.fma(set.splat(query[first + step]), keys, *sum);
                }
            }
            first += 2;
        }
        let [mut sums, others] = sums;
        for query in 0..COUNT {
            if first < keys.len() {
                let element = set.splat(self.queries[query][first]);
                sums[query] = set.fma(element, set.load_f16(&keys[first]), sums[query]);
            }
            sums[query] = set.mul(set.add(sums[query], others[query]), scale);
        }
        sums
    }
}

/// The slots of block `index` that are visible.
#[inline(always)]
fn slots(visible: &Range<usize>, index: usize) -> Range<usize> {
    let start = index * BLOCK_TOKENS;
    let inside = |token: usize| token.saturating_sub(start).min(BLOCK_TOKENS);
    inside(visible.start)..inside(visible.end)
}

/// Turns scores of the given slots into weights, relative to the largest score so far.
#[inline(always)]
fn weigh<S: KernelSet>(set: S, running: &mut Running, scores: S::Floats, slots: Range<usize>) {
    if slots.is_empty() {
        return;
    }
    let mut scores = scores;
    let partial = slots.len() < BLOCK_TOKENS;
    if partial {
        let mut lanes = [0.0; LANES];
        set.store(scores, &mut lanes);
        lanes[..slots.start].fill(f32::NEG_INFINITY);
        lanes[slots.end..].fill(f32::NEG_INFINITY);
        scores = set.load(&lanes);
    }
    let largest = running.largest.max(set.largest(scores));
    // Most blocks bring no new maximum, and 1 is what the exponential of 0 is.
    running.correction = if largest > running.largest {
        (running.largest - largest).exp()
    } else {
        1.0
    };
    running.largest = largest;
    let weights = exponential(set, set.sub(scores, set.splat(largest)));
    set.store(weights, &mut running.weights);
    let mut weights = weights;
    if partial {
        // The exponential has a floor above 0.
        running.weights[..slots.start].fill(0.0);
        running.weights[slots.end..].fill(0.0);
        weights = set.load(&running.weights);
    }
    running.total = running.total * running.correction + set.sum(weights);
}

/// `out = out · correction + Σ weight · value` over some slots, for each query.
#[inline(always)]
fn add_values<S: KernelSet, const COUNT: usize>(
    set: S,
    values: &[f16],
    slots: Range<usize>,
    (running, out): (&[Running; COUNT], &mut [&mut [f32]; COUNT]),
) {
    if !values.len().is_multiple_of(LANES * BLOCK_TOKENS) {
        return add_ragged(values, slots, (running, out));
    }
    let values = values.as_chunks::<LANES>().0;
    let vectors = values.len() / BLOCK_TOKENS;
    let mut vector = 0;
    // As many accumulators as fit the registers.
    if COUNT <= 4 && S::EIGHT_ROWS {
        while vector + 4 <= vectors {
            let at = (vector, vectors);
            add_vectors::<S, COUNT, 4>(set, (values, at), slots.clone(), (running, out));
            vector += 4;
        }
    }
    while vector + 2 <= vectors {
        let at = (vector, vectors);
        add_vectors::<S, COUNT, 2>(set, (values, at), slots.clone(), (running, out));
        vector += 2;
    }
    if vector < vectors {
        let at = (vector, vectors);
        add_vectors::<S, COUNT, 1>(set, (values, at), slots, (running, out));
    }
}

/// The same for elements `16 · first..16 · (first + WIDTH)` of the head.
#[inline(always)]
fn add_vectors<S: KernelSet, const COUNT: usize, const WIDTH: usize>(
    set: S,
    (values, (first, vectors)): (&[[f16; LANES]], (usize, usize)),
    slots: Range<usize>,
    (running, out): (&[Running; COUNT], &mut [&mut [f32]; COUNT]),
) {
    let mut totals = [[set.splat(0.0); WIDTH]; COUNT];
    for query in 0..COUNT {
        let out = &out[query].as_chunks::<LANES>().0[first..first + WIDTH];
        let correction = set.splat(running[query].correction);
        for vector in 0..WIDTH {
            totals[query][vector] = set.mul(set.load(&out[vector]), correction);
        }
    }
    for slot in slots {
        let values = &values[slot * vectors + first..slot * vectors + first + WIDTH];
        for vector in 0..WIDTH {
            let value = set.load_f16(&values[vector]);
            for query in 0..COUNT {
                let weight = set.splat(running[query].weights[slot]);
                totals[query][vector] = set.fma(weight, value, totals[query][vector]);
            }
        }
    }
    for query in 0..COUNT {
        let out = &mut out[query].as_chunks_mut::<LANES>().0[first..first + WIDTH];
        for vector in 0..WIDTH {
            set.store(totals[query][vector], &mut out[vector]);
        }
    }
}

/// The same for heads that are not whole vectors wide.
fn add_ragged<const COUNT: usize>(
    values: &[f16],
    slots: Range<usize>,
    (running, out): (&[Running; COUNT], &mut [&mut [f32]; COUNT]),
) {
    let width = values.len() / BLOCK_TOKENS;
    for (running, out) in running.iter().zip(out) {
        for out in out.iter_mut() {
            *out *= running.correction;
        }
        for slot in slots.clone() {
            for (out, value) in out.iter_mut().zip(&values[slot * width..]) {
                *out += running.weights[slot] * value.to_f32();
            }
        }
    }
}
