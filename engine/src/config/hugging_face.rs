//! From a Hugging Face `config.json` to a [`ModelConfig`]. Defaults are those of the configuration classes of
//! transformers.

use std::path::Path;

use serde_json::Value;

use super::decoder::{alternating_attention, uniform_attention};
use super::fields::Fields;
use super::rotary::{Llama3Scaling, long_magnitude};
use super::{Architecture, Decoder, LayerAttention, LongRotary, MOST, ModelConfig, Rotary};
use crate::error::LoadError;

/// The model of `name` that the parsed `config.json` at `path` describes. `has_bias` says whether the weights hold
/// biases of queries, keys and values, which some configurations do not tell.
pub(crate) fn from_config_json(
    path: &Path,
    json: &Value,
    name: String,
    has_bias: bool,
) -> Result<ModelConfig, LoadError> {
    let root = Fields::new(path, json)?;
    let architecture = architecture(path, &root)?;
    let fields = root.object("text_config")?.unwrap_or(root);
    refuse_unsupported(&fields, architecture)?;
    let hidden = fields.positive("hidden_size")?;
    let heads = fields.positive("num_attention_heads")?;
    let kv_heads = fields
        .optional_positive("num_key_value_heads")?
        .unwrap_or(heads);
    let head_dim = (fields.optional_positive("head_dim")?).unwrap_or(hidden / heads);
    let widths_fit = heads.saturating_mul(head_dim) <= MOST;
    if !widths_fit || head_dim == 0 || !head_dim.is_multiple_of(2) || heads % kv_heads != 0 {
        let reason = "must be a multiple of num_key_value_heads, with heads of even width";
        return Err(fields.error("num_attention_heads", reason));
    }
    let layers = fields.positive("num_hidden_layers")?;
    let context_length = fields.positive("max_position_embeddings")?;
    let rotaries = match architecture {
        Architecture::Gemma3 => gemma_rotaries(&fields, head_dim)?,
        _ => vec![plain_rotary(&fields, head_dim)?],
    };
    let config = ModelConfig {
        name,
        layers,
        hidden,
        intermediate: fields.positive("intermediate_size")?,
        heads,
        kv_heads,
        head_dim,
        vocabulary: fields.positive("vocab_size")?,
        context_length,
        rope_theta: rotaries[0].theta,
        rms_epsilon: fields.required_number("rms_norm_eps")? as f32,
        decoder: Decoder {
            query_key_value_bias: has_bias,
            tied_head: fields
                .flag("tie_word_embeddings")?
                .unwrap_or(architecture == Architecture::Gemma3),
            attention_scale: attention_scale(&fields, architecture, head_dim)?,
            layers: attention(&fields, architecture, layers)?,
            rotaries,
            ..Decoder::plain(0, head_dim, 1.0)
        }
        .with_architecture(architecture, hidden),
    };
    Ok(config)
}

fn architecture(path: &Path, root: &Fields<'_>) -> Result<Architecture, LoadError> {
    let model_type = root
        .text("model_type")?
        .ok_or_else(|| root.error("model_type", "is missing"))?;
    if root.get("quantization_config").is_some() {
        return Err(root.refusal("weights quantised outside GGUF (`quantization_config`)".into()));
    }
    Architecture::from_name(model_type).ok_or_else(|| LoadError::Architecture {
        path: path.to_path_buf(),
        architecture: model_type.to_owned(),
    })
}

fn refuse_unsupported(fields: &Fields<'_>, architecture: Architecture) -> Result<(), LoadError> {
    for key in ["attention_bias", "mlp_bias", "use_bidirectional_attention"] {
        if fields.flag(key)?.unwrap_or(false) {
            return Err(fields.refusal(format!("`{key}`")));
        }
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if fields.number(key)?.is_some_and(|cap| cap != 0.0) {
            return Err(fields.refusal(format!("logit soft-capping (`{key}`)")));
        }
    }
    let (key, expected) = match architecture {
        Architecture::Gemma3 => ("hidden_activation", "gelu_pytorch_tanh"),
        _ => ("hidden_act", "silu"),
    };
    match fields.text(key)? {
        Some(found) if found != expected => {
            Err(fields.refusal(format!("`{key}` of `{found}` instead of `{expected}`")))
        }
        _ => Ok(()),
    }
}

fn attention_scale(
    fields: &Fields<'_>,
    architecture: Architecture,
    head_dim: usize,
) -> Result<f32, LoadError> {
    let scalar = match architecture {
        Architecture::Gemma3 => fields.number("query_pre_attn_scalar")?.unwrap_or(256.0),
        _ => head_dim as f64,
    };
    if scalar <= 0.0 {
        return Err(fields.error("query_pre_attn_scalar", "must be positive"));
    }
    Ok(1.0 / (scalar as f32).sqrt())
}

/// What every layer sees. Qwen says with `use_sliding_window` whether its window counts at all.
fn attention(
    fields: &Fields<'_>,
    architecture: Architecture,
    layers: usize,
) -> Result<Vec<LayerAttention>, LoadError> {
    let window = fields.optional_positive("sliding_window")?;
    let used = fields.flag("use_sliding_window")?.unwrap_or(false);
    let window = match architecture {
        Architecture::Llama => None,
        Architecture::Mistral | Architecture::Phi3 => {
            return Ok(uniform_attention(layers, window));
        }
        Architecture::Qwen2 | Architecture::Qwen3 => window.filter(|_| used),
        Architecture::Gemma3 => window,
    };
    let Some(window) = window else {
        return Ok(uniform_attention(layers, None));
    };
    let mut attention = alternating_attention(local_layers(fields, architecture, layers)?, window);
    if architecture != Architecture::Gemma3 {
        attention.iter_mut().for_each(|layer| layer.rotary = 0);
    }
    Ok(attention)
}

/// Whether each layer is local: as `layer_types` lists it, or by the older rules.
fn local_layers(
    fields: &Fields<'_>,
    architecture: Architecture,
    layers: usize,
) -> Result<Vec<bool>, LoadError> {
    let Some(types) = fields.get("layer_types") else {
        if architecture == Architecture::Gemma3 {
            let pattern = fields.optional_positive("sliding_window_pattern")?;
            let pattern = pattern.unwrap_or(6);
            return Ok((1..=layers).map(|layer| layer % pattern != 0).collect());
        }
        let first = fields.optional_positive("max_window_layers")?.unwrap_or(28);
        return Ok((0..layers).map(|layer| layer >= first).collect());
    };
    let types = types.as_array().map(Vec::as_slice).unwrap_or_default();
    if types.len() != layers {
        return Err(fields.error(
            "layer_types",
            "must be a list with one entry for each layer",
        ));
    }
    let local = types.iter().map(|kind| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(fields.refusal(format!("`layer_types` with {kind}"))),
    });
    local.collect()
}

/// The rotary embedding from `rope_parameters`, or from the older `rope_scaling` and `rope_theta`.
fn plain_rotary(fields: &Fields<'_>, head_dim: usize) -> Result<Rotary, LoadError> {
    let scaling = match fields.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    rotary(fields, scaling.as_ref(), head_dim, ("rope_theta", 10_000.0))
}

/// Gemma 3's global and local rotary embeddings.
fn gemma_rotaries(fields: &Fields<'_>, head_dim: usize) -> Result<Vec<Rotary>, LoadError> {
    let nested = |kind| match fields.object("rope_parameters")? {
        Some(parameters) => parameters.object(kind),
        None => Ok(None),
    };
    let (mut global, local) = (nested("full_attention")?, nested("sliding_attention")?);
    if global.is_none() {
        global = fields.object("rope_scaling")?;
    }
    Ok(vec![
        rotary(
            fields,
            global.as_ref(),
            head_dim,
            ("rope_theta", 1_000_000.0),
        )?,
        rotary(
            fields,
            local.as_ref(),
            head_dim,
            ("rope_local_base_freq", 10_000.0),
        )?,
    ])
}

/// `older` is the field of the whole configuration that older files keep the base in, with its default.
fn rotary(
    fields: &Fields<'_>,
    scaling: Option<&Fields<'_>>,
    head_dim: usize,
    older: (&str, f64),
) -> Result<Rotary, LoadError> {
    let number = |key: &str| match scaling.map(|scaling| scaling.number(key)) {
        Some(found) => found,
        None => Ok(None),
    };
    let theta = match number("rope_theta")? {
        Some(theta) => theta,
        None => fields.number(older.0)?.unwrap_or(older.1),
    };
    let part = match number("partial_rotary_factor")? {
        Some(part) => part,
        None => fields.number("partial_rotary_factor")?.unwrap_or(1.0),
    };
    let dimensions = (head_dim as f64 * part) as usize;
    if !(0.0..=1.0).contains(&part) || !dimensions.is_multiple_of(2) || dimensions == 0 {
        let reason = "must leave an even number of a head's elements to turn";
        return Err(fields.error("partial_rotary_factor", reason));
    }
    let plain = Rotary::plain(dimensions, theta as f32);
    let Some(scaling) = scaling else {
        return Ok(plain);
    };
    let kind = match scaling.text("rope_type")? {
        Some(kind) => kind,
        None => scaling.text("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => Ok(plain),
        "linear" => Ok(Rotary {
            divisors: vec![scaling.required_number("factor")? as f32; dimensions / 2],
            ..plain
        }),
        "llama3" => llama3(fields, scaling, plain),
        // Phi-3's first files call LongRoPE by these names.
        "longrope" | "su" => long(fields, scaling, plain),
        "yarn" if scaling.get("short_factor").is_some() => long(fields, scaling, plain),
        other => Err(fields.refusal(format!("rotary scaling of type `{other}`"))),
    }
}

fn llama3(fields: &Fields<'_>, scaling: &Fields<'_>, plain: Rotary) -> Result<Rotary, LoadError> {
    let original = match scaling.number("original_max_position_embeddings")? {
        Some(original) => original,
        None => fields.required_number("max_position_embeddings")?,
    };
    let parameters = Llama3Scaling {
        factor: scaling.required_number("factor")? as f32,
        low_frequency_factor: scaling.required_number("low_freq_factor")? as f32,
        high_frequency_factor: scaling.required_number("high_freq_factor")? as f32,
        original_context: original as f32,
    };
    Ok(Rotary {
        divisors: parameters.divisors(plain.dimensions, plain.theta),
        ..plain
    })
}

fn long(fields: &Fields<'_>, scaling: &Fields<'_>, plain: Rotary) -> Result<Rotary, LoadError> {
    let context = fields.positive("max_position_embeddings")? as f64;
    let key = "original_max_position_embeddings";
    let original = match fields.optional_positive(key)? {
        Some(original) => original,
        None => scaling.optional_positive(key)?.unwrap_or(4096),
    };
    let stretched = match scaling.number("factor")? {
        Some(factor) => factor * original as f64,
        None => context,
    };
    let magnitude = scaling.number("attention_factor")?.map(|x| x as f32);
    Ok(Rotary {
        divisors: scaling.numbers("short_factor", plain.dimensions / 2)?,
        long: Some(LongRotary {
            beyond: original,
            divisors: scaling.numbers("long_factor", plain.dimensions / 2)?,
        }),
        magnitude: magnitude.unwrap_or_else(|| long_magnitude(stretched, original as f64)),
        ..plain
    })
}
