//! What a model is made of, as data: its sizes and the choices its architecture makes. Read from a GGUF file's metadata
//! or a directory's `config.json`; what the step does follows from it. No weights here.

mod decoder;
mod fields;
mod hugging_face;
mod metadata;
mod rotary;

use adapters::ProjectionShape;

pub use decoder::{Activation, Architecture, Decoder, LayerAttention};
pub use rotary::{LongRotary, Rotary};

pub(crate) use decoder::supported_architectures;
pub(crate) use hugging_face::from_config_json;
pub(crate) use metadata::from_gguf;

/// The largest width, depth or context that is believed.
const MOST: usize = 1 << 20;

/// The dimensions and constants of a decoder-only model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The model's name, from its file's or directory's.
    pub name: String,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple of it.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Most tokens the model was made for.
    pub context_length: usize,
    /// Base of the rotary embedding's frequencies, in layers that see everything.
    pub rope_theta: f32,
    /// Constant under the root of RMSNorm.
    pub rms_epsilon: f32,
    /// What tells this decoder from others of the same sizes.
    pub decoder: Decoder,
}

impl ModelConfig {
    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Inputs and outputs of every linear layer an adapter can change, in [`adapters::Projection::ALL`] order.
    pub fn projection_shapes(&self) -> [ProjectionShape; 7] {
        let shape = |inputs, outputs| ProjectionShape { inputs, outputs };
        [
            shape(self.hidden, self.query_width()),
            shape(self.hidden, self.kv_width()),
            shape(self.hidden, self.kv_width()),
            shape(self.query_width(), self.hidden),
            shape(self.hidden, self.intermediate),
            shape(self.hidden, self.intermediate),
            shape(self.intermediate, self.hidden),
        ]
    }

    /// The first thing in which the model differs from a plain Llama 2, if any.
    pub fn beyond_plain_llama(&self) -> Option<&'static str> {
        let decoder = &self.decoder;
        let windowed = decoder.layers.iter().any(|layer| {
            layer
                .window
                .is_some_and(|window| window < self.context_length)
        });
        let rotary = &decoder.rotaries[0];
        let scaled = !rotary.divisors.is_empty() || rotary.long.is_some();
        let differences = [
            (decoder.query_key_value_bias, "query, key and value biases"),
            (decoder.query_key_norm, "query and key norms"),
            (
                decoder.post_norms,
                "norms behind attention and feed-forward",
            ),
            (
                decoder.activation != Activation::SwiGlu,
                "a GeGLU activation",
            ),
            (decoder.embedding_scale != 1.0, "a scaled embedding"),
            (windowed, "sliding-window attention"),
            (scaled, "scaled rotary frequencies"),
            (rotary.dimensions != self.head_dim, "a partly rotated head"),
            (
                decoder.architecture == Architecture::Phi3,
                "fused projections",
            ),
        ];
        let found = differences.into_iter().find(|(differs, _)| *differs);
        found.map(|(_, what)| what)
    }
}
