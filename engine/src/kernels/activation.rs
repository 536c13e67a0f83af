//! Rows of activations as the quantised products take them: blocks of 32 signed bytes with a scale each.
//!
//! One byte for a value leaves an error of up to 1/254 of the block's largest value. A second byte keeps what the first
//! one lost, about 15 bits in all; `cargo test -p engine a_second_byte -- --nocapture` prints what either does to the
//! default base's log-probabilities.

use super::packed::BLOCK;
use super::{KernelChoice, Pool, SharedPointer, portable};

/// How closely quantised rows follow their values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resolution {
    /// One byte a value, `scale · coarse`: faster, with visible rounding.
    Coarse,
    /// Two bytes a value, `scale · (coarse + fine / 254)`: the rounding disappears beside that of the weights.
    #[default]
    Fine,
}

/// What one step of a coarse quant is in steps of a fine one: fine quants reach ±127 at half a coarse step.
pub(super) const FINE_STEPS: f32 = 254.0;

/// Quantised rows; a row's values depend on that row alone.
pub struct QuantizedRows {
    pub(super) rows: usize,
    pub(super) blocks: usize,
    pub(super) resolution: Resolution,
    /// `[rows, inputs]`.
    pub(super) coarse: Quants,
    /// `[rows, inputs]`; only kept up at fine resolution.
    pub(super) fine: Quants,
    /// `[rows, blocks]`, largest magnitude of the block / 127.
    pub(super) scales: Vec<f32>,
}

/// Signed bytes and their sums by block; the sums multiply the minimum of Q4 and the offset of Q8.
#[derive(Default)]
pub(super) struct Quants {
    /// `[rows, inputs]`.
    pub(super) values: Vec<i8>,
    /// `[rows, blocks]`.
    pub(super) sums: Vec<i32>,
}

/// One row while it is quantised.
pub(super) struct RowQuants<'a> {
    pub(super) coarse: (&'a mut [i8], &'a mut [i32]),
    /// Set at fine resolution.
    pub(super) fine: Option<(&'a mut [i8], &'a mut [i32])>,
    pub(super) scales: &'a mut [f32],
}

impl QuantizedRows {
    /// No rows yet.
    pub fn new(resolution: Resolution) -> Self {
        Self {
            rows: 0,
            blocks: 0,
            resolution,
            coarse: Quants::default(),
            fine: Quants::default(),
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
        self.scales.resize(rows * blocks, 0.0);
        let coarse = self.coarse.shared_rows(rows, blocks);
        let fine =
            (self.resolution == Resolution::Fine).then(|| self.fine.shared_rows(rows, blocks));
        let scales = Rows(self.scales.as_mut_ptr());
        let floats = SharedPointer(floats.as_mut_ptr());
        let grain = if rows <= 4 { 4 } else { rows.div_ceil(16) };
        pool.for_each_chunk(rows, grain, |start, end| {
            for row in start..end {
                // SAFETY: each row is given to one thread only and its ranges lie inside the buffers, whose sizes were
                // taken or set above.
                let (floats, quants) = unsafe {
                    let floats = floats.get().add(row * inputs);
                    let quants = RowQuants {
                        coarse: coarse.row(row, blocks),
                        fine: fine.as_ref().map(|fine| fine.row(row, blocks)),
                        scales: scales.row(row, blocks),
                    };
                    (std::slice::from_raw_parts_mut(floats, inputs), quants)
                };
                fill(row, floats);
                if inputs.is_multiple_of(BLOCK) {
                    quantize_row(kernels, floats, quants);
                }
            }
        });
    }
}

fn quantize_row(kernels: KernelChoice, values: &[f32], quants: RowQuants<'_>) {
    match kernels {
        KernelChoice::Portable => portable::quantize_row(values, quants),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
        KernelChoice::Avx512Vnni => unsafe { super::avx512::quantize_row(values, quants) },
        #[cfg(not(target_arch = "x86_64"))]
        KernelChoice::Avx512Vnni => portable::quantize_row(values, quants),
    }
}

impl Quants {
    fn shared_rows(&mut self, rows: usize, blocks: usize) -> SharedQuants {
        self.values.resize(rows * blocks * BLOCK, 0);
        self.sums.resize(rows * blocks, 0);
        SharedQuants {
            values: Rows(self.values.as_mut_ptr()),
            sums: Rows(self.sums.as_mut_ptr()),
        }
    }
}

struct SharedQuants {
    values: Rows<i8>,
    sums: Rows<i32>,
}

impl SharedQuants {
    /// # Safety
    ///
    /// Row `row` of `blocks` blocks lies inside the buffers and no one else has it.
    #[expect(clippy::mut_from_ref, reason = "the pointers stand for disjoint rows")]
    unsafe fn row(&self, row: usize, blocks: usize) -> (&mut [i8], &mut [i32]) {
        // SAFETY: by the contract of this function.
        unsafe {
            (
                self.values.row(row, blocks * BLOCK),
                self.sums.row(row, blocks),
            )
        }
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
