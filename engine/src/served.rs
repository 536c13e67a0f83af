//! Matrices as serving multiplies with them, for products outside a step: training goes forward with those of the model's
//! file, and back with their transposes.

use std::cell::RefCell;

use crate::error::LoadError;
use crate::gguf::GgufFile;
use crate::kernels::{
    Arena, BLOCK, BatchRows, KernelChoice, PackedMatrix, Pool, ProjectionOutput, QuantizedRows,
    Resolution, project,
};
use crate::packing::{PackedLayer, Packer};
use crate::source::TensorReader;

/// A matrix packed as serving packs it, in the types of its file where it comes from one.
pub struct ServedMatrix(PackedMatrix);

/// Every matrix of a model that multiplies rows.
pub struct ServedWeights {
    /// Per layer: query, key and value below each other; attention's output; gate and up; down.
    pub layers: Vec<[ServedMatrix; 4]>,
    /// `[vocabulary, hidden]`, the embedding where they are tied.
    pub head: ServedMatrix,
}

/// What a thread needs for its products, kept from one to the next.
struct Scratch {
    pool: Pool,
    rows: Vec<f32>,
    quantized: QuantizedRows,
    reduced: Vec<f32>,
}

impl ServedWeights {
    /// Packs the matrices of a GGUF file on `threads` threads.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_gguf(file: &GgufFile, threads: usize) -> Result<Self, LoadError> {
        let config = file.config()?;
        let packer = Packer {
            reader: TensorReader::of_gguf(file, &config),
            config: &config,
            dense: false,
            arena: Arena::default(),
        };
        let packed = packer.pack(threads)?;
        let matrices = |layer: PackedLayer| {
            [
                ServedMatrix(layer.query_key_value),
                ServedMatrix(layer.output),
                ServedMatrix(layer.gate_up),
                ServedMatrix(layer.down),
            ]
        };
        Ok(Self {
            layers: packed.layers.into_iter().map(matrices).collect(),
            head: ServedMatrix(packed.head),
        })
    }
}

impl ServedMatrix {
    /// The transpose of row-major `values`, `[inputs, outputs]`, in Q8_0, or `None` where `inputs` is no multiple of 32: the
    /// product of rows `x` is `x · values` but for the rounding.
    ///
    /// # Panics
    /// When `values` is not a multiple of `outputs`.
    pub fn transposed(values: &[f32], outputs: usize) -> Option<Self> {
        let inputs = values.len() / outputs.max(1);
        assert_eq!(values.len(), outputs * inputs, "a matrix has whole rows");
        let whole_blocks = inputs > 0 && inputs.is_multiple_of(BLOCK);
        whole_blocks.then(|| Self(PackedMatrix::transposed_as_q8(values, outputs)))
    }

    /// Values per row of what is multiplied.
    pub fn inputs(&self) -> usize {
        self.0.inputs()
    }

    /// Values per row of a product.
    pub fn outputs(&self) -> usize {
        self.0.outputs()
    }

    /// The products of `rows`, `[rows, inputs]`, in `output`, `[rows, outputs]`, added to what is there or in its place; rows
    /// meet quantised weights at the given resolution. On the calling thread; rows do not depend on each other.
    ///
    /// # Panics
    /// When the shapes do not chain.
    pub fn product(
        &self,
        (kernels, resolution): (KernelChoice, Resolution),
        rows: &[f32],
        output: &mut [f32],
        add: bool,
    ) {
        thread_local! {
            static SCRATCH: RefCell<Option<(Resolution, Scratch)>> = const { RefCell::new(None) };
        }
        let count = rows.len() / self.inputs();
        assert_eq!(
            rows.len(),
            count * self.inputs(),
            "whole rows are multiplied"
        );
        assert_eq!(output.len(), count * self.outputs(), "a product per row");
        SCRATCH.with_borrow_mut(|kept| {
            if kept.as_ref().is_none_or(|(own, _)| *own != resolution) {
                *kept = Some((resolution, Scratch::new(resolution)));
            }
            let Some((_, scratch)) = kept else { return };
            scratch.rows.clear();
            scratch.rows.extend_from_slice(rows);
            scratch.quantized.produce(
                &mut scratch.pool,
                kernels,
                (&mut scratch.rows, self.inputs()),
                |_, _| {},
            );
            let input = BatchRows::new(&scratch.rows, &scratch.quantized);
            let output = match add {
                true => ProjectionOutput::adding(output, &mut scratch.reduced),
                false => ProjectionOutput::replacing(output, &mut scratch.reduced),
            };
            project(&mut scratch.pool, kernels, &self.0, input, (&[], output));
        });
    }
}

impl Scratch {
    fn new(resolution: Resolution) -> Self {
        Self {
            pool: Pool::new(1),
            rows: Vec::new(),
            quantized: QuantizedRows::new(resolution),
            reduced: Vec::new(),
        }
    }
}
