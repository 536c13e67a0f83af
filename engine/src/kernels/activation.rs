//! Rows of activations as the quantised products take them: blocks of 32 signed bytes with a scale each.
//!
//! One byte for a value leaves an error of up to 1/254 of the block's largest value. A second byte keeps what the first
//! one lost, about 15 bits in all. Most of the error comes from few blocks: those that hold one of the outliers of which
//! the residual stream of language models has some, and whose other values one byte leaves next to nothing.
//! `cargo test -p engine bytes_of_activations -- --nocapture` prints what each resolution does to the default base's
//! log-probabilities.

use super::packed::BLOCK;
use super::set::{KernelSet, LANES, Operation};
use super::{KernelChoice, Pool, SharedPointer};

/// How closely quantised rows follow their values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resolution {
    /// One byte a value, `scale · coarse`: the fastest, with visible rounding.
    Coarse,
    /// Two bytes in blocks with an outlier, one in the others: nearly as fast, most of the rounding gone.
    #[default]
    Mixed,
    /// Two bytes a value, `scale · (coarse + fine / 254)`: the rounding disappears beside that of the weights.
    Fine,
}

impl Resolution {
    /// From coarse to fine.
    pub const ALL: [Self; 3] = [Self::Coarse, Self::Mixed, Self::Fine];
}

/// Blocks whose largest magnitude is over this many times the root mean square of their row keep a second byte at mixed
/// resolution. Of ten prompts' blocks that is every fifth, and keeping more makes next to no difference.
const OUTLIER: f32 = 4.0;

/// What one step of a coarse quant is in steps of a fine one: fine quants reach ±127 at half a coarse step.
/// [`KernelSet::combine`] has it built in.
const FINE_STEPS: f32 = 254.0;

/// Quantised rows; a row's values depend on that row alone.
///
/// A value is `unit · quant`, where `quant` is the coarse byte, or `254 · coarse + fine` in blocks that have both.
pub struct QuantizedRows {
    pub(super) rows: usize,
    pub(super) blocks: usize,
    pub(super) resolution: Resolution,
    /// `[rows, inputs]`.
    pub(super) coarse: Vec<i8>,
    /// `[rows, inputs]`; only kept up in blocks that have it.
    pub(super) fine: Vec<i8>,
    /// `[rows, blocks]`.
    pub(super) scales: Vec<BlockScale>,
}

/// What a product needs of a block of activations beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct BlockScale {
    /// What one step of a quant stands for.
    pub(super) unit: f32,
    /// The sum of the block's values, which multiplies the weights' minimum.
    pub(super) sum: f32,
    /// Sums of the quants of either half of the block, which multiply the weights' offset.
    pub(super) quants: [i32; 2],
    /// Whether the block has a second byte.
    pub(super) fine: bool,
}

/// One row while it is quantised.
struct RowQuants<'a> {
    values: &'a [f32],
    coarse: &'a mut [i8],
    /// `None` at coarse resolution.
    fine: Option<&'a mut [i8]>,
    scales: &'a mut [BlockScale],
    resolution: Resolution,
}

impl QuantizedRows {
    /// No rows yet.
    pub fn new(resolution: Resolution) -> Self {
        Self {
            rows: 0,
            blocks: 0,
            resolution,
            coarse: Vec::new(),
            fine: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Fills every row of row-major `[rows, inputs]` floats by `fill(row, out)` and quantises it, rows shared among the
    /// pool's threads. A width that is no multiple of 32 is left unquantised: no quantised matrix has such inputs.
    pub fn produce<F>(
        &mut self,
        pool: &mut Pool,
        kernels: KernelChoice,
        (floats, inputs): (&mut [f32], usize),
        fill: F,
    ) where
        F: Fn(usize, &mut [f32]) + Sync,
    {
        self.rows = floats.len() / inputs;
        self.blocks = inputs / BLOCK;
        let (rows, blocks) = (self.rows, self.blocks);
        self.scales.resize(rows * blocks, BlockScale::default());
        self.coarse.resize(rows * blocks * BLOCK, 0);
        let coarse = Rows(self.coarse.as_mut_ptr());
        let resolution = self.resolution;
        let fine = (resolution != Resolution::Coarse).then(|| {
            self.fine.resize(rows * blocks * BLOCK, 0);
            Rows(self.fine.as_mut_ptr())
        });
        let scales = Rows(self.scales.as_mut_ptr());
        let floats = SharedPointer(floats.as_mut_ptr());
        let grain = if rows <= 4 { 4 } else { rows.div_ceil(16) };
        pool.for_each_chunk(rows, grain, |start, end| {
            for row in start..end {
                // SAFETY: each row is given to one thread only and its ranges lie inside the buffers, whose sizes were
                // taken or set above.
                let floats = unsafe {
                    std::slice::from_raw_parts_mut(floats.get().add(row * inputs), inputs)
                };
                fill(row, floats);
                if !inputs.is_multiple_of(BLOCK) {
                    continue;
                }
                // SAFETY: as above.
                kernels.run(unsafe {
                    RowQuants {
                        values: floats,
                        coarse: coarse.row(row, inputs),
                        fine: fine.as_ref().map(|fine| fine.row(row, inputs)),
                        scales: scales.row(row, blocks),
                        resolution,
                    }
                });
            }
        });
    }
}

impl Operation for RowQuants<'_> {
    type Output = ();

    /// Blocks of 32: the largest magnitude becomes 127, quants are rounded to nearest, ties to even.
    #[inline(always)]
    fn run<S: KernelSet>(mut self, set: S) {
        let blocks = self.values.as_chunks::<LANES>().0.as_chunks::<2>().0;
        let coarse = self.coarse.as_chunks_mut::<LANES>().0;
        let coarse = coarse.as_chunks_mut::<2>().0;
        let outlier = match self.resolution {
            Resolution::Mixed => OUTLIER * root_mean_square(set, self.values),
            Resolution::Coarse | Resolution::Fine => 0.0,
        };
        for (block, values) in blocks.iter().enumerate() {
            let values = [set.load(&values[0]), set.load(&values[1])];
            let largest = set.largest(set.max(set.abs(values[0]), set.abs(values[1])));
            let inverse = set.splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            let has_fine = largest > outlier;
            let mut unit = largest / 127.0;
            let mut sums = [0; 2];
            for half in 0..2 {
                let scaled = set.mul(values[half], inverse);
                let rounded = set.round(scaled);
                set.store_bytes(rounded, &mut coarse[block][half]);
                sums[half] = set.sum_ints(rounded);
                if let Some(fine) = &mut self.fine
                    && has_fine
                {
                    let lost = set.sub(scaled, set.to_floats(rounded));
                    let lost = set.round(set.mul(lost, set.splat(FINE_STEPS)));
                    let fine = &mut fine.as_chunks_mut::<LANES>().0[block * 2 + half];
                    set.store_bytes(lost, fine);
                    sums[half] = FINE_STEPS as i32 * sums[half] + set.sum_ints(lost);
                }
            }
            let has_fine = has_fine && self.fine.is_some();
            if has_fine {
                unit /= FINE_STEPS;
            }
            self.scales[block] = BlockScale {
                unit,
                sum: unit * (sums[0] + sums[1]) as f32,
                quants: sums,
                fine: has_fine,
            };
        }
    }
}

#[inline(always)]
fn root_mean_square<S: KernelSet>(set: S, values: &[f32]) -> f32 {
    let mut squares = set.splat(0.0);
    for values in values.as_chunks::<LANES>().0 {
        let values = set.load(values);
        squares = set.fma(values, values, squares);
    }
    (set.sum(squares) / values.len() as f32).sqrt()
}

/// A row-major buffer whose rows go to different threads.
struct Rows<T>(*mut T);

// SAFETY: `produce` gives every row to one thread and joins them before the buffer is read.
unsafe impl<T: Send> Sync for Rows<T> {}

impl<T> Rows<T> {
    /// # Safety
    ///
    /// Row `row` of `width` elements lies inside the buffer and no one else has it.
    #[expect(clippy::mut_from_ref, reason = "the pointer stands for disjoint rows")]
    unsafe fn row(&self, row: usize, width: usize) -> &mut [T] {
        // SAFETY: by the contract of this function.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(row * width), width) }
    }
}
