//! How fast optimizer steps are. `python bench/training.py` runs this in turns with PyTorch and PEFT on the same batches.
//!
//! `batches` prints batches of tokenised examples as a training would see them; `run` trains on such a file, the first batch
//! to warm up, and prints the seconds of each other step and the most memory the process had.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use adapters::Projection;
use clap::{Parser, Subcommand};
use engine::gguf::GgufFile;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trainer::batch::passes;
use trainer::examples::TokenizedExample;
use trainer::model::{PassOptions, TrainingModel};
use trainer::optimizer::{AdamW, AdamWOptions, Gradients};
use trainer::parameters::{LoraParameters, targets_of};
use trainer::recipe::ActivationBits;
use trainer::{TrainArguments, tokenized_examples};

const RANK: usize = 8;
const SCALE: f32 = 2.0;
const LEARNING_RATE: f64 = 1e-4;
const ROWS_PER_PASS: usize = 2048;

#[derive(Parser)]
struct Line {
    /// What cargo passes to every benchmark
    #[arg(long)]
    bench: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print batches
    Batches(Box<BatchArguments>),
    /// Train on batches
    Run(RunArguments),
}

#[derive(clap::Args)]
struct BatchArguments {
    /// How many batches
    #[arg(long)]
    count: usize,
    #[command(flatten)]
    training: TrainArguments,
}

#[derive(clap::Args)]
struct RunArguments {
    /// The model file
    #[arg(long)]
    model: PathBuf,
    /// The batches
    #[arg(long)]
    batches: PathBuf,
    /// Threads of the matrix products
    #[arg(long)]
    threads: usize,
    /// As `trainer train --activation-bits`
    #[arg(long, value_enum, default_value_t = ActivationBits::Mixed)]
    activation_bits: ActivationBits,
}

#[derive(Serialize, Deserialize)]
struct Example {
    prompt: Vec<u32>,
    completion: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    match Line::parse().command {
        Command::Batches(arguments) => print_batches(&arguments),
        Command::Run(arguments) => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(arguments.threads)
                .build()?;
            pool.install(|| run(&arguments))
        }
    }
}

fn print_batches(arguments: &BatchArguments) -> anyhow::Result<()> {
    let examples = tokenized_examples(&arguments.training)?;
    let size = arguments.training.recipe.batch_size;
    anyhow::ensure!(
        examples.len() >= size * arguments.count,
        "{} examples are too few for {} batches of {size}",
        examples.len(),
        arguments.count
    );
    let batches: Vec<Vec<Example>> = examples
        .chunks(size)
        .take(arguments.count)
        .map(|batch| {
            let example = |example: &TokenizedExample| Example {
                prompt: example.prompt.clone(),
                completion: example.completion.clone(),
            };
            batch.iter().map(example).collect()
        })
        .collect();
    Ok(serde_json::to_writer(std::io::stdout(), &batches)?)
}

fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let batches: Vec<Vec<Example>> = serde_json::from_slice(&fs_err::read(&arguments.batches)?)?;
    let file = GgufFile::open(&arguments.model)?;
    let model = TrainingModel::from_gguf(&file, arguments.activation_bits.resolution())?;
    let targets = targets_of(&Projection::ALL, RANK, SCALE);
    let parameters = LoraParameters::initialised(&model.base(""), &targets, 0)?;
    let mut optimizer = AdamW::new(&parameters, AdamWOptions::default());
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for batch in batches {
        let examples: Vec<TokenizedExample> = batch
            .into_iter()
            .map(|example| TokenizedExample {
                record: 0,
                prompt: example.prompt,
                completion: example.completion,
                label: None,
            })
            .collect();
        let began = Instant::now();
        losses.push(step(&model, &parameters, &mut optimizer, &examples)?);
        seconds.push(began.elapsed().as_secs_f64());
    }
    let answer = json!({"seconds": seconds[1..], "losses": losses, "peak_mib": peak_mib()?});
    Ok(writeln!(std::io::stdout(), "{answer}")?)
}

fn step(
    model: &TrainingModel,
    parameters: &LoraParameters,
    optimizer: &mut AdamW,
    examples: &[TokenizedExample],
) -> anyhow::Result<f32> {
    let targets = examples.iter().map(|example| example.completion.len());
    let options = PassOptions {
        weight: 1.0 / targets.sum::<usize>() as f32,
        dropout: 0.0,
        seed: 0,
        recompute: false,
    };
    let (mut loss, mut gradients) = (0.0, Gradients::default());
    for pass in passes(&examples.iter().collect::<Vec<_>>(), ROWS_PER_PASS) {
        let (own, found) =
            model.loss_and_gradients(parameters, &pass.inputs, &pass.targets, options)?;
        loss += own;
        gradients.add(found);
    }
    gradients.clip(1.0);
    optimizer.step(parameters, &gradients, LEARNING_RATE)?;
    Ok(loss)
}

/// The most resident memory this process had, in MiB.
fn peak_mib() -> anyhow::Result<f64> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or_else(|| anyhow::anyhow!("/proc/self/status has no VmHWM"))?
        .parse()?;
    Ok(kib / 1024.0)
}
