//! Rows of activations as the quantised products take them: blocks of 32 signed bytes with a scale each.

use super::packed::BLOCK;
use super::{KernelChoice, Pool, SharedPointer, portable};

/// Quantised rows; a row's values depend on that row alone.
#[derive(Default)]
pub struct QuantizedRows {
    pub(super) rows: usize,
    pub(super) blocks: usize,
    /// `[rows, inputs]`, value = `scale · quant`.
    pub(super) quants: Vec<i8>,
    /// `[rows, blocks]`, largest magnitude of the block / 127.
    pub(super) scales: Vec<f32>,
    /// `[rows, blocks]`, sum of the block's quants; multiplies the minimum of Q4 and the offset of Q8.
    pub(super) sums: Vec<i32>,
}

impl QuantizedRows {
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
        self.quants.resize(rows * blocks * BLOCK, 0);
        self.scales.resize(rows * blocks, 0.0);
        self.sums.resize(rows * blocks, 0);
        let floats = SharedPointer(floats.as_mut_ptr());
        let quants = Rows(self.quants.as_mut_ptr());
        let scales = Rows(self.scales.as_mut_ptr());
        let sums = Rows(self.sums.as_mut_ptr());
        let grain = if rows <= 4 { 4 } else { rows.div_ceil(16) };
        pool.for_each_chunk(rows, grain, |start, end| {
            for row in start..end {
                // SAFETY: each row is given to one thread only and its ranges lie inside the buffers, whose sizes were
                // taken or set above.
                let (floats, quants, scales, sums) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(floats.get().add(row * inputs), inputs),
                        quants.row(row, blocks * BLOCK),
                        scales.row(row, blocks),
                        sums.row(row, blocks),
                    )
                };
                fill(row, floats);
                if inputs.is_multiple_of(BLOCK) {
                    quantize_row(kernels, floats, quants, scales, sums);
                }
            }
        });
    }
}

fn quantize_row(
    kernels: KernelChoice,
    values: &[f32],
    quants: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    match kernels {
        KernelChoice::Portable => portable::quantize_row(values, quants, scales, sums),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
        KernelChoice::Avx512Vnni => unsafe {
            super::avx512::quantize_row(values, quants, scales, sums);
        },
        #[cfg(not(target_arch = "x86_64"))]
        KernelChoice::Avx512Vnni => portable::quantize_row(values, quants, scales, sums),
    }
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
