//! `trainer export`: an adapter as the GGUF file that llama.cpp loads with `--lora`.
//!
//! llama.cpp multiplies `B A` by alpha / rank, with one alpha for the whole file; where ranks and scales of an adapter have
//! no common alpha, the scale is multiplied into `B` and alpha is 0, which llama.cpp reads as a scale of one.

use std::io::BufWriter;
use std::path::PathBuf;

use adapters::{LoraModule, Projection};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use clap::Args;
use engine::gguf::unpermuted_rows;
use fs_err as fs;

use crate::error::TrainerError;
use crate::opened::{AdapterArguments, Opened};

/// The flags of `trainer export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArguments {
    /// Which adapter
    #[command(flatten)]
    pub adapter: AdapterArguments,

    /// The file to write
    #[arg(long)]
    pub out: PathBuf,
}

/// Writes the file; one that is there is replaced.
///
/// # Errors
/// What is wrong with the adapter or the model file, or why the file cannot be written.
pub fn export(arguments: &ExportArguments) -> Result<(), TrainerError> {
    let opened = Opened::open(&arguments.adapter)?;
    let modules = &opened.adapter.modules;
    let alpha = common_alpha(modules);
    let mut tensors = Vec::with_capacity(2 * modules.len());
    for module in modules {
        let inputs = module.a.len() / module.rank;
        let name = tensor_name(module);
        let b = rows_in_file_order(
            &opened,
            module,
            if alpha.is_some() { 1.0 } else { module.scale },
        )?;
        tensors.push((
            format!("{name}.lora_a"),
            tensor(module.a.clone(), module.rank, inputs)?,
        ));
        let outputs = b.len() / module.rank;
        tensors.push((format!("{name}.lora_b"), tensor(b, outputs, module.rank)?));
    }
    let text = |text: &str| Value::String(text.to_owned());
    let architecture = opened.file.metadata().get("general.architecture").cloned();
    let metadata = [
        ("general.type", text("adapter")),
        (
            "general.architecture",
            architecture.unwrap_or_else(|| text("llama")),
        ),
        ("general.name", text(&opened.adapter.version.to_string())),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(alpha.unwrap_or(0.0))),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let aside = arguments.out.with_extension("partial");
    let mut file = BufWriter::new(fs::File::create(&aside)?);
    gguf_file::write(&mut file, &metadata, &tensors)?;
    file.into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()?;
    Ok(fs::rename(aside, &arguments.out)?)
}

/// The alpha of which every module's scale is alpha / rank.
fn common_alpha(modules: &[LoraModule]) -> Option<f32> {
    let alpha = |module: &LoraModule| module.scale * module.rank as f32;
    let first = alpha(modules.first()?);
    let same = |module: &LoraModule| (alpha(module) - first).abs() <= 1e-6 * first;
    modules.iter().all(same).then_some(first)
}

/// `B` with its rows where the model file has those of the weight it changes.
fn rows_in_file_order(
    opened: &Opened,
    module: &LoraModule,
    scale: f32,
) -> Result<Vec<f32>, TrainerError> {
    let config = opened.config()?;
    let rows: Vec<&[f32]> = module.b.chunks_exact(module.rank).collect();
    let places = match module.projection {
        Projection::Query => unpermuted_rows(config.heads, config.head_dim),
        Projection::Key => unpermuted_rows(config.kv_heads, config.head_dim),
        _ => (0..rows.len()).collect(),
    };
    let mut ordered = vec![0.0; module.b.len()];
    for (row, place) in rows.iter().zip(places) {
        let destination = &mut ordered[place * module.rank..][..module.rank];
        destination
            .iter_mut()
            .zip(*row)
            .for_each(|(destination, value)| *destination = scale * value);
    }
    Ok(ordered)
}

fn tensor(values: Vec<f32>, rows: usize, columns: usize) -> candle_core::Result<QTensor> {
    let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
    QTensor::quantize(&tensor, GgmlDType::F32)
}

/// The weight's name in a GGUF file.
fn tensor_name(module: &LoraModule) -> String {
    let part = match module.projection {
        Projection::Query => "attn_q",
        Projection::Key => "attn_k",
        Projection::Value => "attn_v",
        Projection::Output => "attn_output",
        Projection::Gate => "ffn_gate",
        Projection::Up => "ffn_up",
        Projection::Down => "ffn_down",
    };
    format!("blk.{}.{part}.weight", module.layer)
}
