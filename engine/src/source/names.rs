//! What the tensors of a decoder are, and how each format names them. One table per format.

use std::collections::HashSet;

use crate::config::{Architecture, ModelConfig};

/// A tensor of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorId {
    /// `[vocabulary, hidden]`.
    Embedding,
    /// `[hidden]`.
    OutputNorm,
    /// `[vocabulary, hidden]`; not there when the embedding serves.
    Head,
    /// A tensor of the layer of that number.
    Layer(usize, Part),
}

/// A tensor of a layer. Parts that a format fuses stand in the order in which it stacks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryBias,
    KeyBias,
    ValueBias,
    QueryNorm,
    KeyNorm,
    Output,
    PostAttentionNorm,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
    PostFeedForwardNorm,
}

impl Part {
    const ALL: [Self; 16] = [
        Self::AttentionNorm,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::QueryBias,
        Self::KeyBias,
        Self::ValueBias,
        Self::QueryNorm,
        Self::KeyNorm,
        Self::Output,
        Self::PostAttentionNorm,
        Self::FeedForwardNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::PostFeedForwardNorm,
    ];

    /// Whether models of that configuration have the tensor.
    fn exists(self, config: &ModelConfig) -> bool {
        let decoder = &config.decoder;
        match self {
            Self::QueryBias | Self::KeyBias | Self::ValueBias => decoder.query_key_value_bias,
            Self::QueryNorm | Self::KeyNorm => decoder.query_key_norm,
            Self::PostAttentionNorm | Self::PostFeedForwardNorm => decoder.post_norms,
            _ => true,
        }
    }

    /// The tensor's name in GGUF, behind `blk.N.`.
    fn gguf(self, architecture: Architecture) -> &'static str {
        let fused = architecture == Architecture::Phi3;
        match self {
            Self::Query | Self::Key | Self::Value if fused => "attn_qkv.weight",
            Self::Gate | Self::Up if fused => "ffn_up.weight",
            Self::AttentionNorm => "attn_norm.weight",
            Self::Query => "attn_q.weight",
            Self::Key => "attn_k.weight",
            Self::Value => "attn_v.weight",
            Self::QueryBias => "attn_q.bias",
            Self::KeyBias => "attn_k.bias",
            Self::ValueBias => "attn_v.bias",
            Self::QueryNorm => "attn_q_norm.weight",
            Self::KeyNorm => "attn_k_norm.weight",
            Self::Output => "attn_output.weight",
            Self::PostAttentionNorm => "post_attention_norm.weight",
            Self::FeedForwardNorm => "ffn_norm.weight",
            Self::Gate => "ffn_gate.weight",
            Self::Up => "ffn_up.weight",
            Self::Down => "ffn_down.weight",
            Self::PostFeedForwardNorm => "post_ffw_norm.weight",
        }
    }

    /// The tensor's name in transformers, behind `layers.N.`.
    fn hugging_face(self, architecture: Architecture) -> &'static str {
        let fused = architecture == Architecture::Phi3;
        let gemma = architecture == Architecture::Gemma3;
        match self {
            Self::Query | Self::Key | Self::Value if fused => "self_attn.qkv_proj.weight",
            Self::Gate | Self::Up if fused => "mlp.gate_up_proj.weight",
            Self::FeedForwardNorm if gemma => "pre_feedforward_layernorm.weight",
            Self::AttentionNorm => "input_layernorm.weight",
            Self::Query => "self_attn.q_proj.weight",
            Self::Key => "self_attn.k_proj.weight",
            Self::Value => "self_attn.v_proj.weight",
            Self::QueryBias => "self_attn.q_proj.bias",
            Self::KeyBias => "self_attn.k_proj.bias",
            Self::ValueBias => "self_attn.v_proj.bias",
            Self::QueryNorm => "self_attn.q_norm.weight",
            Self::KeyNorm => "self_attn.k_norm.weight",
            Self::Output => "self_attn.o_proj.weight",
            Self::PostAttentionNorm | Self::FeedForwardNorm => "post_attention_layernorm.weight",
            Self::Gate => "mlp.gate_proj.weight",
            Self::Up => "mlp.up_proj.weight",
            Self::Down => "mlp.down_proj.weight",
            Self::PostFeedForwardNorm => "post_feedforward_layernorm.weight",
        }
    }
}

impl TensorId {
    /// Rows and columns; vectors are one row.
    pub(crate) fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let part = match self {
            Self::Embedding | Self::Head => return (config.vocabulary, hidden),
            Self::OutputNorm => return (1, hidden),
            Self::Layer(_, part) => part,
        };
        match part {
            Part::AttentionNorm
            | Part::FeedForwardNorm
            | Part::PostAttentionNorm
            | Part::PostFeedForwardNorm => (1, hidden),
            Part::Query => (config.query_width(), hidden),
            Part::Key | Part::Value => (config.kv_width(), hidden),
            Part::QueryBias => (1, config.query_width()),
            Part::KeyBias | Part::ValueBias => (1, config.kv_width()),
            Part::QueryNorm | Part::KeyNorm => (1, config.head_dim),
            Part::Output => (hidden, config.query_width()),
            Part::Gate | Part::Up => (intermediate, hidden),
            Part::Down => (hidden, intermediate),
        }
    }

    /// Whether it holds the factors of an RMSNorm.
    pub(super) fn is_norm(self) -> bool {
        use Part::{
            AttentionNorm, FeedForwardNorm, KeyNorm, PostAttentionNorm, PostFeedForwardNorm,
            QueryNorm,
        };
        match self {
            Self::OutputNorm => true,
            Self::Embedding | Self::Head => false,
            Self::Layer(_, part) => matches!(
                part,
                AttentionNorm
                    | FeedForwardNorm
                    | KeyNorm
                    | PostAttentionNorm
                    | PostFeedForwardNorm
                    | QueryNorm
            ),
        }
    }
}

/// Where a tensor stands: in which stored one, and at which of its rows.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) first_row: usize,
    /// Rows of the stored tensor, more than the tensor's own where several are fused.
    pub(super) total_rows: usize,
}

/// The names of one format.
pub(super) struct Names {
    architecture: Architecture,
    embedding: String,
    output_norm: String,
    head: String,
    layers: String,
    part: fn(Part, Architecture) -> &'static str,
    ignored: fn(&str) -> bool,
}

impl Names {
    pub(super) fn gguf(architecture: Architecture) -> Self {
        Self {
            architecture,
            embedding: "token_embd.weight".to_owned(),
            output_norm: "output_norm.weight".to_owned(),
            head: "output.weight".to_owned(),
            layers: "blk.".to_owned(),
            part: Part::gguf,
            // Read with the configuration.
            ignored: |name| name.starts_with("rope_f"),
        }
    }

    pub(super) fn hugging_face(architecture: Architecture, prefix: &str) -> Self {
        Self {
            architecture,
            embedding: format!("{prefix}embed_tokens.weight"),
            output_norm: format!("{prefix}norm.weight"),
            head: head_name(prefix),
            layers: format!("{prefix}layers."),
            part: Part::hugging_face,
            // Recomputed, or the other half of a model that also sees pictures.
            ignored: |name| {
                name.ends_with(".rotary_emb.inv_freq")
                    || name.contains("vision_tower.")
                    || name.contains("multi_modal_projector.")
            },
        }
    }

    pub(super) fn place(&self, tensor: TensorId, config: &ModelConfig) -> Place {
        let (rows, _) = tensor.shape(config);
        let whole = |name: &str| Place {
            name: name.to_owned(),
            first_row: 0,
            total_rows: rows,
        };
        let (layer, part) = match tensor {
            TensorId::Embedding => return whole(&self.embedding),
            TensorId::OutputNorm => return whole(&self.output_norm),
            TensorId::Head => return whole(&self.head),
            TensorId::Layer(layer, part) => (layer, part),
        };
        let name = (self.part)(part, self.architecture);
        let mut place = whole(&format!("{}{layer}.{name}", self.layers));
        place.total_rows = 0;
        let existing = Part::ALL.into_iter().filter(|other| other.exists(config));
        for fused in existing.filter(|other| (self.part)(*other, self.architecture) == name) {
            if fused == part {
                place.first_row = place.total_rows;
            }
            place.total_rows += TensorId::Layer(layer, fused).shape(config).0;
        }
        place
    }

    /// The name of every tensor that a model of that configuration reads.
    pub(super) fn all(&self, config: &ModelConfig) -> HashSet<String> {
        let parts = Part::ALL.into_iter().filter(|part| part.exists(config));
        let parts: Vec<Part> = parts.collect();
        let layers = (0..config.layers)
            .flat_map(|layer| parts.iter().map(move |&part| TensorId::Layer(layer, part)));
        let whole = [TensorId::Embedding, TensorId::OutputNorm, TensorId::Head];
        let head_counts = |id: &TensorId| *id != TensorId::Head || !config.decoder.tied_head;
        whole
            .into_iter()
            .filter(head_counts)
            .chain(layers)
            .map(|tensor| self.place(tensor, config).name)
            .collect()
    }

    /// Whether a tensor that no model reads may be there all the same.
    pub(super) fn is_ignored(&self, name: &str, config: &ModelConfig) -> bool {
        (self.ignored)(name) || (config.decoder.tied_head && name == self.head)
    }
}

/// The head's name beside a decoder whose names begin with `prefix`.
fn head_name(prefix: &str) -> String {
    match prefix.strip_suffix("model.") {
        Some(outer) => format!("{outer}lm_head.weight"),
        None => "lm_head.weight".to_owned(),
    }
}
