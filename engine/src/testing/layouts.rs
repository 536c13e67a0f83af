//! How the formats describe and name the tiny decoders, spelled out as real files have it.

use candle_core::quantized::gguf_file::Value;
use serde_json::json;

use super::TinyModel;
use super::decoder::{CONTEXT, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, TinyDecoder};

/// LongRoPE divisors of the tiny Phi-3, short and long: six pairs, three quarters of a head of 16.
pub const LONG_ROPE: [[f32; 6]; 2] = [
    [1.0, 1.0625, 1.125, 1.25, 1.5, 2.0],
    [1.0, 1.5, 2.0, 4.0, 6.0, 8.0],
];

/// The `config.json` of a tiny decoder.
pub(super) fn config_json(decoder: TinyDecoder) -> serde_json::Value {
    let sizes = decoder.sizes();
    let mut config = json!({
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": sizes.layers,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": CONTEXT,
        "vocab_size": TinyModel::default().vocabulary(), "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "tie_word_embeddings": sizes.tied, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    });
    let more = match decoder {
        TinyDecoder::Llama3 => json!({
            "model_type": "llama", "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        }),
        TinyDecoder::Mistral => json!({
            "model_type": "mistral", "sliding_window": 5, "rope_theta": 1000.0, "head_dim": null,
        }),
        TinyDecoder::Qwen2 => json!({
            "model_type": "qwen2", "sliding_window": 3, "use_sliding_window": false, "max_window_layers": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        }),
        TinyDecoder::Qwen3 => json!({
            "model_type": "qwen3", "head_dim": 32,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        }),
        TinyDecoder::Gemma3 => json!({
            "model_type": "gemma3_text", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 4,
            "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 100000.0, "rope_local_base_freq": 100.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        }),
        TinyDecoder::Phi3 => json!({
            "model_type": "phi3", "sliding_window": 7, "original_max_position_embeddings": 16,
            "rope_theta": 1000.0, "partial_rotary_factor": 0.75,
            "rope_scaling": {"type": "longrope", "short_factor": LONG_ROPE[0], "long_factor": LONG_ROPE[1]},
        }),
    };
    let (config_map, more) = (config.as_object_mut(), more.as_object().cloned());
    if let (Some(config), Some(more)) = (config_map, more) {
        config.extend(more);
    }
    config
}

/// The metadata of a tiny decoder's GGUF file.
pub(super) fn gguf_metadata(decoder: TinyDecoder) -> Vec<(String, Value)> {
    let prefix = match decoder {
        TinyDecoder::Llama3 | TinyDecoder::Mistral => "llama",
        TinyDecoder::Qwen2 => "qwen2",
        TinyDecoder::Qwen3 => "qwen3",
        TinyDecoder::Gemma3 => "gemma3",
        TinyDecoder::Phi3 => "phi3",
    };
    let sizes = decoder.sizes();
    let mut keys = vec![
        ("block_count", count(sizes.layers)),
        ("context_length", count(CONTEXT)),
        ("embedding_length", count(HIDDEN)),
        ("feed_forward_length", count(INTERMEDIATE)),
        ("attention.head_count", count(HEADS)),
        ("attention.head_count_kv", count(KV_HEADS)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.dimension_count", count(sizes.head_dim)),
    ];
    describe(decoder, &mut keys);
    let own = keys
        .into_iter()
        .map(|(key, value)| (format!("{prefix}.{key}"), value));
    let tokenizer = TinyModel::default().metadata().into_iter();
    let tokenizer = tokenizer.filter(|(key, _)| key.starts_with("tokenizer."));
    let architecture = Value::String(prefix.to_owned());
    own.chain(tokenizer.map(|(key, value)| (key.to_owned(), value)))
        .chain([("general.architecture".to_owned(), architecture)])
        .collect()
}

fn count(value: usize) -> Value {
    Value::U32(u32::try_from(value).expect("a tiny model is tiny"))
}

/// The keys in which the decoders differ.
fn describe(decoder: TinyDecoder, keys: &mut Vec<(&'static str, Value)>) {
    let head_dim = decoder.sizes().head_dim;
    let theta = |theta| ("rope.freq_base", Value::F32(theta));
    let lengths = [
        ("attention.key_length", count(head_dim)),
        ("attention.value_length", count(head_dim)),
    ];
    let linear = |factor| {
        let kind = Value::String("linear".to_owned());
        let factor = ("rope.scaling.factor", Value::F32(factor));
        [("rope.scaling.type", kind), factor]
    };
    match decoder {
        TinyDecoder::Llama3 => keys.push(theta(10_000.0)),
        TinyDecoder::Mistral => {
            keys.extend([theta(1000.0), ("attention.sliding_window", count(5))]);
        }
        TinyDecoder::Qwen2 => keys.push(theta(500.0)),
        TinyDecoder::Qwen3 => {
            keys.push(theta(10_000.0));
            keys.extend(lengths.into_iter().chain(linear(2.0)));
        }
        TinyDecoder::Gemma3 => {
            keys.extend([theta(100_000.0), ("rope.freq_base_swa", Value::F32(100.0))]);
            keys.push(("attention.sliding_window", count(4)));
            keys.extend(lengths.into_iter().chain(linear(8.0)));
        }
        TinyDecoder::Phi3 => {
            keys.pop();
            keys.extend([
                theta(1000.0),
                ("rope.dimension_count", count(12)),
                ("attention.sliding_window", count(7)),
                ("rope.scaling.original_context_length", count(16)),
            ]);
        }
    }
}

/// The tensors in which GGUF keeps rotary divisors.
pub(super) fn gguf_rope_tensors(decoder: TinyDecoder) -> Vec<(&'static str, Vec<f32>)> {
    match decoder {
        TinyDecoder::Llama3 => vec![("rope_freqs.weight", llama3_divisors())],
        TinyDecoder::Phi3 => vec![
            ("rope_factors_short.weight", LONG_ROPE[0].to_vec()),
            ("rope_factors_long.weight", LONG_ROPE[1].to_vec()),
        ],
        _ => Vec::new(),
    }
}

/// What a converter writes for the tiny Llama's scaling: factor 8, low 1, high 4, original context 64.
fn llama3_divisors() -> Vec<f32> {
    let divisor = |pair: usize| {
        let frequency = 1.0 / 10_000f32.powf(2.0 * pair as f32 / 16.0);
        let wavelength = std::f32::consts::TAU / frequency;
        if wavelength < 64.0 / 4.0 {
            1.0
        } else if wavelength > 64.0 {
            8.0
        } else {
            let smooth = (64.0 / wavelength - 1.0) / (4.0 - 1.0);
            1.0 / ((1.0 - smooth) / 8.0 + smooth)
        }
    };
    (0..8).map(divisor).collect()
}

/// The GGUF name of a tensor by its name in transformers.
pub(super) fn gguf_name(decoder: TinyDecoder, name: &str) -> String {
    let gemma = decoder == TinyDecoder::Gemma3;
    let Some(rest) = name.strip_prefix("model.layers.") else {
        let name = match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            _ => "output.weight",
        };
        return name.to_owned();
    };
    let (layer, part) = rest.split_once('.').expect("a part follows the number");
    let (module, kind) = part.rsplit_once('.').expect("weight or bias comes last");
    let module = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if gemma => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        _ => "ffn_down",
    };
    format!("blk.{layer}.{module}.{kind}")
}
