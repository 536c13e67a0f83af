//! The base model, loaded: packed weights, tokenizer, chat template.

use std::path::Path;
use std::sync::Arc;

use adapters::BaseModel;

use crate::chat::ChatTemplate;
use crate::config::{Architecture, ModelConfig};
use crate::device::DeviceWeights;
use crate::error::LoadError;
use crate::executor::ComputeDevice;
use crate::gguf::GgufFile;
use crate::kernels::{Arena, AttentionShape, KernelChoice, Resolution};
use crate::packing::{PackedWeights, Packer};
use crate::source::{ModelDirectory, TensorReader};
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
    /// Where steps are computed.
    pub device: ComputeDevice,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            kernels: None,
            resolution: Resolution::default(),
            dense: false,
            device: ComputeDevice::default(),
        }
    }
}

/// A base model in memory.
pub struct Model {
    config: ModelConfig,
    weights: Weights,
    device: ComputeDevice,
    base: BaseModel,
    tokenizer: Arc<Tokenizer>,
    chat_template: Option<Arc<ChatTemplate>>,
}

/// A model's weights as whoever computes a step wants them.
pub(crate) enum Weights {
    Kernels(Box<KernelModel>),
    Device(DeviceWeights),
}

/// A model packed for our kernels.
pub(crate) struct KernelModel {
    pub(crate) config: ModelConfig,
    pub(crate) kernels: KernelChoice,
    pub(crate) resolution: Resolution,
    pub(crate) threads: usize,
    pub(crate) weights: PackedWeights,
}

impl Model {
    /// Reads a model and packs its weights: a GGUF file, or a Hugging Face directory with `config.json` and
    /// `model*.safetensors`. The files are mapped while this runs and not touched afterwards.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        match path.is_dir() {
            true => {
                let directory = ModelDirectory::open(path)?;
                let config = directory.config()?;
                let reader = TensorReader::of_directory(&directory, &config, directory.prefix());
                let words = || {
                    let tokenizer = Tokenizer::from_directory(path)?;
                    let template = ChatTemplate::from_directory(path, &tokenizer)?;
                    Ok((tokenizer, template))
                };
                let parts = load_parts(reader, &config, options, (&|| directory.digest(), &words))?;
                Ok(Self::assemble(config, options, parts))
            }
            false => {
                let file = GgufFile::open(path)?;
                let config = file.config()?;
                let reader = TensorReader::of_gguf(&file, &config);
                let words = || {
                    let tokenizer = Tokenizer::from_metadata(file.metadata())?;
                    let template = ChatTemplate::from_metadata(file.metadata(), &tokenizer)?;
                    Ok((tokenizer, template))
                };
                let parts = load_parts(reader, &config, options, (&|| file.digest(), &words))?;
                Ok(Self::assemble(config, options, parts))
            }
        }
    }

    fn assemble(config: ModelConfig, options: &LoadOptions, parts: Parts) -> Self {
        let (tokenizer, chat_template) = parts.words;
        Self {
            weights: parts.weights,
            device: options.device,
            base: BaseModel {
                name: config.name.clone(),
                digest: parts.digest,
                layers: config.layers,
                shapes: config.projection_shapes(),
                fused: config.decoder.architecture == Architecture::Phi3,
            },
            tokenizer: Arc::new(tokenizer),
            chat_template: chat_template.map(Arc::new),
            config,
        }
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

    /// What computes: the name of the kernel set, or of candle's device.
    pub fn kernels(&self) -> String {
        match &self.weights {
            Weights::Kernels(model) => model.kernels.name().to_owned(),
            Weights::Device(_) => self.device.name(),
        }
    }

    /// How closely activations follow their values, which is how closely adapters are kept. On a device, and with dequantised
    /// weights, nothing is rounded: that counts as fine.
    pub fn resolution(&self) -> Resolution {
        match &self.weights {
            Weights::Kernels(model) => model.resolution,
            Weights::Device(_) => Resolution::Fine,
        }
    }

    pub(crate) fn into_weights(self) -> Weights {
        self.weights
    }
}

impl KernelModel {
    pub(crate) fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            scale: self.config.decoder.attention_scale,
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

/// A tokenizer and, if the model has one, its chat template.
type Words = (Tokenizer, Option<ChatTemplate>);

/// What loading produces.
struct Parts {
    weights: Weights,
    digest: String,
    words: Words,
}

/// Packs the weights while the digest and the tokenizer are computed beside it.
fn load_parts(
    reader: TensorReader<'_>,
    config: &ModelConfig,
    options: &LoadOptions,
    (digest, words): (
        &(dyn Fn() -> String + Sync),
        &(dyn Fn() -> Result<Words, LoadError> + Sync),
    ),
) -> Result<Parts, LoadError> {
    reader.refuse_unknown()?;
    std::thread::scope(|scope| {
        let digest = scope.spawn(digest);
        let words = scope.spawn(words);
        let weights = load_weights(reader, config, options)?;
        Ok(Parts {
            weights,
            digest: digest.join().expect("hashing does not panic"),
            words: words
                .join()
                .expect("a tokenizer reports errors, it does not panic")?,
        })
    })
}

fn load_weights(
    reader: TensorReader<'_>,
    config: &ModelConfig,
    options: &LoadOptions,
) -> Result<Weights, LoadError> {
    if let Some(device) = options.device.candle() {
        let device = device.map_err(|error| LoadError::Device {
            device: options.device.name(),
            reason: match cfg!(feature = "cuda") {
                true => error.to_string(),
                false => "this build has no CUDA; build with `--features cuda`".to_owned(),
            },
        })?;
        let weights = DeviceWeights::load(&reader, config, &device, options)?;
        return Ok(Weights::Device(weights));
    }
    let kernels = choose_kernels(options.kernels)?;
    let threads = options.threads.max(1);
    let packer = Packer {
        reader,
        config,
        dense: options.dense,
        arena: Arena::default(),
    };
    Ok(Weights::Kernels(Box::new(KernelModel {
        weights: packer.pack(threads)?,
        config: config.clone(),
        kernels,
        resolution: match options.dense {
            true => Resolution::Fine,
            false => options.resolution,
        },
        threads,
    })))
}
