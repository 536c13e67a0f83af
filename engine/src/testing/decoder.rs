//! A tiny random model of every supported architecture, the same weights as a GGUF file and as a model directory.
//!
//! Names and configurations are spelled out here as the formats have them, apart from the tables the engine reads by.

use std::collections::HashMap;
use std::io::BufWriter;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use half::bf16;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::layouts::{config_json, gguf_metadata, gguf_name};
use super::{EMBEDDING_DEVIATION, GAIN, TinyModel, Weights, permuted, plain};

/// One architecture in a shape in which everything it does shows within a few tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TinyDecoder {
    /// Scaled rotary frequencies, tied head.
    Llama3,
    /// A window of 5 tokens.
    Mistral,
    /// Biases.
    Qwen2,
    /// Norms of heads that are wider than `hidden / heads`.
    Qwen3,
    /// A window of 4 tokens in five of six layers, two rotary embeddings, four norms, GeGLU.
    Gemma3,
    /// Fused projections, LongRoPE over three quarters of a head, a window of 7 tokens.
    Phi3,
}

/// Sizes of a [`TinyDecoder`].
#[derive(Debug, Clone, Copy)]
pub struct DecoderSizes {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
}

/// Width of the residual stream.
pub const HIDDEN: usize = 64;
/// Width of the feed-forward block.
pub const INTERMEDIATE: usize = 96;
/// Query heads.
pub const HEADS: usize = 4;
/// Key and value heads.
pub const KV_HEADS: usize = 2;
/// Most tokens in a sequence.
pub const CONTEXT: usize = 48;

/// A tensor by its name in transformers, as transformers would hold it; `rows` is 1 for vectors.
#[derive(Debug, Clone)]
pub struct TinyTensor {
    /// Such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Rows, or 1.
    pub rows: usize,
    /// Row-major, every value exact in bf16.
    pub values: Vec<f32>,
}

impl TinyDecoder {
    /// Every architecture.
    pub const ALL: [Self; 6] = [
        Self::Llama3,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma3,
        Self::Phi3,
    ];

    /// The sizes in which they differ.
    pub fn sizes(self) -> DecoderSizes {
        let sizes = |layers, head_dim, tied| DecoderSizes {
            layers,
            head_dim,
            tied,
        };
        match self {
            Self::Llama3 | Self::Qwen2 => sizes(2, 16, true),
            Self::Mistral => sizes(2, 16, false),
            Self::Qwen3 => sizes(2, 32, false),
            // The sixth layer is the first that sees everything.
            Self::Gemma3 => sizes(7, 32, true),
            Self::Phi3 => sizes(2, 16, false),
        }
    }

    /// The weights, always the same.
    pub fn tensors(self) -> Vec<TinyTensor> {
        let DecoderSizes {
            layers,
            head_dim,
            tied,
        } = self.sizes();
        let mut random = Weights(ChaCha8Rng::seed_from_u64(self as u64));
        let vocabulary = TinyModel::default().vocabulary();
        let mut tensors = vec![random.tensor("model.embed_tokens.weight", vocabulary, HIDDEN)];
        if !tied {
            tensors.push(random.tensor("lm_head.weight", vocabulary, HIDDEN));
        }
        for layer in 0..layers {
            let parts = self.layer_parts(head_dim);
            tensors.extend(parts.into_iter().map(|(part, rows, columns)| {
                random.tensor(&format!("model.layers.{layer}.{part}"), rows, columns)
            }));
        }
        tensors.push(random.tensor("model.norm.weight", 1, HIDDEN));
        if self == Self::Gemma3 {
            // Its checkpoints hold what is added to one.
            let norms = tensors.iter_mut().filter(|one| one.name.contains("norm"));
            let shifted = |x: &mut f32| *x = bf16::from_f32(*x - 1.0).to_f32();
            norms.for_each(|norm| norm.values.iter_mut().for_each(shifted));
        }
        tensors
    }

    /// Name, rows and columns of the tensors of a layer.
    fn layer_parts(self, head_dim: usize) -> Vec<(&'static str, usize, usize)> {
        let (query, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
        let mut parts = match self {
            Self::Phi3 => vec![
                ("self_attn.qkv_proj.weight", query + 2 * kv, HIDDEN),
                ("mlp.gate_up_proj.weight", 2 * INTERMEDIATE, HIDDEN),
            ],
            _ => vec![
                ("self_attn.q_proj.weight", query, HIDDEN),
                ("self_attn.k_proj.weight", kv, HIDDEN),
                ("self_attn.v_proj.weight", kv, HIDDEN),
                ("mlp.gate_proj.weight", INTERMEDIATE, HIDDEN),
                ("mlp.up_proj.weight", INTERMEDIATE, HIDDEN),
            ],
        };
        parts.extend([
            ("self_attn.o_proj.weight", HIDDEN, query),
            ("mlp.down_proj.weight", HIDDEN, INTERMEDIATE),
            ("input_layernorm.weight", 1, HIDDEN),
            ("post_attention_layernorm.weight", 1, HIDDEN),
        ]);
        if self == Self::Qwen2 {
            parts.extend([
                ("self_attn.q_proj.bias", 1, query),
                ("self_attn.k_proj.bias", 1, kv),
                ("self_attn.v_proj.bias", 1, kv),
            ]);
        }
        if matches!(self, Self::Qwen3 | Self::Gemma3) {
            parts.extend([
                ("self_attn.q_norm.weight", 1, head_dim),
                ("self_attn.k_norm.weight", 1, head_dim),
            ]);
        }
        if self == Self::Gemma3 {
            parts.extend([
                ("pre_feedforward_layernorm.weight", 1, HIDDEN),
                ("post_feedforward_layernorm.weight", 1, HIDDEN),
            ]);
        }
        parts
    }

    /// Writes a GGUF file of f32 tensors.
    pub fn write_gguf(self, path: &Path) -> candle_core::Result<()> {
        let metadata = gguf_metadata(self);
        let head_dim = self.sizes().head_dim;
        let mut tensors = Vec::new();
        for tensor in self.tensors() {
            let columns = tensor.values.len() / tensor.rows;
            let mut values = tensor.values;
            if matches!(self, Self::Llama3 | Self::Mistral)
                && (tensor.name.contains("q_proj") || tensor.name.contains("k_proj"))
            {
                values = permuted(&values, columns, head_dim);
            }
            if self == Self::Gemma3 && tensor.name.contains("norm") {
                values.iter_mut().for_each(|x| *x += 1.0);
            }
            let stored = match tensor.rows {
                1 => plain(values)?,
                _ => super::quantized(values, columns, candle_core::quantized::GgmlDType::F32)?,
            };
            tensors.push((gguf_name(self, &tensor.name), stored));
        }
        for (name, values) in super::layouts::gguf_rope_tensors(self) {
            tensors.push((name.to_owned(), plain(values)?));
        }
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let mut file = BufWriter::new(fs_err::File::create(path)?);
        gguf_file::write(&mut file, &metadata, &tensors)?;
        std::io::Write::flush(&mut file)?;
        Ok(())
    }

    /// Writes a model directory of bf16 tensors, in two shards with an index or in one file.
    pub fn write_directory(self, path: &Path, sharded: bool) -> std::io::Result<()> {
        fs_err::create_dir_all(path)?;
        fs_err::write(path.join("config.json"), config_json(self).to_string())?;
        for (name, text) in TinyModel::default().tokenizer_files() {
            fs_err::write(path.join(name), text)?;
        }
        let tensors = self.tensors();
        if !sharded {
            return write_shard(&path.join("model.safetensors"), &tensors);
        }
        let mut shards = HashMap::new();
        let halves = tensors.split_at(tensors.len() / 2);
        for (index, half) in [halves.0, halves.1].into_iter().enumerate() {
            let file = format!("model-0000{}-of-00002.safetensors", index + 1);
            write_shard(&path.join(&file), half)?;
            shards.extend(half.iter().map(|one| (one.name.clone(), file.clone())));
        }
        let index = serde_json::json!({"metadata": {}, "weight_map": shards});
        fs_err::write(path.join("model.safetensors.index.json"), index.to_string())
    }
}

impl Weights {
    fn tensor(&mut self, name: &str, rows: usize, columns: usize) -> TinyTensor {
        let mut values = match name {
            name if name.contains("norm") => self.norm(columns),
            name if name.contains("embed") || name.contains("lm_head") => {
                self.matrix(rows, columns, EMBEDDING_DEVIATION)
            }
            name if name.ends_with("bias") => self.matrix(rows, columns, 0.5),
            _ => self.matrix(rows, columns, GAIN / (columns as f32).sqrt()),
        };
        let round = |x: &mut f32| *x = bf16::from_f32(*x).to_f32();
        values.iter_mut().for_each(round);
        TinyTensor {
            name: name.to_owned(),
            rows,
            values,
        }
    }
}

fn write_shard(path: &Path, tensors: &[TinyTensor]) -> std::io::Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| {
            let values = tensor.values.iter();
            values
                .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let columns = tensor.values.len() / tensor.rows;
        let shape = match tensor.rows {
            1 => vec![columns],
            rows => vec![rows, columns],
        };
        let view = TensorView::new(Dtype::BF16, shape, bytes);
        let view = view.expect("two bytes for each value");
        (tensor.name.as_str(), view)
    });
    let file = safetensors::serialize(views, None).map_err(std::io::Error::other)?;
    fs_err::write(path, file)
}
