//! `trainer merge`: base and adapter as one model, a Hugging Face directory that transformers loads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value as GgufValue;
use clap::Args;
use engine::{DenseWeights, ModelConfig, Tokenizer};
use fs_err as fs;
use safetensors::serialize_to_file;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::error::TrainerError;
use crate::opened::{AdapterArguments, Opened, add_delta};

/// The flags of `trainer merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeArguments {
    /// Which adapter
    #[command(flatten)]
    pub adapter: AdapterArguments,

    /// Where the model's directory is written; it must not exist
    #[arg(long)]
    pub out: PathBuf,
}

/// Writes `config.json`, `model.safetensors` in f32, and the tokenizer's files.
///
/// # Errors
/// What is wrong with the adapter or the model file, or why the directory cannot be written.
pub fn merge(arguments: &MergeArguments) -> Result<(), TrainerError> {
    let out = &arguments.out;
    if out.exists() {
        return Err(TrainerError::argument(
            "--out",
            &out.display().to_string(),
            "a directory that does not exist yet",
        ));
    }
    let opened = Opened::open(&arguments.adapter)?;
    let metadata = opened.file.metadata();
    let tokenizer = Tokenizer::from_metadata(metadata)?;
    let mut weights = opened.weights()?;
    for module in &opened.adapter.modules {
        add_delta(
            module,
            weights.layers[module.layer].matrix_mut(module.projection),
        );
    }
    let aside = out.with_extension("partial");
    fs::create_dir_all(&aside)?;
    write_weights(&weights, &aside.join("model.safetensors"))?;
    write_json(
        &aside.join("config.json"),
        &configuration(&weights.config, &tokenizer),
    )?;
    fs::write(aside.join("tokenizer.json"), tokenizer.to_json()?)?;
    let template = match metadata.get("tokenizer.chat_template") {
        Some(GgufValue::String(template)) => Value::from(template.as_str()),
        _ => Value::Null,
    };
    write_json(
        &aside.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokenizer.token_string(tokenizer.bos()),
            "eos_token": tokenizer.token_string(tokenizer.eos()),
            "pad_token": tokenizer.token_string(tokenizer.pad()),
            "model_max_length": weights.config.context_length,
            "clean_up_tokenization_spaces": false,
            "chat_template": template,
        }),
    )?;
    Ok(fs::rename(aside, out)?)
}

/// `config.json` of a plain Llama model; nothing else can be read as [`DenseWeights`].
fn configuration(config: &ModelConfig, tokenizer: &Tokenizer) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_length,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_epsilon,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": config.decoder.tied_head,
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.eos(),
        "pad_token_id": tokenizer.pad(),
        "torch_dtype": "float32",
    })
}

fn write_weights(weights: &DenseWeights, path: &Path) -> Result<(), TrainerError> {
    let hidden = weights.config.hidden;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, columns: Option<usize>, values: &[f32]| {
        let shape = match columns {
            Some(columns) => vec![values.len() / columns, columns],
            None => vec![values.len()],
        };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        tensors.push((name, shape, bytes.collect()));
    };
    add(
        "model.embed_tokens.weight".into(),
        Some(hidden),
        &weights.embedding,
    );
    add("model.norm.weight".into(), None, &weights.output_norm);
    if let Some(head) = &weights.head {
        add("lm_head.weight".into(), Some(hidden), head);
    }
    let shapes = weights.config.projection_shapes();
    for (index, layer) in weights.layers.iter().enumerate() {
        for (projection, shape) in adapters::Projection::ALL.into_iter().zip(shapes) {
            let name = format!("{}.weight", projection.module_path(index));
            add(name, Some(shape.inputs), layer.matrix(projection));
        }
        let norms = [
            ("input_layernorm", &layer.attention_norm),
            ("post_attention_layernorm", &layer.feed_forward_norm),
        ];
        for (name, values) in norms {
            add(format!("model.layers.{index}.{name}.weight"), None, values);
        }
    }
    let failed = |error: safetensors::SafeTensorError| std::io::Error::other(error);
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?;
            Ok((name.as_str(), view))
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(serialize_to_file(views, Some(metadata), path).map_err(failed)?)
}

fn write_json(path: &Path, value: &Value) -> Result<(), TrainerError> {
    let text = serde_json::to_vec_pretty(value).map_err(std::io::Error::from)?;
    Ok(fs::write(path, text)?)
}
