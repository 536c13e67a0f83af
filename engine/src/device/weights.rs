//! A model's weights on a device: quantised matrices as candle's, others in their own type.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::kernels::Resolution;
use crate::model::LoadOptions;
use crate::source::{Part, TensorId, TensorReader};

/// A matrix `[outputs, inputs]` that rows are multiplied with.
pub(super) enum Linear {
    Quantized(QMatMul),
    /// Transposed, `[inputs, outputs]`.
    Plain(Tensor),
    /// Matrices of several types, one below the other.
    Stacked(Vec<Linear>),
}

impl Linear {
    /// `[rows, inputs]` to `[rows, outputs]`, both f32.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantized(matrix) => matrix.forward(&input.contiguous()?),
            Self::Plain(matrix) => input
                .to_dtype(matrix.dtype())?
                .matmul(matrix)?
                .to_dtype(DType::F32),
            Self::Stacked(matrices) => {
                let outputs = (matrices.iter())
                    .map(|matrix| matrix.forward(input))
                    .collect::<Result<Vec<_>>>()?;
                Tensor::cat(&outputs, 1)
            }
        }
    }
}

/// One transformer block.
pub(super) struct DeviceLayer {
    pub(super) attention_norm: Tensor,
    pub(super) query_key_value: Linear,
    /// `[query | key | value]`.
    pub(super) query_key_value_bias: Option<Tensor>,
    /// Norms of every query head and every key head, `[head_dim]` each.
    pub(super) query_key_norms: Option<[Tensor; 2]>,
    pub(super) output: Linear,
    pub(super) post_attention_norm: Option<Tensor>,
    pub(super) feed_forward_norm: Tensor,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
    pub(super) post_feed_forward_norm: Option<Tensor>,
}

/// Every weight of a model.
pub(crate) struct DeviceWeights {
    /// `[vocabulary, hidden]`, f16 on a GPU and f32 on the CPU.
    embedding: Tensor,
    pub(super) output_norm: Tensor,
    head: Linear,
    pub(super) layers: Vec<DeviceLayer>,
}

impl DeviceWeights {
    /// Reads all weights to `device`; with `dense`, every matrix becomes f32.
    pub(crate) fn load(
        reader: &TensorReader<'_>,
        config: &ModelConfig,
        device: &Device,
        options: &LoadOptions,
    ) -> std::result::Result<Self, LoadError> {
        set_products(options.resolution);
        let uploader = Uploader {
            reader,
            config,
            device,
            dense: options.dense,
        };
        let head = match config.decoder.tied_head {
            true => TensorId::Embedding,
            false => TensorId::Head,
        };
        let rows = match device.is_cpu() {
            true => DType::F32,
            false => DType::F16,
        };
        Ok(Self {
            embedding: uploader.dense(TensorId::Embedding, rows)?,
            output_norm: uploader.vector(TensorId::OutputNorm)?,
            head: uploader.stacked(&[head])?,
            layers: (0..config.layers)
                .map(|layer| uploader.layer(layer))
                .collect::<std::result::Result<_, _>>()?,
        })
    }

    pub(super) fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// `[tokens, hidden]`, f32.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let tokens = Tensor::new(tokens, self.device())?;
        self.embedding
            .index_select(&tokens, 0)?
            .to_dtype(DType::F32)
    }

    pub(super) fn head(&self) -> &Linear {
        &self.head
    }
}

/// What a matrix is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptType {
    Plain(DType),
    Quantized(GgmlDType),
}

/// How a GPU multiplies with quantised matrices: in bytes, or, for more than one byte of an activation, dequantised for
/// each product. candle keeps this for the process, so the model loaded last decides.
fn set_products(resolution: Resolution) {
    #[cfg(feature = "cuda")]
    candle_core::quantized::cuda::set_force_dmmv(resolution != Resolution::Coarse);
    #[cfg(not(feature = "cuda"))]
    let _ = resolution;
}

struct Uploader<'a> {
    reader: &'a TensorReader<'a>,
    config: &'a ModelConfig,
    device: &'a Device,
    dense: bool,
}

impl Uploader<'_> {
    fn layer(&self, layer: usize) -> std::result::Result<DeviceLayer, LoadError> {
        let decoder = &self.config.decoder;
        let id = |part| TensorId::Layer(layer, part);
        let matrix = |parts: &[Part]| {
            let ids: Vec<TensorId> = parts.iter().map(|&part| id(part)).collect();
            self.stacked(&ids)
        };
        let vector = |part| self.vector(id(part));
        let post_norm = |part| decoder.post_norms.then(|| vector(part)).transpose();
        let norms = || Ok::<_, LoadError>([vector(Part::QueryNorm)?, vector(Part::KeyNorm)?]);
        Ok(DeviceLayer {
            attention_norm: vector(Part::AttentionNorm)?,
            query_key_value: matrix(&[Part::Query, Part::Key, Part::Value])?,
            query_key_value_bias: (decoder.query_key_value_bias)
                .then(|| self.stacked_bias(layer))
                .transpose()?,
            query_key_norms: decoder.query_key_norm.then(norms).transpose()?,
            output: matrix(&[Part::Output])?,
            post_attention_norm: post_norm(Part::PostAttentionNorm)?,
            feed_forward_norm: vector(Part::FeedForwardNorm)?,
            gate_up: matrix(&[Part::Gate, Part::Up])?,
            down: matrix(&[Part::Down])?,
            post_feed_forward_norm: post_norm(Part::PostFeedForwardNorm)?,
        })
    }

    fn stacked_bias(&self, layer: usize) -> std::result::Result<Tensor, LoadError> {
        let mut values = Vec::new();
        for part in [Part::QueryBias, Part::KeyBias, Part::ValueBias] {
            values.extend(self.reader.vector(TensorId::Layer(layer, part))?);
        }
        let id = TensorId::Layer(layer, Part::QueryBias);
        Tensor::new(values, self.device).map_err(|error| self.failed(id, &error))
    }

    fn vector(&self, id: TensorId) -> std::result::Result<Tensor, LoadError> {
        let values = self.reader.vector(id)?;
        Tensor::new(values, self.device).map_err(|error| self.failed(id, &error))
    }

    fn dense(&self, id: TensorId, dtype: DType) -> std::result::Result<Tensor, LoadError> {
        let values = self.reader.dense(id)?;
        Tensor::from_vec(values, id.shape(self.config), &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(dtype)?.to_device(self.device))
            .map_err(|error| self.failed(id, &error))
    }

    /// Matrices with the same inputs, one below the other: as one where they are kept in the same type.
    fn stacked(&self, ids: &[TensorId]) -> std::result::Result<Linear, LoadError> {
        let types = (ids.iter())
            .map(|&id| Ok(self.kept_type(self.reader.matrix(id)?.0.dtype)))
            .collect::<std::result::Result<Vec<_>, LoadError>>()?;
        if types.iter().any(|one| *one != types[0]) {
            let matrices = ids.iter().map(|&id| self.stacked(&[id]));
            let matrices = matrices.collect::<std::result::Result<_, _>>()?;
            return Ok(Linear::Stacked(matrices));
        }
        match types[0] {
            KeptType::Plain(dtype) => self.plain(ids, dtype),
            KeptType::Quantized(dtype) => self.quantized(ids, dtype),
        }
    }

    fn kept_type(&self, stored: GgmlDType) -> KeptType {
        match stored {
            _ if self.dense => KeptType::Plain(DType::F32),
            GgmlDType::F32 => KeptType::Plain(DType::F32),
            GgmlDType::F16 => KeptType::Plain(DType::F16),
            GgmlDType::BF16 => KeptType::Plain(DType::BF16),
            quantized => KeptType::Quantized(quantized),
        }
    }

    fn plain(&self, ids: &[TensorId], dtype: DType) -> std::result::Result<Linear, LoadError> {
        let parts = ids.iter().map(|&id| self.dense(id, dtype));
        let parts: Vec<Tensor> = parts.collect::<std::result::Result<_, _>>()?;
        (Tensor::cat(&parts, 0).and_then(|stacked| stacked.t()?.contiguous()))
            .map(Linear::Plain)
            .map_err(|error| self.failed(ids[0], &error))
    }

    fn quantized(
        &self,
        ids: &[TensorId],
        dtype: GgmlDType,
    ) -> std::result::Result<Linear, LoadError> {
        let (mut bytes, mut rows, mut columns) = (Vec::new(), 0, 0);
        for &id in ids {
            let (raw, order) = self.reader.matrix(id)?;
            let width = raw.bytes.len() / raw.rows;
            match order {
                None => bytes.extend_from_slice(raw.bytes),
                Some(order) => {
                    for row in order {
                        bytes.extend_from_slice(&raw.bytes[row * width..(row + 1) * width]);
                    }
                }
            }
            rows += raw.rows;
            columns = raw.columns;
        }
        QStorage::from_data(bytes.into(), self.device, dtype)
            .and_then(|storage| QTensor::new(storage, (rows, columns)))
            .and_then(|tensor| QMatMul::from_arc(Arc::new(tensor)))
            .map(Linear::Quantized)
            .map_err(|error| self.failed(ids[0], &error))
    }

    fn failed(&self, id: TensorId, error: &candle_core::Error) -> LoadError {
        self.reader.error(id, error.to_string())
    }
}
