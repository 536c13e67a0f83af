//! The output directory: PEFT files, manifest, model card.

use adapters::{LoraConfig, Manifest, Method, Precision, Version, write_adapter};
use fs_err as fs;
use serde_json::json;

use crate::arguments::TrainArguments;
use crate::card::{Card, labels};
use crate::error::TrainerError;
use crate::evaluation::HeldOutScore;
use crate::parameters::LoraParameters;
use crate::preparation::Prepared;

/// What training measured.
pub(crate) struct Finished<'a> {
    pub(crate) held_out: &'a [HeldOutScore],
    pub(crate) steps: usize,
    pub(crate) seconds: f64,
}

/// Writes everything but the log and returns the adapter's content version.
pub(crate) fn publish(
    arguments: &TrainArguments,
    prepared: &Prepared,
    parameters: &LoraParameters,
    finished: &Finished<'_>,
) -> Result<Version, TrainerError> {
    let command_line = command_line(arguments, prepared);
    let manifest = manifest(arguments, prepared, finished, &command_line);
    let config = LoraConfig::new(
        prepared.base.name.clone(),
        arguments.rank,
        arguments.alpha,
        arguments.targets.clone(),
        f64::from(arguments.dropout),
    );
    // f16 holds what serving uses, in half the space.
    let precision = Precision::F16;
    let modules = parameters.modules()?;
    let version = write_adapter(&arguments.out, &config, &modules, &manifest, precision)?;
    let card = Card {
        arguments,
        manifest: &manifest,
        version: &version,
        command_line: &command_line,
        parameters: parameters.count(),
        steps: finished.steps,
        shortened: prepared.shortened,
        seconds: finished.seconds,
        held_out: finished.held_out,
    };
    fs::write(arguments.out.join("README.md"), card.render())?;
    Ok(version)
}

fn manifest(
    arguments: &TrainArguments,
    prepared: &Prepared,
    finished: &Finished<'_>,
    command_line: &str,
) -> Manifest {
    Manifest {
        task: Some(arguments.task.id().to_owned()),
        method: arguments.method,
        base_model: prepared.base.name.clone(),
        base_digest: Some(prepared.base.digest.clone()),
        labels: labels(arguments.task),
        prompt: arguments.prompt,
        shots: arguments.shots(),
        trained_on: Some(prepared.source.clone()),
        train_examples: Some(prepared.training.len()),
        created: Some(jiff::Timestamp::now().to_string()),
        training: json!({
            "command": command_line,
            "epochs": arguments.epochs,
            "steps": finished.steps,
            "batch_size": arguments.batch_size,
            "accumulate": arguments.accumulate,
            "learning_rate": arguments.learning_rate,
            "warmup": arguments.warmup,
            "weight_decay": arguments.weight_decay,
            "clip": arguments.clip,
            "dropout": arguments.dropout,
            "max_length": arguments.max_length,
            "seed": arguments.seed,
            "held_out": finished.held_out,
        }),
        ..Manifest::default()
    }
}

/// The command that repeats this training. Paths of this machine stay out of it, because it is published.
fn command_line(arguments: &TrainArguments, prepared: &Prepared) -> String {
    let targets: Vec<&str> = arguments
        .targets
        .iter()
        .map(|target| target.peft_name())
        .collect();
    let shots = match arguments.method {
        Method::Fticl => format!(" --shots {}", arguments.shots()),
        Method::Ft | Method::External => String::new(),
    };
    let data = arguments.data.as_ref().map_or("", |_| " --data DIR");
    let size = arguments
        .train_size
        .map_or_else(String::new, |size| format!(" --train-size {size}"));
    let out = arguments
        .out
        .file_name()
        .map_or_else(|| "DIR".into(), |name| name.to_string_lossy());
    format!(
        "trainer train --task {} --method {}{shots}{data}{size} --epochs {} --lr {} --warmup {} --rank {} --alpha {} \
         --targets {} --batch-size {} --accumulate {} --clip {} --weight-decay {} --dropout {} --max-length {} \
         --held-out {} --prompt {} --seed {} --out {out}",
        arguments.task,
        arguments.method,
        arguments.epochs,
        arguments.learning_rate,
        arguments.warmup,
        arguments.rank,
        arguments.alpha,
        targets.join(","),
        arguments.batch_size,
        arguments.accumulate,
        arguments.clip,
        arguments.weight_decay,
        arguments.dropout,
        arguments.max_length,
        prepared.held_out.len(),
        arguments.prompt,
        arguments.seed,
    )
}
