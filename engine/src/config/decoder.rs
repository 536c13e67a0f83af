//! The choices by which architectures differ, one field each.

use super::Rotary;

/// A family of models this engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2; in GGUF also Mistral.
    Llama,
    /// Mistral: a Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: norms on every head's query and key.
    Qwen3,
    /// The text part of Gemma 3.
    Gemma3,
    /// Phi-3 and the Phi-4-mini that shares its layout: fused projections.
    Phi3,
}

impl Architecture {
    /// Every architecture, in the order errors list them.
    pub const ALL: [Self; 6] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma3,
        Self::Phi3,
    ];

    /// The name in `general.architecture` and `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
        }
    }

    /// The architecture that `general.architecture` or `model_type` names.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "gemma3_text" => "gemma3",
            name => name,
        };
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// Names of everything supported, for errors.
pub(crate) fn supported_architectures() -> String {
    Architecture::ALL.map(Architecture::name).join(", ")
}

/// The gated activation of the feed-forward block (Shazeer 2020, *GLU Variants Improve Transformer*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate) · up`.
    SwiGlu,
    /// `gelu(gate) · up` with the tanh approximation of GELU.
    GeGlu,
}

/// What one layer's attention sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerAttention {
    /// Tokens a query sees, its own included; `None`: all before it.
    pub window: Option<usize>,
    /// Which of [`Decoder::rotaries`] turns its queries and keys.
    pub rotary: usize,
}

/// What a decoder does beside the products every decoder has.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    /// Whose names and layout the files use.
    pub architecture: Architecture,
    /// The feed-forward block's activation.
    pub activation: Activation,
    /// What embedding rows are multiplied by.
    pub embedding_scale: f32,
    /// What attention scores are multiplied by.
    pub attention_scale: f32,
    /// Whether queries, keys and values have biases.
    pub query_key_value_bias: bool,
    /// Whether every head's query and key is RMS-normed before it is rotated.
    pub query_key_norm: bool,
    /// Whether the outputs of attention and feed-forward are RMS-normed before they are added to the residual stream.
    pub post_norms: bool,
    /// Whether the embedding is the output head too.
    pub tied_head: bool,
    /// Attention of every layer, first to last.
    pub layers: Vec<LayerAttention>,
    /// The rotary embeddings in use; the first is that of layers that see everything.
    pub rotaries: Vec<Rotary>,
}

impl Decoder {
    /// A Llama 2: full attention, one rotary embedding over whole heads, SwiGLU, nothing else.
    pub fn plain(layers: usize, head_dim: usize, rope_theta: f32) -> Self {
        Self {
            architecture: Architecture::Llama,
            activation: Activation::SwiGlu,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            query_key_value_bias: false,
            query_key_norm: false,
            post_norms: false,
            tied_head: true,
            layers: uniform_attention(layers, None),
            rotaries: vec![Rotary::plain(head_dim, rope_theta)],
        }
    }

    /// What all models of `architecture` have in common, laid over the rest.
    pub(super) fn with_architecture(self, architecture: Architecture, hidden: usize) -> Self {
        let gemma = architecture == Architecture::Gemma3;
        Self {
            architecture,
            activation: if gemma {
                Activation::GeGlu
            } else {
                Activation::SwiGlu
            },
            // transformers rounds the factor to the type of the weights it computes with; here that is f32.
            embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
            query_key_norm: gemma || architecture == Architecture::Qwen3,
            post_norms: gemma,
            ..self
        }
    }
}

/// The same window in every layer.
pub(super) fn uniform_attention(layers: usize, window: Option<usize>) -> Vec<LayerAttention> {
    vec![LayerAttention { window, rotary: 0 }; layers]
}

/// Layers with a window turned by the second rotary embedding, the others by the first.
pub(super) fn alternating_attention(
    local: impl IntoIterator<Item = bool>,
    window: usize,
) -> Vec<LayerAttention> {
    let layer = |local| LayerAttention {
        window: if local { Some(window) } else { None },
        rotary: usize::from(local),
    };
    local.into_iter().map(layer).collect()
}
