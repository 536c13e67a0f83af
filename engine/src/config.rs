//! The dimensions of a model, read from its file.

use adapters::ProjectionShape;

/// The dimensions and constants of a llama-architecture model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The model's name, from its file's.
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
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f32,
    /// Constant under the root of RMSNorm.
    pub rms_epsilon: f32,
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
}
