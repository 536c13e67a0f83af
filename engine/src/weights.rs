//! The model's weights as plain f32 in Hugging Face layout, for training and as the oracle of the quantised path.

use std::path::Path;

use adapters::Projection;

use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::gguf::GgufFile;
use crate::source::{Container, Part, TensorId, TensorReader};

/// One transformer block; matrices are row-major `[outputs, inputs]`.
pub struct DenseLayer {
    /// RMSNorm before attention, `[hidden]`.
    pub attention_norm: Vec<f32>,
    /// `[heads * head_dim, hidden]`, rows in Hugging Face order (`rotate_half` RoPE).
    pub query: Vec<f32>,
    /// `[kv_heads * head_dim, hidden]`, rows in Hugging Face order.
    pub key: Vec<f32>,
    /// `[kv_heads * head_dim, hidden]`.
    pub value: Vec<f32>,
    /// `[hidden, heads * head_dim]`.
    pub output: Vec<f32>,
    /// RMSNorm before the feed-forward block, `[hidden]`.
    pub feed_forward_norm: Vec<f32>,
    /// `[intermediate, hidden]`.
    pub gate: Vec<f32>,
    /// `[intermediate, hidden]`.
    pub up: Vec<f32>,
    /// `[hidden, intermediate]`.
    pub down: Vec<f32>,
}

/// A whole plain-Llama model dequantised to f32.
pub struct DenseWeights {
    /// The model's dimensions.
    pub config: ModelConfig,
    /// `[vocabulary, hidden]`.
    pub embedding: Vec<f32>,
    /// The blocks, first to last.
    pub layers: Vec<DenseLayer>,
    /// RMSNorm before the output head, `[hidden]`.
    pub output_norm: Vec<f32>,
    /// `[vocabulary, hidden]`; `None` when the embedding serves as the head.
    pub head: Option<Vec<f32>>,
}

impl DenseLayer {
    /// The matrix of a projection.
    pub fn matrix(&self, projection: Projection) -> &[f32] {
        match projection {
            Projection::Query => &self.query,
            Projection::Key => &self.key,
            Projection::Value => &self.value,
            Projection::Output => &self.output,
            Projection::Gate => &self.gate,
            Projection::Up => &self.up,
            Projection::Down => &self.down,
        }
    }

    /// The same, to be changed.
    pub fn matrix_mut(&mut self, projection: Projection) -> &mut [f32] {
        match projection {
            Projection::Query => &mut self.query,
            Projection::Key => &mut self.key,
            Projection::Value => &mut self.value,
            Projection::Output => &mut self.output,
            Projection::Gate => &mut self.gate,
            Projection::Up => &mut self.up,
            Projection::Down => &mut self.down,
        }
    }
}

impl DenseWeights {
    /// Reads and dequantises a GGUF file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::from_gguf(&GgufFile::open(path)?)
    }

    /// Dequantises an open GGUF file. What has no place in these fields, such as biases, is refused by name.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, LoadError> {
        let config = file.config()?;
        if let Some(feature) = config.beyond_plain_llama() {
            return Err(LoadError::Untrainable {
                path: file.path().to_path_buf(),
                feature,
            });
        }
        let reader = TensorReader::of_gguf(file, &config);
        reader.refuse_unknown()?;
        let layers = (0..config.layers)
            .map(|layer| dense_layer(&reader, layer))
            .collect::<Result<_, _>>()?;
        let head = match config.decoder.tied_head {
            true => None,
            false => Some(reader.dense(TensorId::Head)?),
        };
        Ok(Self {
            embedding: reader.dense(TensorId::Embedding)?,
            layers,
            output_norm: reader.vector(TensorId::OutputNorm)?,
            head,
            config,
        })
    }
}

fn dense_layer(reader: &TensorReader<'_>, layer: usize) -> Result<DenseLayer, LoadError> {
    let vector = |part| reader.vector(TensorId::Layer(layer, part));
    let matrix = |part| reader.dense(TensorId::Layer(layer, part));
    Ok(DenseLayer {
        attention_norm: vector(Part::AttentionNorm)?,
        query: matrix(Part::Query)?,
        key: matrix(Part::Key)?,
        value: matrix(Part::Value)?,
        output: matrix(Part::Output)?,
        feed_forward_norm: vector(Part::FeedForwardNorm)?,
        gate: matrix(Part::Gate)?,
        up: matrix(Part::Up)?,
        down: matrix(Part::Down)?,
    })
}
