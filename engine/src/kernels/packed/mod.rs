//! Weight matrices in the order the products read them: tiles of 16 output rows.
//!
//! Rows of one stored type make a section, so a stack of matrices of several types keeps each as it is. Q4_0, Q4_1, Q5_0,
//! Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, F16, BF16 and F32 keep their size; every other type is dequantised to f32.

mod line;
mod reduction;
mod stored;
pub(super) mod tiles;

use std::ops::Range;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::arena::{Arena, ArenaVec};
use super::prefetch::prefetch_beginning;
use crate::gguf::RawTensor;

pub(super) use line::ByteLine;
pub use reduction::PackedReduction;
pub(super) use reduction::{RANKS, ReductionValues};
use stored::{interleave, pack_q8, pack_rows, q8_row};
use tiles::{Tile, TileQ4, TileQ4K, TileQ5, TileQ5K, TileQ6K, TileQ8};

/// Output rows of a tile; sections are padded with zero rows to a multiple of it.
pub const TILE_ROWS: usize = super::set::LANES;
/// Inputs of a block, which quantised activations share a scale in.
pub(crate) const BLOCK: usize = 32;

/// The tiles of a section, 16 output rows after another, each over all inputs.
pub(super) enum Tiles {
    Q4(ArenaVec<TileQ4>),
    Q5(ArenaVec<TileQ5>),
    Q8(ArenaVec<TileQ8>),
    Q4K(ArenaVec<TileQ4K>),
    Q5K(ArenaVec<TileQ5K>),
    Q6K(ArenaVec<TileQ6K>),
    /// `[outputs / 16][inputs][16]`.
    F32(ArenaVec<f32>),
    /// `[outputs / 16][inputs][16]`.
    F16(ArenaVec<f16>),
    /// `[outputs / 16][inputs][16]`.
    Bf16(ArenaVec<bf16>),
    /// `[outputs / 16][inputs]`.
    Bytes(ArenaVec<ByteLine>),
}

/// A weight matrix ready for [`super::project`].
pub struct PackedMatrix {
    sections: Vec<Section>,
    outputs: usize,
    inputs: usize,
    tile_count: usize,
}

/// Rows of one type that stand together.
struct Section {
    tiles: Tiles,
    first_output: usize,
    outputs: usize,
    first_tile: usize,
}

/// Tiles of one section that follow each other, and the output columns they compute.
pub(super) struct TileRun<'a> {
    pub(super) tiles: &'a Tiles,
    /// Numbers of the run's tiles in `tiles`.
    pub(super) indices: Range<usize>,
    pub(super) inputs: usize,
    pub(super) first_output: usize,
    /// Columns of all the tiles; the rest of the last one is padding.
    pub(super) outputs: usize,
}

/// A matrix to stack: its stored rows, and which of them each row is where they are permuted.
type Part<'a> = (RawTensor<'a>, Option<Vec<usize>>);

/// Why a stored matrix cannot be packed.
#[derive(Debug, thiserror::Error)]
#[error("cannot pack a {rows} × {columns} matrix of {dtype:?}: {reason}")]
pub struct PackError {
    rows: usize,
    columns: usize,
    dtype: GgmlDType,
    reason: String,
}

impl PackedMatrix {
    /// Packs the rows of `parts` into `arena`, one matrix below the other; `order[i]` of each part is the stored row of its
    /// row `i`.
    ///
    /// All parts have the same number of columns. Each keeps its type if that has tiles of its own.
    pub fn pack(
        parts: &[(RawTensor<'_>, Option<Vec<usize>>)],
        arena: &Arena,
    ) -> Result<Self, PackError> {
        let inputs = parts[0].0.columns;
        let mut matrix = Self::empty(inputs);
        for parts in parts.chunk_by(|a, b| a.0.dtype == b.0.dtype) {
            let rows = stored_rows(parts);
            let tiles = match pack_rows(parts[0].0.dtype, &rows, inputs, arena) {
                Some(tiles) => tiles,
                None => Tiles::F32(arena.keep(dequantized(parts)?)),
            };
            matrix.push(tiles, rows.len());
        }
        Ok(matrix)
    }

    /// Packs into `arena` as f32, whatever the stored type.
    pub fn pack_dequantized(
        parts: &[(RawTensor<'_>, Option<Vec<usize>>)],
        arena: &Arena,
    ) -> Result<Self, PackError> {
        let mut matrix = Self::empty(parts[0].0.columns);
        let outputs = parts.iter().map(|(raw, _)| raw.rows).sum();
        matrix.push(Tiles::F32(arena.keep(dequantized(parts)?)), outputs);
        Ok(matrix)
    }

    /// Packs a row-major `[outputs, inputs]` matrix as f16, or as f32 when a value is too large for f16.
    pub fn from_floats(values: &[f32], outputs: usize, inputs: usize) -> Self {
        let tiles = if fit_f16(values) {
            Tiles::F16(interleave(values.chunks_exact(inputs), f16::from_f32).into())
        } else {
            Tiles::F32(interleave(values.chunks_exact(inputs), |value| value).into())
        };
        let mut matrix = Self::empty(inputs);
        matrix.push(tiles, outputs);
        matrix
    }

    /// Packs a row-major `[outputs, inputs]` matrix as bytes with a scale for every sixteen outputs of an input.
    pub fn from_floats_as_bytes(values: &[f32], outputs: usize, inputs: usize) -> Self {
        let interleaved: Vec<f32> = interleave(values.chunks_exact(inputs), |value| value);
        let lines = interleaved.as_chunks().0.iter().map(ByteLine::of);
        let mut matrix = Self::empty(inputs);
        matrix.push(Tiles::Bytes(lines.collect::<Vec<_>>().into()), outputs);
        matrix
    }

    /// Packs the transpose of a row-major `[inputs, outputs]` matrix in Q8_0: a byte for each value, a scale for every 32 inputs
    /// of an output.
    ///
    /// # Panics
    /// If `inputs` is no multiple of 32, or the matrix has no such rows.
    pub fn transposed_as_q8(values: &[f32], outputs: usize) -> Self {
        let inputs = values.len() / outputs;
        assert!(inputs.is_multiple_of(BLOCK) && values.len() == inputs * outputs);
        let column =
            |output| q8_row((0..inputs).map(move |input| values[input * outputs + output]));
        let rows: Vec<Vec<u8>> = (0..outputs).map(column).collect();
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let mut matrix = Self::empty(inputs);
        matrix.push(Tiles::Q8(pack_q8(&rows, inputs).into()), outputs);
        matrix
    }

    fn empty(inputs: usize) -> Self {
        Self {
            sections: Vec::new(),
            outputs: 0,
            inputs,
            tile_count: 0,
        }
    }

    fn push(&mut self, tiles: Tiles, outputs: usize) {
        self.sections.push(Section {
            tiles,
            first_output: self.outputs,
            outputs,
            first_tile: self.tile_count,
        });
        self.outputs += outputs;
        self.tile_count += outputs.div_ceil(TILE_ROWS);
    }

    /// Rows of the matrix, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether the product takes quantised activations for some of the rows.
    pub fn is_quantized(&self) -> bool {
        self.sections
            .iter()
            .any(|section| section.tiles.is_quantized())
    }

    /// Bytes the tiles occupy.
    pub fn bytes(&self) -> usize {
        self.sections
            .iter()
            .map(|section| section.tiles.bytes())
            .sum()
    }

    /// Asks for the first tiles.
    pub(super) fn prefetch(&self) {
        if let Some(section) = self.sections.first() {
            section.tiles.prefetch();
        }
    }

    pub(super) fn tile_count(&self) -> usize {
        self.tile_count
    }

    /// The tiles `tiles` of the matrix, a run for each section that has some of them.
    pub(super) fn runs(&self, tiles: Range<usize>) -> impl Iterator<Item = TileRun<'_>> {
        let after = |section: &Section| section.first_tile <= tiles.start;
        let first = self.sections.partition_point(after) - 1;
        let end = tiles.end;
        let sections = self.sections[first..].iter();
        let sections = sections.take_while(move |section| section.first_tile < end);
        sections.map(move |section| {
            let count = section.outputs.div_ceil(TILE_ROWS);
            let start = tiles.start.saturating_sub(section.first_tile);
            let indices = start..count.min(tiles.end - section.first_tile);
            TileRun {
                tiles: &section.tiles,
                inputs: self.inputs,
                first_output: section.first_output + start * TILE_ROWS,
                outputs: section.outputs.min(indices.end * TILE_ROWS) - start * TILE_ROWS,
                indices,
            }
        })
    }

    /// Writes the elements of row `row`, as the product sees them, to `out` of `inputs` elements.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let after = |section: &Section| section.first_output <= row;
        let section = &self.sections[self.sections.partition_point(after) - 1];
        section.tiles.read_row(row - section.first_output, out);
    }
}

impl Tiles {
    pub(super) fn is_quantized(&self) -> bool {
        !matches!(
            self,
            Self::F32(_) | Self::F16(_) | Self::Bf16(_) | Self::Bytes(_)
        )
    }

    fn prefetch(&self) {
        match self {
            Self::Q4(tiles) => prefetch_beginning(tiles),
            Self::Q5(tiles) => prefetch_beginning(tiles),
            Self::Q8(tiles) => prefetch_beginning(tiles),
            Self::Q4K(tiles) => prefetch_beginning(tiles),
            Self::Q5K(tiles) => prefetch_beginning(tiles),
            Self::Q6K(tiles) => prefetch_beginning(tiles),
            Self::F32(values) => prefetch_beginning(values),
            Self::F16(values) => prefetch_beginning(values),
            Self::Bf16(values) => prefetch_beginning(values),
            Self::Bytes(lines) => prefetch_beginning(lines),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Q4(tiles) => size_of_val(&tiles[..]),
            Self::Q5(tiles) => size_of_val(&tiles[..]),
            Self::Q8(tiles) => size_of_val(&tiles[..]),
            Self::Q4K(tiles) => size_of_val(&tiles[..]),
            Self::Q5K(tiles) => size_of_val(&tiles[..]),
            Self::Q6K(tiles) => size_of_val(&tiles[..]),
            Self::F32(values) => size_of_val(&values[..]),
            Self::F16(values) => size_of_val(&values[..]),
            Self::Bf16(values) => size_of_val(&values[..]),
            Self::Bytes(lines) => size_of_val(&lines[..]),
        }
    }

    fn read_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Q4(tiles) => read_quantized(tiles, row, out),
            Self::Q5(tiles) => read_quantized(tiles, row, out),
            Self::Q8(tiles) => read_quantized(tiles, row, out),
            Self::Q4K(tiles) => read_quantized(tiles, row, out),
            Self::Q5K(tiles) => read_quantized(tiles, row, out),
            Self::Q6K(tiles) => read_quantized(tiles, row, out),
            Self::F32(values) => read_floats(values, row, out, |value| value),
            Self::F16(values) => read_floats(values, row, out, f16::to_f32),
            Self::Bf16(values) => read_floats(values, row, out, bf16::to_f32),
            Self::Bytes(lines) => {
                let first = row / TILE_ROWS * out.len();
                for (line, out) in lines[first..].iter().zip(out) {
                    *out = line.value(row % TILE_ROWS);
                }
            }
        }
    }
}

fn read_quantized<T: Tile>(tiles: &[T], row: usize, out: &mut [f32]) {
    let inputs = T::BLOCKS * BLOCK;
    let first = row / TILE_ROWS * (out.len() / inputs);
    for (tile, out) in tiles[first..].iter().zip(out.chunks_exact_mut(inputs)) {
        for (input, out) in out.iter_mut().enumerate() {
            *out = tile.value(row % TILE_ROWS, input);
        }
    }
}

fn read_floats<T: Copy>(values: &[T], row: usize, out: &mut [f32], float: impl Fn(T) -> f32) {
    let first = row / TILE_ROWS * out.len();
    for (values, out) in values.as_chunks::<TILE_ROWS>().0[first..].iter().zip(out) {
        *out = float(values[row % TILE_ROWS]);
    }
}

/// Whether none of the values is too large for f16.
fn fit_f16(values: &[f32]) -> bool {
    values.iter().all(|value| value.abs() <= f16::MAX.to_f32())
}

fn stored_rows<'a>(parts: &'a [Part<'_>]) -> Vec<&'a [u8]> {
    let mut rows = Vec::new();
    for (raw, order) in parts {
        let width = raw.bytes.len() / raw.rows;
        rows.extend((0..raw.rows).map(|row| {
            let stored = order.as_ref().map_or(row, |order| order[row]);
            &raw.bytes[stored * width..(stored + 1) * width]
        }));
    }
    rows
}

/// The parts as tiles of f32.
fn dequantized(parts: &[Part<'_>]) -> Result<Vec<f32>, PackError> {
    let inputs = parts[0].0.columns;
    let mut values = Vec::new();
    for (raw, order) in parts {
        let dense = dequantize(raw)?;
        for row in 0..raw.rows {
            let stored = order.as_ref().map_or(row, |order| order[row]);
            values.extend_from_slice(&dense[stored * inputs..(stored + 1) * inputs]);
        }
    }
    Ok(interleave(values.chunks_exact(inputs), |value| value))
}

fn dequantize(raw: &RawTensor<'_>) -> Result<Vec<f32>, PackError> {
    let shape = (raw.rows, raw.columns);
    candle_core::quantized::QStorage::from_data(raw.bytes.into(), &Device::Cpu, raw.dtype)
        .and_then(|storage| QTensor::new(storage, shape))
        .and_then(|tensor| tensor.dequantize(&Device::Cpu))
        .and_then(|tensor: Tensor| tensor.flatten_all()?.to_vec1::<f32>())
        .map_err(|error| PackError {
            rows: raw.rows,
            columns: raw.columns,
            dtype: raw.dtype,
            reason: error.to_string(),
        })
}
