//! A model's weights on a device: quantised matrices as candle's, others in their own type.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::source::{Part, TensorId, TensorReader};

/// A matrix `[outputs, inputs]` that rows are multiplied with.
#[derive(Clone)]
pub(super) enum Linear {
    Quantized(QMatMul),
    /// Transposed, `[inputs, outputs]`.
    Plain(Tensor),
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
        }
    }
}

/// One transformer block.
pub(super) struct DeviceLayer {
    pub(super) attention_norm: Tensor,
    pub(super) query_key_value: [Linear; 3],
    /// `[query | key | value]`.
    pub(super) query_key_value_bias: Option<Tensor>,
    /// Norms of every query head and every key head, `[head_dim]` each.
    pub(super) query_key_norms: Option<[Tensor; 2]>,
    pub(super) output: Linear,
    pub(super) post_attention_norm: Option<Tensor>,
    pub(super) feed_forward_norm: Tensor,
    pub(super) gate_up: [Linear; 2],
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
        (device, dense): (&Device, bool),
    ) -> std::result::Result<Self, LoadError> {
        let uploader = Uploader {
            reader,
            config,
            device,
            dense,
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
            head: uploader.matrix(head)?,
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
        let matrix = |part| self.matrix(id(part));
        let vector = |part| self.vector(id(part));
        let post_norm = |part| decoder.post_norms.then(|| vector(part)).transpose();
        let norms = || Ok::<_, LoadError>([vector(Part::QueryNorm)?, vector(Part::KeyNorm)?]);
        Ok(DeviceLayer {
            attention_norm: vector(Part::AttentionNorm)?,
            query_key_value: [
                matrix(Part::Query)?,
                matrix(Part::Key)?,
                matrix(Part::Value)?,
            ],
            query_key_value_bias: (decoder.query_key_value_bias)
                .then(|| self.stacked_bias(layer))
                .transpose()?,
            query_key_norms: decoder.query_key_norm.then(norms).transpose()?,
            output: matrix(Part::Output)?,
            post_attention_norm: post_norm(Part::PostAttentionNorm)?,
            feed_forward_norm: vector(Part::FeedForwardNorm)?,
            gate_up: [matrix(Part::Gate)?, matrix(Part::Up)?],
            down: matrix(Part::Down)?,
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

    fn matrix(&self, id: TensorId) -> std::result::Result<Linear, LoadError> {
        let (raw, order) = self.reader.matrix(id)?;
        let plain = match raw.dtype {
            _ if self.dense => Some(DType::F32),
            GgmlDType::F32 => Some(DType::F32),
            GgmlDType::F16 => Some(DType::F16),
            GgmlDType::BF16 => Some(DType::BF16),
            _ => None,
        };
        if let Some(dtype) = plain {
            let transposed = self.dense(id, dtype)?.t().and_then(|t| t.contiguous());
            return transposed
                .map(Linear::Plain)
                .map_err(|error| self.failed(id, &error));
        }
        let width = raw.bytes.len() / raw.rows;
        let bytes: Vec<u8> = match order {
            None => raw.bytes.to_vec(),
            Some(order) => (order.iter())
                .flat_map(|row| &raw.bytes[row * width..(row + 1) * width])
                .copied()
                .collect(),
        };
        QStorage::from_data(bytes.into(), self.device, raw.dtype)
            .and_then(|storage| QTensor::new(storage, (raw.rows, raw.columns)))
            .and_then(|tensor| QMatMul::from_arc(Arc::new(tensor)))
            .map(Linear::Quantized)
            .map_err(|error| self.failed(id, &error))
    }

    fn failed(&self, id: TensorId, error: &candle_core::Error) -> LoadError {
        self.reader.error(id, error.to_string())
    }
}
