//! A weight that is never trained, packed for both directions: forward with `Wᵀ`, backward with `W`.

use engine::{DenseMatrix, KernelChoice, Resolution, ServedMatrix};
use rayon::prelude::*;

/// Most rows of a task: their products stay in the second cache while the weights pass.
const MOST_ROWS: usize = 96;
/// Rows of a task are a multiple of what either kernel takes at once: six and eight.
const ROW_GROUP: usize = 24;
/// Fewest rows of a task that has more to do: each reads the whole matrix.
const FEWEST_ROWS: usize = 24;
/// Tasks per thread, so that no thread waits long for another.
const TASKS_PER_THREAD: usize = 4;

/// A frozen `[outputs, inputs]` matrix.
pub(crate) struct FrozenMatrix {
    inputs: usize,
    outputs: usize,
    forward: Packed,
    backward: Packed,
    kernels: KernelChoice,
}

/// What rows are multiplied with in one direction.
enum Packed {
    Dense(DenseMatrix),
    Served(ServedMatrix, Resolution),
}

impl FrozenMatrix {
    /// Packs row-major values; `served` is the same matrix as serving has it, to go forward with. The way back is by the
    /// transpose in bytes where the rows are not fine, and in f32 otherwise.
    pub(crate) fn new(
        values: &[f32],
        inputs: usize,
        served: Option<(ServedMatrix, Resolution)>,
    ) -> Self {
        let transposed = match served {
            Some((_, resolution @ (Resolution::Coarse | Resolution::Mixed))) => {
                ServedMatrix::transposed(values, inputs).map(|matrix| (matrix, resolution))
            }
            Some((_, Resolution::Fine)) | None => None,
        };
        let packed = |served, dense: fn(&[f32], usize) -> DenseMatrix| match served {
            Some((matrix, resolution)) => Packed::Served(matrix, resolution),
            None => Packed::Dense(dense(values, inputs)),
        };
        Self {
            inputs,
            outputs: values.len() / inputs,
            forward: packed(served, DenseMatrix::new),
            backward: packed(transposed, DenseMatrix::transposed),
            kernels: KernelChoice::best(),
        }
    }

    /// Rows of the matrix.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `output = [output +] rows · Wᵀ` with rows `[rows, inputs]` and output `[rows, outputs]`, on all threads.
    pub(crate) fn forward(&self, rows: &[f32], output: &mut [f32], add: bool) {
        let widths = (self.inputs, self.outputs);
        share(rows, output, widths, |rows, output| {
            self.forward.product(self.kernels, rows, output, add);
        });
    }

    /// `output = [output +] gradient · W` with gradient `[rows, outputs]` and output `[rows, inputs]`, on all threads.
    pub(crate) fn backward(&self, gradient: &[f32], output: &mut [f32], add: bool) {
        let widths = (self.outputs, self.inputs);
        share(gradient, output, widths, |rows, output| {
            self.backward.product(self.kernels, rows, output, add);
        });
    }

    /// `Wᵀ`, `[inputs, outputs]`.
    #[cfg(test)]
    pub(crate) fn transposed_values(&self) -> Vec<f32> {
        let inputs = self.inputs;
        let mut identity = vec![0.0; inputs * inputs];
        (0..inputs).for_each(|index| identity[index * inputs + index] = 1.0);
        let mut values = vec![0.0; inputs * self.outputs];
        self.forward(&identity, &mut values, false);
        values
    }
}

impl Packed {
    /// As [`DenseMatrix::product`].
    fn product(&self, kernels: KernelChoice, rows: &[f32], output: &mut [f32], add: bool) {
        match self {
            Self::Dense(matrix) => matrix.product(kernels, rows, output, add),
            Self::Served(matrix, resolution) => {
                matrix.product((kernels, *resolution), rows, output, add);
            }
        }
    }
}

/// Spreads rows over the threads: `product` gets some rows, `width` values each, and their products.
fn share(
    rows: &[f32],
    output: &mut [f32],
    (width, output_width): (usize, usize),
    product: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let (count, threads) = (rows.len() / width, rayon::current_num_threads());
    let of_task = (count / (TASKS_PER_THREAD * threads))
        .clamp(FEWEST_ROWS, MOST_ROWS)
        .min(count.div_ceil(threads).max(1))
        .next_multiple_of(ROW_GROUP);
    rows.par_chunks(of_task * width)
        .zip(output.par_chunks_mut(of_task * output_width))
        .for_each(|(rows, output)| product(rows, output));
}
