//! From a GGUF file's metadata to a [`ModelConfig`]. The keys are those of the GGUF specification and llama.cpp.

use candle_core::quantized::gguf_file::Value;

use super::decoder::{alternating_attention, uniform_attention};
use super::rotary::long_magnitude;
use super::{Architecture, Decoder, LayerAttention, LongRotary, MOST, ModelConfig, Rotary};
use crate::error::LoadError;
use crate::gguf::GgufFile;
use crate::source::Container;

/// Every how many layers Gemma 3 has one that sees everything, when the file does not say.
const GEMMA_PATTERN: usize = 6;
/// Base of Gemma 3's local rotary embedding, when the file does not say.
const GEMMA_LOCAL_THETA: f32 = 10_000.0;
/// Layers of Gemma 3 27B, whose attention scale is not `1 / sqrt(head_dim)` and not in its files either.
const GEMMA_27B_LAYERS: usize = 62;

/// Reads the dimensions and the choices of a supported architecture.
pub(crate) fn from_gguf(file: &GgufFile) -> Result<ModelConfig, LoadError> {
    let name = text(file, "general.architecture")?;
    let architecture = match name.as_deref() {
        Some(name) => Architecture::from_name(name).ok_or_else(|| LoadError::Architecture {
            path: file.path().to_path_buf(),
            architecture: name.to_owned(),
        })?,
        None => return Err(file.metadata_error("general.architecture", "is missing")),
    };
    let keys = Keys {
        file,
        prefix: architecture.name(),
    };
    keys.refuse_unsupported()?;
    let (hidden, heads) = (
        keys.positive("embedding_length")?,
        keys.positive("attention.head_count")?,
    );
    let head_dim = keys
        .optional("attention.key_length")?
        .unwrap_or(hidden / heads);
    let kv_heads = keys.optional("attention.head_count_kv")?.unwrap_or(heads);
    let widths_fit = heads.saturating_mul(head_dim) <= MOST;
    if !widths_fit || head_dim == 0 || !head_dim.is_multiple_of(2) || heads % kv_heads != 0 {
        return Err(file.metadata_error(
            &keys.full("attention.head_count"),
            "must be a multiple of head_count_kv, with heads of even width",
        ));
    }
    let layers = keys.positive("block_count")?;
    let rotary = keys.rotary(head_dim)?;
    let mut config = ModelConfig {
        name: crate::gguf::name_of(file.path()),
        layers,
        hidden,
        intermediate: keys.positive("feed_forward_length")?,
        heads,
        kv_heads,
        head_dim,
        vocabulary: file.raw("token_embd.weight")?.rows,
        context_length: keys.positive("context_length")?,
        rope_theta: rotary.theta,
        rms_epsilon: keys
            .float("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| {
                file.metadata_error(&keys.full("attention.layer_norm_rms_epsilon"), "is missing")
            })?,
        decoder: Decoder::plain(layers, head_dim, rotary.theta),
    };
    config.decoder = keys.decoder(&config, architecture, rotary)?;
    Ok(config)
}

struct Keys<'a> {
    file: &'a GgufFile,
    prefix: &'static str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.file.metadata().get(&self.full(key))
    }

    fn positive(&self, key: &str) -> Result<usize, LoadError> {
        match self.optional(key)? {
            Some(value) => Ok(value),
            None if self.value(key).is_none() => {
                Err(self.file.metadata_error(&self.full(key), "is missing"))
            }
            None => Err((self.file).metadata_error(&self.full(key), "must be a positive integer")),
        }
    }

    /// A whole number; `None` when it is missing or zero.
    fn optional(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        // Sizes are allocated before every tensor is looked at, so a damaged number must not get that far.
        match value.to_u64().map(usize::try_from) {
            Ok(Ok(value)) if value <= MOST => Ok((value > 0).then_some(value)),
            Ok(_) => Err((self.file)
                .metadata_error(&self.full(key), "is over 1,048,576: is the file damaged?")),
            Err(_) => Err((self.file).metadata_error(&self.full(key), "must be one whole number")),
        }
    }

    fn float(&self, key: &str) -> Result<Option<f32>, LoadError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let value = value.to_f32().ok().filter(|value| value.is_finite());
        let wrong = || (self.file).metadata_error(&self.full(key), "must be a finite 32-bit float");
        value.map(Some).ok_or_else(wrong)
    }

    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        let refuse = |feature: String| {
            Err(LoadError::Unsupported {
                path: self.file.path().to_path_buf(),
                feature,
            })
        };
        if self.optional("expert_count")?.is_some() {
            return refuse("a mixture of experts (`expert_count`)".to_owned());
        }
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if self.float(key)?.is_some_and(|cap| cap != 0.0) {
                return refuse(format!("logit soft-capping (`{}`)", self.full(key)));
            }
        }
        let scaling = text(self.file, &self.full("rope.scaling.type"))?;
        match scaling.as_deref() {
            None | Some("none" | "linear" | "longrope") => Ok(()),
            Some(other) => refuse(format!("rotary scaling of type `{other}`")),
        }
    }

    /// The rotary embedding of layers that see everything.
    fn rotary(&self, head_dim: usize) -> Result<Rotary, LoadError> {
        let dimensions = self.optional("rope.dimension_count")?.unwrap_or(head_dim);
        if dimensions > head_dim || !dimensions.is_multiple_of(2) {
            return Err(self.file.metadata_error(
                &self.full("rope.dimension_count"),
                "must be even and at most the width of a head",
            ));
        }
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        let plain = Rotary::plain(dimensions, theta);
        let vector = |name| self.file.vector(name, dimensions / 2);
        if self.file.has("rope_factors_long.weight") {
            let context = self.positive("context_length")? as f64;
            let original = self.positive("rope.scaling.original_context_length")?;
            let magnitude = self.float("rope.scaling.attn_factor")?;
            return Ok(Rotary {
                divisors: vector("rope_factors_short.weight")?,
                long: Some(LongRotary {
                    beyond: original,
                    divisors: vector("rope_factors_long.weight")?,
                }),
                magnitude: magnitude.unwrap_or_else(|| long_magnitude(context, original as f64)),
                ..plain
            });
        }
        if self.file.has("rope_freqs.weight") {
            return Ok(Rotary {
                divisors: vector("rope_freqs.weight")?,
                ..plain
            });
        }
        let scaling = text(self.file, &self.full("rope.scaling.type"))?;
        let factor = match scaling.as_deref() {
            Some("linear") => self.float("rope.scaling.factor")?,
            _ => self.float("rope.scale_linear")?,
        };
        let divisors = match factor {
            Some(factor) if factor != 1.0 && factor > 0.0 => vec![factor; dimensions / 2],
            _ => Vec::new(),
        };
        Ok(Rotary { divisors, ..plain })
    }

    fn decoder(
        &self,
        config: &ModelConfig,
        architecture: Architecture,
        rotary: Rotary,
    ) -> Result<Decoder, LoadError> {
        let gemma = architecture == Architecture::Gemma3;
        let plain_scale = match gemma && config.layers == GEMMA_27B_LAYERS {
            true => 1.0 / ((config.hidden / config.heads) as f32).sqrt(),
            false => 1.0 / (config.head_dim as f32).sqrt(),
        };
        let mut rotaries = vec![rotary];
        if gemma {
            let theta = self.float("rope.freq_base_swa")?;
            rotaries.push(Rotary::plain(
                rotaries[0].dimensions,
                theta.unwrap_or(GEMMA_LOCAL_THETA),
            ));
        }
        let decoder = Decoder {
            attention_scale: self.float("attention.scale")?.unwrap_or(plain_scale),
            query_key_value_bias: self.file.has("blk.0.attn_q.bias"),
            tied_head: !self.file.has("output.weight"),
            layers: self.attention(config.layers, gemma)?,
            rotaries,
            ..config.decoder.clone()
        };
        Ok(decoder.with_architecture(architecture, config.hidden))
    }

    fn attention(&self, layers: usize, gemma: bool) -> Result<Vec<LayerAttention>, LoadError> {
        let window = self.optional("attention.sliding_window")?;
        let Some(window) = window.filter(|_| gemma) else {
            return Ok(uniform_attention(layers, window));
        };
        let key = "attention.sliding_window_pattern";
        let local: Vec<bool> = match self.value(key) {
            Some(Value::Array(pattern)) if pattern.len() == layers => {
                let flags = pattern.iter().map(|flag| flag.to_bool());
                flags.collect::<Result<_, _>>().map_err(|_| {
                    (self.file).metadata_error(&self.full(key), "must hold truth values")
                })?
            }
            _ => {
                let pattern = self.optional(key)?.unwrap_or(GEMMA_PATTERN);
                (1..=layers).map(|layer| layer % pattern != 0).collect()
            }
        };
        Ok(alternating_attention(local, window))
    }
}

fn text(file: &GgufFile, key: &str) -> Result<Option<String>, LoadError> {
    let Some(value) = file.metadata().get(key) else {
        return Ok(None);
    };
    match value.to_string() {
        Ok(text) => Ok(Some(text.clone())),
        Err(_) => Err(file.metadata_error(key, "must be a string")),
    }
}
