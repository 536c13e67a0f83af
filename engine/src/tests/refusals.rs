//! Models that would be computed wrongly are refused, and the message says what they have.

use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use serde_json::json;

use super::*;
use crate::testing::TinyDecoder;
use crate::{DenseWeights, LoadError};

fn refusal(path: &Path) -> String {
    let error = Model::load(path, &options(KernelChoice::Portable, false)).err();
    without_folder(&error.expect("a refusal"), path)
}

fn without_folder(error: &LoadError, path: &Path) -> String {
    let folder = path.parent().expect("a file in a folder").display();
    error.to_string().replace(&format!("{folder}/"), "")
}

/// A GGUF file with these metadata and nothing else.
fn file_with(folder: &Path, metadata: &[(&str, Value)]) -> std::path::PathBuf {
    let path = folder.join("bare.gguf");
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let mut file = fs_err::File::create(&path).expect("a writable folder");
    gguf_file::write(&mut file, &metadata, &[]).expect("a writable file");
    path
}

#[test]
fn gguf_files_beyond_the_supported_are_refused_by_what_they_have() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |value: &str| Value::String(value.to_owned());
    let refuse = |metadata: &[(&str, Value)]| refusal(&file_with(folder.path(), metadata));
    insta::assert_snapshot!(refuse(&[("general.architecture", text("mamba"))]), @"bare.gguf: architecture `mamba` is not supported; supported: llama, mistral, qwen2, qwen3, gemma3, phi3");
    insta::assert_snapshot!(refuse(&[
        ("general.architecture", text("llama")),
        ("llama.expert_count", Value::U32(8)),
    ]), @"bare.gguf: a mixture of experts (`expert_count`) is not supported");
    insta::assert_snapshot!(refuse(&[
        ("general.architecture", text("gemma3")),
        ("gemma3.final_logit_softcapping", Value::F32(30.0)),
    ]), @"bare.gguf: logit soft-capping (`gemma3.final_logit_softcapping`) is not supported");
    insta::assert_snapshot!(refuse(&[
        ("general.architecture", text("qwen2")),
        ("qwen2.rope.scaling.type", text("yarn")),
    ]), @"bare.gguf: rotary scaling of type `yarn` is not supported");
    insta::assert_snapshot!(refuse(&[("general.architecture", text("qwen3"))]), @"bare.gguf: metadata key `qwen3.embedding_length`: is missing");
}

#[test]
fn a_tensor_that_would_be_left_out_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    let written = TinyDecoder::Qwen2.write_gguf(&path);
    written.expect("a writable folder");
    let mut bytes = fs_err::read(&path).expect("it was written");
    let name = b"blk.1.attn_v.bias";
    let found = bytes.windows(name.len()).position(|window| window == name);
    let at = found.expect("the name is there");
    bytes[at + b"blk.1.attn_".len()] = b'o';
    fs_err::write(&path, bytes).expect("a writable folder");
    insta::assert_snapshot!(refusal(&path), @"tiny.gguf: a qwen2 model with a tensor `blk.1.attn_o.bias` is not supported");
}

#[test]
fn directories_beyond_the_supported_are_refused_by_the_field() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refuse = |decoder: TinyDecoder, changes: serde_json::Value| {
        let path = folder.path().join("tiny");
        let written = decoder.write_directory(&path, false);
        written.expect("a writable folder");
        let config = path.join("config.json");
        let text = fs_err::read_to_string(&config).expect("it was written");
        let mut fields: serde_json::Map<_, _> = serde_json::from_str(&text).expect("JSON");
        fields.extend(changes.as_object().expect("fields").clone());
        let text = serde_json::to_string(&fields).expect("JSON");
        fs_err::write(config, text).expect("a writable folder");
        refusal(&path)
    };
    use TinyDecoder::{Gemma3, Llama3, Mistral, Qwen2, Qwen3};
    insta::assert_snapshot!(refuse(Llama3, json!({"model_type": "mixtral"})), @"tiny/config.json: architecture `mixtral` is not supported; supported: llama, mistral, qwen2, qwen3, gemma3, phi3");
    insta::assert_snapshot!(refuse(Llama3, json!({"attention_bias": true})), @"tiny/config.json: `attention_bias` is not supported");
    insta::assert_snapshot!(refuse(Llama3, json!({"hidden_act": "gelu"})), @"tiny/config.json: `hidden_act` of `gelu` instead of `silu` is not supported");
    insta::assert_snapshot!(refuse(Qwen3, json!({"rope_parameters": {"rope_type": "yarn"}})), @"tiny/config.json: rotary scaling of type `yarn` is not supported");
    insta::assert_snapshot!(refuse(Qwen3, json!({"quantization_config": {"bits": 4}})), @"tiny/config.json: weights quantised outside GGUF (`quantization_config`) is not supported");
    insta::assert_snapshot!(refuse(Gemma3, json!({"final_logit_softcapping": 30.0})), @"tiny/config.json: logit soft-capping (`final_logit_softcapping`) is not supported");
    insta::assert_snapshot!(refuse(Gemma3, json!({"layer_types": vec!["linear_attention"; 7]})), @r#"tiny/config.json: `layer_types` with "linear_attention" is not supported"#);
    insta::assert_snapshot!(refuse(Mistral, json!({"num_key_value_heads": 3})), @"tiny/config.json: metadata key `num_attention_heads`: must be a multiple of num_key_value_heads, with heads of even width");
    insta::assert_snapshot!(refuse(Mistral, json!({"hidden_size": 128})), @"tiny: tensor `lm_head.weight`: is 320 × 64, expected 320 × 128");
    insta::assert_snapshot!(refuse(Qwen2, json!({"vocab_size": 5_000_000})), @"tiny/config.json: metadata key `vocab_size`: must be a whole number from 1 to 1,048,576");
}

#[test]
fn what_is_beyond_a_plain_llama_is_served_and_not_trained() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    let reasons = TinyDecoder::ALL.map(|decoder| {
        decoder.write_gguf(&path).expect("a writable folder");
        let error = DenseWeights::load(&path).err();
        without_folder(&error.expect("a refusal"), &path)
    });
    insta::assert_snapshot!(reasons.join("\n"), @r#"
tiny.gguf: training does not support scaled rotary frequencies; it supports Llama 2 and SmolLM2 style models in GGUF
tiny.gguf: training does not support sliding-window attention; it supports Llama 2 and SmolLM2 style models in GGUF
tiny.gguf: training does not support query, key and value biases; it supports Llama 2 and SmolLM2 style models in GGUF
tiny.gguf: training does not support query and key norms; it supports Llama 2 and SmolLM2 style models in GGUF
tiny.gguf: training does not support query and key norms; it supports Llama 2 and SmolLM2 style models in GGUF
tiny.gguf: training does not support sliding-window attention; it supports Llama 2 and SmolLM2 style models in GGUF
"#);
    let plain = TinyModel::write(folder.path(), 3);
    assert!(DenseWeights::load(&plain).is_ok());
}
