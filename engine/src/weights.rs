//! The model's weights as plain f32 in Hugging Face layout, for training and as the oracle of the quantised path.

use std::path::Path;

use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::gguf::{GgufFile, unpermuted_rows};

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

/// A whole model dequantised to f32.
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

impl DenseWeights {
    /// Reads and dequantises a GGUF file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::from_gguf(&GgufFile::open(path)?)
    }

    /// Dequantises an open GGUF file.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, LoadError> {
        let config = file.config()?;
        let layers = (0..config.layers)
            .map(|layer| dense_layer(file, &config, layer))
            .collect::<Result<_, _>>()?;
        let head = match file.has("output.weight") {
            true => Some(matrix(
                file,
                "output.weight",
                config.vocabulary,
                config.hidden,
            )?),
            false => None,
        };
        Ok(Self {
            embedding: matrix(file, "token_embd.weight", config.vocabulary, config.hidden)?,
            layers,
            output_norm: matrix(file, "output_norm.weight", 1, config.hidden)?,
            head,
            config,
        })
    }
}

fn dense_layer(
    file: &GgufFile,
    config: &ModelConfig,
    layer: usize,
) -> Result<DenseLayer, LoadError> {
    let (hidden, intermediate) = (config.hidden, config.intermediate);
    let (query_width, kv_width) = (config.query_width(), config.kv_width());
    let get = |part: &str, rows, columns| {
        matrix(file, &format!("blk.{layer}.{part}.weight"), rows, columns)
    };
    let unpermuted = |part: &str, heads: usize| {
        let stored = get(part, heads * config.head_dim, hidden)?;
        let rows = unpermuted_rows(heads, config.head_dim);
        Ok::<_, LoadError>(
            rows.iter()
                .flat_map(|&row| &stored[row * hidden..(row + 1) * hidden])
                .copied()
                .collect(),
        )
    };
    Ok(DenseLayer {
        attention_norm: get("attn_norm", 1, hidden)?,
        query: unpermuted("attn_q", config.heads)?,
        key: unpermuted("attn_k", config.kv_heads)?,
        value: get("attn_v", kv_width, hidden)?,
        output: get("attn_output", hidden, query_width)?,
        feed_forward_norm: get("ffn_norm", 1, hidden)?,
        gate: get("ffn_gate", intermediate, hidden)?,
        up: get("ffn_up", intermediate, hidden)?,
        down: get("ffn_down", hidden, intermediate)?,
    })
}

fn matrix(file: &GgufFile, name: &str, rows: usize, columns: usize) -> Result<Vec<f32>, LoadError> {
    file.raw_of_shape(name, rows, columns)?;
    file.dequantize(name)
}
