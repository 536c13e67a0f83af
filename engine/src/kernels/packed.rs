//! Weight matrices in the order the products read them: tiles of 16 output rows by 32 inputs.
//!
//! Q4_1 keeps its unsigned 4-bit values; Q4_0 becomes the same with minimum `-8 · scale`, which is exact. Q8_0 is kept
//! with its sign bit flipped so that it can be the unsigned operand. Every other type is dequantised to f32.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::f16;

use crate::gguf::RawTensor;

/// Output rows of a tile; matrices are padded with zero rows to a multiple of it.
pub const TILE_ROWS: usize = 16;
/// Inputs of a tile, also the length of a quantisation block.
pub(super) const BLOCK: usize = 32;

/// 16 rows × 32 inputs of 4-bit values: value = `scale · quant + minimum`.
///
/// Byte `(g · 16 + row) · 4 + j` holds input `4g + j` in its low half and input `16 + 4g + j` in its high half.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct TileQ4 {
    pub(super) quants: [u8; 256],
    pub(super) scales: [f16; TILE_ROWS],
    pub(super) minimums: [f16; TILE_ROWS],
}

/// 16 rows × 32 inputs of 8-bit values: value = `scale · (quant - 128)`.
///
/// Byte `(g · 16 + row) · 4 + j` holds input `4g + j`.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct TileQ8 {
    pub(super) quants: [u8; 512],
    pub(super) scales: [f16; TILE_ROWS],
}

/// The tiles of a matrix, 16 output rows after another, each over all inputs.
pub(super) enum Tiles {
    Q4(Vec<TileQ4>),
    Q8(Vec<TileQ8>),
    /// `[outputs / 16][inputs][16]`.
    F32(Vec<f32>),
    /// `[outputs / 16][inputs][16]`.
    F16(Vec<f16>),
}

/// A weight matrix ready for [`super::project`].
pub struct PackedMatrix {
    pub(super) tiles: Tiles,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

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
    /// Packs the rows of `parts`, one matrix below the other; `order[i]` of each part is the stored row of its row `i`.
    ///
    /// All parts have the same number of columns. Parts of one supported quantised type stay quantised.
    pub fn pack(parts: &[(RawTensor<'_>, Option<Vec<usize>>)]) -> Result<Self, PackError> {
        let inputs = parts[0].0.columns;
        let outputs = parts.iter().map(|(raw, _)| raw.rows).sum();
        let uniform = |dtype| parts.iter().all(|(raw, _)| raw.dtype == dtype);
        let rows = stored_rows(parts);
        let tiles = if uniform(GgmlDType::Q4_1) || uniform(GgmlDType::Q4_0) {
            Tiles::Q4(pack_q4(&rows, inputs / BLOCK, uniform(GgmlDType::Q4_1)))
        } else if uniform(GgmlDType::Q8_0) {
            Tiles::Q8(pack_q8(&rows, inputs / BLOCK))
        } else {
            return Self::pack_dequantized(parts);
        };
        Ok(Self {
            tiles,
            outputs,
            inputs,
        })
    }

    /// Packs as f32 whatever the stored type.
    pub fn pack_dequantized(
        parts: &[(RawTensor<'_>, Option<Vec<usize>>)],
    ) -> Result<Self, PackError> {
        let inputs = parts[0].0.columns;
        let mut values = Vec::new();
        for (raw, order) in parts {
            let dense = dequantize(raw)?;
            for row in 0..raw.rows {
                let stored = order.as_ref().map_or(row, |order| order[row]);
                values.extend_from_slice(&dense[stored * inputs..(stored + 1) * inputs]);
            }
        }
        let outputs = values.len() / inputs;
        Ok(Self {
            tiles: Tiles::F32(interleave(&values, outputs, inputs)),
            outputs,
            inputs,
        })
    }

    /// Packs a row-major `[outputs, inputs]` matrix as f16, or as f32 when a value is too large for f16.
    pub fn from_floats(values: &[f32], outputs: usize, inputs: usize) -> Self {
        let tiles = interleave(values, outputs, inputs);
        let fits = tiles.iter().all(|value| value.abs() <= f16::MAX.to_f32());
        let tiles = if fits {
            Tiles::F16(tiles.into_iter().map(f16::from_f32).collect())
        } else {
            Tiles::F32(tiles)
        };
        Self {
            tiles,
            outputs,
            inputs,
        }
    }

    /// Rows of the matrix, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether the product takes quantised activations.
    pub fn is_quantized(&self) -> bool {
        matches!(self.tiles, Tiles::Q4(_) | Tiles::Q8(_))
    }

    /// Bytes the tiles occupy.
    pub fn bytes(&self) -> usize {
        match &self.tiles {
            Tiles::Q4(tiles) => size_of_val(tiles.as_slice()),
            Tiles::Q8(tiles) => size_of_val(tiles.as_slice()),
            Tiles::F32(values) => size_of_val(values.as_slice()),
            Tiles::F16(values) => size_of_val(values.as_slice()),
        }
    }

    pub(super) fn tile_count(&self) -> usize {
        self.outputs.div_ceil(TILE_ROWS)
    }

    /// Writes the elements of row `row`, as the product sees them, to `out` of `inputs` elements.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let (tile, lane) = (row / TILE_ROWS, row % TILE_ROWS);
        let blocks = self.inputs / BLOCK;
        for (input, out) in out.iter_mut().enumerate() {
            let (block, k) = (input / BLOCK, input % BLOCK);
            *out = match &self.tiles {
                Tiles::Q4(tiles) => {
                    let tile = &tiles[tile * blocks + block];
                    let byte = tile.quants[((k % 16 / 4) * 16 + lane) * 4 + k % 4];
                    let quant = if k < 16 { byte & 15 } else { byte >> 4 };
                    tile.scales[lane].to_f32() * f32::from(quant) + tile.minimums[lane].to_f32()
                }
                Tiles::Q8(tiles) => {
                    let tile = &tiles[tile * blocks + block];
                    let quant = i32::from(tile.quants[((k / 4) * 16 + lane) * 4 + k % 4]) - 128;
                    tile.scales[lane].to_f32() * quant as f32
                }
                Tiles::F32(values) => values[(tile * self.inputs + input) * TILE_ROWS + lane],
                Tiles::F16(values) => {
                    values[(tile * self.inputs + input) * TILE_ROWS + lane].to_f32()
                }
            };
        }
    }
}

fn stored_rows<'a>(parts: &'a [(RawTensor<'_>, Option<Vec<usize>>)]) -> Vec<&'a [u8]> {
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

fn half_at(bytes: &[u8], offset: usize) -> f16 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn pack_q4(rows: &[&[u8]], blocks: usize, has_minimum: bool) -> Vec<TileQ4> {
    let (block_bytes, header) = if has_minimum { (20, 4) } else { (18, 2) };
    let empty = TileQ4 {
        quants: [0; 256],
        scales: [f16::ZERO; TILE_ROWS],
        minimums: [f16::ZERO; TILE_ROWS],
    };
    let mut tiles = vec![empty; rows.len().div_ceil(TILE_ROWS) * blocks];
    for (row, bytes) in rows.iter().enumerate() {
        for (block, stored) in bytes.chunks_exact(block_bytes).enumerate() {
            let tile = &mut tiles[row / TILE_ROWS * blocks + block];
            let lane = row % TILE_ROWS;
            tile.scales[lane] = half_at(stored, 0);
            tile.minimums[lane] = if has_minimum {
                half_at(stored, 2)
            } else {
                f16::from_f32(-8.0 * half_at(stored, 0).to_f32())
            };
            for (group, quants) in stored[header..].chunks_exact(4).enumerate() {
                let start = (group * TILE_ROWS + lane) * 4;
                tile.quants[start..start + 4].copy_from_slice(quants);
            }
        }
    }
    tiles
}

fn pack_q8(rows: &[&[u8]], blocks: usize) -> Vec<TileQ8> {
    let empty = TileQ8 {
        quants: [128; 512],
        scales: [f16::ZERO; TILE_ROWS],
    };
    let mut tiles = vec![empty; rows.len().div_ceil(TILE_ROWS) * blocks];
    for (row, bytes) in rows.iter().enumerate() {
        for (block, stored) in bytes.chunks_exact(34).enumerate() {
            let tile = &mut tiles[row / TILE_ROWS * blocks + block];
            let lane = row % TILE_ROWS;
            tile.scales[lane] = half_at(stored, 0);
            for (group, quants) in stored[2..].chunks_exact(4).enumerate() {
                let start = (group * TILE_ROWS + lane) * 4;
                for (out, quant) in tile.quants[start..start + 4].iter_mut().zip(quants) {
                    *out = quant ^ 0x80;
                }
            }
        }
    }
    tiles
}

/// Row-major `[outputs, inputs]` to `[outputs / 16][inputs][16]`, zero rows at the end.
fn interleave(values: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut tiles = vec![0.0; outputs.div_ceil(TILE_ROWS) * TILE_ROWS * inputs];
    for (output, row) in values.chunks_exact(inputs).enumerate() {
        let base = output / TILE_ROWS * inputs * TILE_ROWS + output % TILE_ROWS;
        for (input, value) in row.iter().enumerate() {
            tiles[base + input * TILE_ROWS] = *value;
        }
    }
    tiles
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
