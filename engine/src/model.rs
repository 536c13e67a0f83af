//! The base model, loaded: packed weights, tokenizer, chat template.

use std::path::Path;
use std::sync::Arc;

use adapters::BaseModel;

use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::gguf::{GgufFile, RawTensor, unpermuted_rows};
use crate::kernels::{AttentionShape, KernelChoice, PackedMatrix, Resolution, RotaryTable};
use crate::tokenizer::Tokenizer;

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Threads that compute, the engine's own included.
    pub threads: usize,
    /// The kernel set, or `None` for the fastest this CPU can run.
    pub kernels: Option<KernelChoice>,
    /// How closely activations are followed where they meet quantised weights.
    pub resolution: Resolution,
    /// Dequantise every matrix to f32: slow and large, the reference for the quantised path.
    pub dense: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            kernels: None,
            resolution: Resolution::default(),
            dense: false,
        }
    }
}

/// A base model in memory.
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) kernels: KernelChoice,
    pub(crate) resolution: Resolution,
    pub(crate) threads: usize,
    pub(crate) layers: Vec<PackedLayer>,
    /// `[vocabulary, hidden]`; `None` when the head serves.
    pub(crate) embedding: Option<PackedMatrix>,
    pub(crate) output_norm: Vec<f32>,
    /// `[vocabulary, hidden]`.
    pub(crate) head: PackedMatrix,
    pub(crate) rotary: RotaryTable,
    base: BaseModel,
    tokenizer: Arc<Tokenizer>,
    chat_template: Option<Arc<ChatTemplate>>,
}

/// One transformer block.
pub(crate) struct PackedLayer {
    pub(crate) attention_norm: Vec<f32>,
    /// `[query | key | value, hidden]`.
    pub(crate) query_key_value: PackedMatrix,
    pub(crate) output: PackedMatrix,
    pub(crate) feed_forward_norm: Vec<f32>,
    /// `[gate | up, hidden]`.
    pub(crate) gate_up: PackedMatrix,
    pub(crate) down: PackedMatrix,
}

impl Model {
    /// Reads a GGUF file of the llama architecture and packs its weights.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let kernels = choose_kernels(options.kernels)?;
        let file = GgufFile::open(path)?;
        let config = file.config()?;
        let packer = Packer {
            file: &file,
            config: &config,
            path,
            dense: options.dense,
        };
        let (layers, digest) = std::thread::scope(|scope| {
            let digest = scope.spawn(|| file.digest());
            let layers = packer.layers(options.threads.max(1));
            (layers, digest.join().expect("hashing does not panic"))
        });
        let output = if file.has("output.weight") {
            "output.weight"
        } else {
            "token_embd.weight"
        };
        let (vocabulary, hidden) = (config.vocabulary, config.hidden);
        let embedding = match output {
            "token_embd.weight" => None,
            _ => Some(packer.stacked(&[("token_embd.weight", vocabulary, None)], hidden)?),
        };
        let tokenizer = Tokenizer::from_metadata(file.metadata())?;
        let chat_template = ChatTemplate::from_metadata(file.metadata(), &tokenizer)?;
        Ok(Self {
            kernels,
            resolution: options.resolution,
            threads: options.threads.max(1),
            layers: layers?,
            embedding,
            output_norm: packer.vector("output_norm.weight")?,
            head: packer.stacked(&[(output, vocabulary, None)], hidden)?,
            rotary: RotaryTable::new(config.context_length, config.head_dim, config.rope_theta),
            base: BaseModel {
                name: config.name.clone(),
                digest,
                layers: config.layers,
                shapes: config.projection_shapes(),
            },
            tokenizer: Arc::new(tokenizer),
            chat_template: chat_template.map(Arc::new),
            config,
        })
    }

    /// What adapters are validated against.
    pub fn base(&self) -> &BaseModel {
        &self.base
    }

    /// The model's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&Arc<ChatTemplate>> {
        self.chat_template.as_ref()
    }

    /// The kernel set in use.
    pub fn kernels(&self) -> KernelChoice {
        self.kernels
    }

    pub(crate) fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            scale: 1.0 / (self.config.head_dim as f32).sqrt(),
        }
    }
}

fn choose_kernels(requested: Option<KernelChoice>) -> Result<KernelChoice, LoadError> {
    match requested {
        None => Ok(KernelChoice::best()),
        Some(choice) if choice.is_available() => Ok(choice),
        Some(choice) => Err(LoadError::Kernels {
            requested: choice.name().to_owned(),
            available: KernelChoice::ALL
                .into_iter()
                .filter(|choice| choice.is_available())
                .map(KernelChoice::name)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// A matrix to stack: tensor name, rows, and the stored row of each row where they are permuted.
type Part<'a> = (&'a str, usize, Option<Vec<usize>>);

struct Packer<'a> {
    file: &'a GgufFile,
    config: &'a ModelConfig,
    path: &'a Path,
    dense: bool,
}

impl Packer<'_> {
    /// Packs all blocks, shared among `threads` threads.
    fn layers(&self, threads: usize) -> Result<Vec<PackedLayer>, LoadError> {
        let per_thread = self.config.layers.div_ceil(threads);
        std::thread::scope(|scope| {
            let starts = (0..self.config.layers).step_by(per_thread);
            let handles: Vec<_> = starts
                .map(|start| {
                    let end = (start + per_thread).min(self.config.layers);
                    scope.spawn(move || {
                        (start..end)
                            .map(|layer| self.layer(layer))
                            .collect::<Result<Vec<_>, _>>()
                    })
                })
                .collect();
            let mut layers = Vec::with_capacity(self.config.layers);
            for handle in handles {
                layers.extend(
                    handle
                        .join()
                        .expect("packing reports errors, it does not panic")?,
                );
            }
            Ok(layers)
        })
    }

    fn layer(&self, layer: usize) -> Result<PackedLayer, LoadError> {
        let config = self.config;
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let order = |heads| Some(unpermuted_rows(heads, config.head_dim));
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let attention = [name("attn_q"), name("attn_k"), name("attn_v")];
        let [query, key, value] = &attention;
        let query_key_value = [
            (query.as_str(), config.query_width(), order(config.heads)),
            (key.as_str(), config.kv_width(), order(config.kv_heads)),
            (value.as_str(), config.kv_width(), None),
        ];
        let (gate, up) = (name("ffn_gate"), name("ffn_up"));
        let gate_up = [
            (gate.as_str(), intermediate, None),
            (up.as_str(), intermediate, None),
        ];
        Ok(PackedLayer {
            attention_norm: self.vector(&name("attn_norm"))?,
            query_key_value: self.stacked(&query_key_value, hidden)?,
            output: self.stacked(
                &[(&name("attn_output"), hidden, None)],
                config.query_width(),
            )?,
            feed_forward_norm: self.vector(&name("ffn_norm"))?,
            gate_up: self.stacked(&gate_up, hidden)?,
            down: self.stacked(&[(&name("ffn_down"), hidden, None)], intermediate)?,
        })
    }

    fn stacked(&self, parts: &[Part<'_>], inputs: usize) -> Result<PackedMatrix, LoadError> {
        let raw = parts
            .iter()
            .map(|(name, rows, order)| {
                Ok((self.file.raw_of_shape(name, *rows, inputs)?, order.clone()))
            })
            .collect::<Result<Vec<(RawTensor<'_>, _)>, LoadError>>()?;
        let packed = if self.dense {
            PackedMatrix::pack_dequantized(&raw)
        } else {
            PackedMatrix::pack(&raw)
        };
        packed.map_err(|error| LoadError::Tensor {
            path: self.path.to_path_buf(),
            tensor: parts[0].0.to_owned(),
            reason: error.to_string(),
        })
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        self.file.raw_of_shape(name, 1, self.config.hidden)?;
        self.file.dequantize(name)
    }
}
