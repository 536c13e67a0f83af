//! The output directory: PEFT files, manifest, model card.

use adapters::{LoraConfig, Manifest, Method, Precision, Version, write_adapter, write_manifest};
use clap::ValueEnum;
use fs_err as fs;
use serde_json::{Value, json};

use crate::arguments::TrainArguments;
use crate::card::{Card, labels};
use crate::engine_arguments::EngineArguments;
use crate::error::TrainerError;
use crate::held_out::HeldOutScore;
use crate::measuring;
use crate::opened::read_adapter;
use crate::parameters::LoraParameters;
use crate::preparation::Prepared;

/// What training measured.
pub(crate) struct Finished<'a> {
    pub(crate) held_out: &'a [HeldOutScore],
    pub(crate) steps: usize,
    /// The step whose values are written.
    pub(crate) best_step: usize,
    /// Spent on optimizer steps.
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
    let mut manifest = manifest(arguments, prepared, finished, &command_line);
    let recipe = &arguments.recipe;
    let ranks = recipe.ranks.iter().map(|own| (own.projection, own.rank));
    let config = LoraConfig::new(
        prepared.base.name.clone(),
        recipe.rank,
        recipe.alpha,
        recipe.targets.clone(),
        f64::from(recipe.dropout),
    )
    .with_rslora(recipe.rslora)
    .with_ranks(ranks);
    // f16 holds what serving uses, in half the space.
    let precision = Precision::F16;
    let modules = parameters.modules()?;
    write_adapter(&arguments.out, &config, &modules, &manifest, precision)?;
    let version = add_profile(arguments, prepared, &mut manifest)?;
    let card = Card {
        arguments,
        manifest: &manifest,
        version: &version,
        command_line: &command_line,
        parameters: parameters.count(),
        finished,
        shortened: prepared.shortened,
    };
    fs::write(arguments.out.join("README.md"), card.render())?;
    Ok(version)
}

/// Measures the adapter that was just written, as serving will read it, and returns its version with the profile.
fn add_profile(
    arguments: &TrainArguments,
    prepared: &Prepared,
    manifest: &mut Manifest,
) -> Result<Version, TrainerError> {
    let adapter = read_adapter(&arguments.out, &prepared.base)?;
    let recipe = &arguments.recipe;
    let prompts = &prepared.measured;
    if prompts.ids.len() < 2 {
        tracing::warn!("a single training example makes no domain profile");
        return Ok(adapter.version);
    }
    let engine = measuring::start(&recipe.model, &EngineArguments::of(recipe), prompts)?;
    manifest.domain = Some(measuring::measure(&engine, &adapter, prompts)?);
    write_manifest(&arguments.out, manifest)?;
    Ok(read_adapter(&arguments.out, &prepared.base)?.version)
}

fn manifest(
    arguments: &TrainArguments,
    prepared: &Prepared,
    finished: &Finished<'_>,
    command_line: &str,
) -> Manifest {
    let recipe = &arguments.recipe;
    let mut training = json!({
        "command": command_line,
        "steps": finished.steps,
        "best_step": finished.best_step,
        "held_out": finished.held_out,
        "seconds": finished.seconds,
    });
    if let (Value::Object(training), Ok(Value::Object(recipe))) =
        (&mut training, serde_json::to_value(recipe.deciding()))
    {
        training.extend(recipe);
    }
    Manifest {
        task: Some(arguments.task.id().to_owned()),
        method: arguments.method,
        base_model: prepared.base.name.clone(),
        base_digest: Some(prepared.base.digest.clone()),
        labels: labels(arguments.task),
        prompt: recipe.prompt,
        shots: arguments.shots(),
        trained_on: Some(prepared.source.clone()),
        train_examples: Some(prepared.training.len()),
        created: Some(jiff::Timestamp::now().to_string()),
        training,
        ..Manifest::default()
    }
}

/// The command that repeats this training. Paths of this machine stay out of it, because it is published.
fn command_line(arguments: &TrainArguments, prepared: &Prepared) -> String {
    let recipe = &arguments.recipe;
    let mut line = format!(
        "trainer train --task {} --method {}",
        arguments.task, arguments.method
    );
    let mut flag = |name: &str, value: &dyn std::fmt::Display| {
        line += &format!(" --{name} {value}");
    };
    if arguments.method == Method::Fticl {
        flag("shots", &arguments.shots());
    }
    if recipe.data.is_some() {
        flag("data", &"DIR");
    }
    if let Some(from) = &arguments.from {
        let name = from.file_name().unwrap_or_default();
        flag("from", &name.to_string_lossy());
    }
    if let Some(size) = arguments.train_size {
        flag("train-size", &size);
    }
    flag("epochs", &recipe.epochs);
    flag("lr", &recipe.learning_rate);
    flag("warmup", &recipe.warmup);
    flag("schedule", &name_of(recipe.schedule));
    flag("rank", &recipe.rank);
    flag("alpha", &recipe.alpha);
    if !recipe.ranks.is_empty() {
        let ranks: Vec<String> = recipe.ranks.iter().map(ToString::to_string).collect();
        flag("ranks", &ranks.join(","));
    }
    let targets: Vec<&str> = recipe.targets.iter().map(|own| own.peft_name()).collect();
    flag("targets", &targets.join(","));
    flag("batch-size", &recipe.batch_size);
    flag("accumulate", &recipe.accumulate);
    flag("clip", &recipe.clip);
    flag("weight-decay", &recipe.weight_decay);
    flag("dropout", &recipe.dropout);
    flag("activation-bits", &name_of(recipe.activation_bits));
    flag("max-length", &recipe.max_length);
    flag("held-out", &prepared.held_out.len());
    if let Some(steps) = recipe.evaluate_every {
        flag("evaluate-every", &steps);
    }
    flag("patience", &recipe.patience);
    flag("prompt", &recipe.prompt);
    flag("seed", &recipe.seed);
    let out = arguments.out.file_name();
    flag(
        "out",
        &out.map_or_else(|| "DIR".into(), |name| name.to_string_lossy()),
    );
    if recipe.rslora {
        line += " --rslora";
    }
    line
}

/// A choice as the command line spells it.
pub(crate) fn name_of(choice: impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
