//! `trainer suite`: a grid of trainings, each resumable, with a table at the end.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use adapters::{MANIFEST_FILE, Manifest, Method};
use clap::Args;
use fs_err as fs;
use serde_json::Value;
use tasks::Task;

use crate::arguments::{TrainArguments, parse_method, parse_task};
use crate::checkpoint;
use crate::error::TrainerError;
use crate::held_out::HeldOutScore;
use crate::recipe::Recipe;
use crate::training::{self, Ending};

/// Name of the table inside the output folder.
pub const TABLE: &str = "suite.md";

/// The flags of `trainer suite`.
#[derive(Args, Clone, Debug)]
pub struct SuiteArguments {
    /// Tasks to train for
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = parse_task,
        default_value = "summary,question,sentiment,detection,inference"
    )]
    pub tasks: Vec<Task>,

    /// Methods to train with
    #[arg(long, value_delimiter = ',', value_parser = parse_method, default_value = "ft,fticl")]
    pub methods: Vec<Method>,

    /// Training files, by the numbers in their names [default: the smallest of each task]
    #[arg(long, value_delimiter = ',')]
    pub sizes: Vec<usize>,

    /// Folder in which every run has a directory, TASK-METHOD or, with several sizes, TASK-METHOD-SIZE
    #[arg(long)]
    pub out: PathBuf,

    /// How all of them are trained
    #[command(flatten)]
    pub recipe: Recipe,
}

/// How one run of the grid ended.
#[derive(Debug)]
pub enum Outcome {
    /// An adapter stands in the directory, from now or from before.
    Trained(Box<Manifest>),
    /// `--max-minutes` were over; the suite goes on from there when it is started again.
    Unfinished,
    /// It could not be trained.
    Failed(TrainerError),
}

/// One run of the grid.
#[derive(Debug)]
pub struct Run {
    /// Name of its directory.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// Trains what is not trained yet, one after the other; `tell` gets a line for each. Writes the table, and returns all runs.
///
/// A run that fails does not keep the others from being trained.
///
/// # Errors
/// Flags that no run can use; a table that cannot be written.
pub fn suite(
    arguments: &SuiteArguments,
    mut tell: impl FnMut(&str),
) -> Result<Vec<Run>, TrainerError> {
    arguments.recipe.validate()?;
    let mut runs = Vec::new();
    for plan in plans(arguments) {
        let name = plan.out.file_name().unwrap_or_default();
        let run = Run {
            name: name.to_string_lossy().into_owned(),
            outcome: train(&plan),
        };
        tell(&line(&run));
        runs.push(run);
    }
    fs::write(arguments.out.join(TABLE), table(&runs))?;
    Ok(runs)
}

/// The table of all runs, in Markdown.
#[must_use]
pub fn table(runs: &[Run]) -> String {
    let mut text = "| run | examples | steps | best | held-out loss | before | accuracy | before | minutes |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n".to_owned();
    for run in runs {
        let cells = match &run.outcome {
            Outcome::Trained(manifest) => cells(manifest),
            Outcome::Unfinished => "unfinished ||||||| ".to_owned(),
            Outcome::Failed(error) => format!("failed: {error} ||||||| "),
        };
        writeln!(text, "| {} | {cells} |", run.name).expect("writing to a string cannot fail");
    }
    text
}

/// The grid, task by task.
fn plans(arguments: &SuiteArguments) -> Vec<TrainArguments> {
    let sizes: Vec<Option<usize>> = match arguments.sizes.as_slice() {
        [] => vec![None],
        sizes => sizes.iter().copied().map(Some).collect(),
    };
    let mut plans = Vec::new();
    for &task in &arguments.tasks {
        for &method in &arguments.methods {
            for &train_size in &sizes {
                let mut name = format!("{task}-{method}");
                if let (Some(size), 2..) = (train_size, sizes.len()) {
                    name += &format!("-{size}");
                }
                plans.push(TrainArguments {
                    task,
                    method,
                    shots: None,
                    train_size,
                    out: arguments.out.join(name),
                    overwrite: false,
                    resume: true,
                    from: None,
                    recipe: arguments.recipe.clone(),
                });
            }
        }
    }
    plans
}

fn train(plan: &TrainArguments) -> Outcome {
    let trained = || -> Result<Outcome, TrainerError> {
        let manifest = plan.out.join(MANIFEST_FILE);
        if !manifest.exists() || checkpoint::exists(&plan.out) {
            let mut plan = plan.clone();
            plan.overwrite = true;
            if training::run(&plan)?.ending == Ending::OutOfTime {
                return Ok(Outcome::Unfinished);
            }
        }
        let found = read(&manifest)?;
        check_recipe(plan, &found)?;
        Ok(Outcome::Trained(Box::new(found)))
    };
    trained().unwrap_or_else(Outcome::Failed)
}

fn read(path: &Path) -> Result<Manifest, TrainerError> {
    Ok(Manifest::parse(&fs::read(path)?)?)
}

/// An adapter that was trained otherwise is no part of this grid.
fn check_recipe(plan: &TrainArguments, found: &Manifest) -> Result<(), TrainerError> {
    let recipe = serde_json::to_value(plan.recipe.deciding()).map_err(std::io::Error::from)?;
    let Value::Object(fields) = recipe else {
        return Ok(());
    };
    for (field, value) in fields {
        let trained = found.training.get(&field).unwrap_or(&Value::Null);
        if *trained != value {
            return Err(TrainerError::OtherRecipe {
                path: plan.out.clone(),
                field,
                found: trained.to_string(),
                wanted: value.to_string(),
            });
        }
    }
    Ok(())
}

fn line(run: &Run) -> String {
    match &run.outcome {
        Outcome::Trained(manifest) => {
            let (first, best) = scores(manifest);
            let loss = |score: Option<HeldOutScore>| {
                score.map_or_else(|| "–".into(), |score| format!("{:.4}", score.loss))
            };
            format!(
                "{}: held-out loss {} → {}",
                run.name,
                loss(first),
                loss(best)
            )
        }
        Outcome::Unfinished => format!("{}: out of time, to be continued", run.name),
        Outcome::Failed(error) => format!("{}: {error}", run.name),
    }
}

fn cells(manifest: &Manifest) -> String {
    let (first, best) = scores(manifest);
    let number = |field: &str| manifest.training.get(field).and_then(Value::as_f64);
    let shown = |value: Option<f64>, digits: usize| {
        value.map_or_else(String::new, |value| format!("{value:.digits$}"))
    };
    let accuracy = |score: Option<HeldOutScore>| score.and_then(|score| score.accuracy);
    [
        shown(manifest.train_examples.map(|count| count as f64), 0),
        shown(number("steps"), 0),
        shown(number("best_step"), 0),
        shown(best.map(|score| score.loss), 4),
        shown(first.map(|score| score.loss), 4),
        shown(accuracy(best), 3),
        shown(accuracy(first), 3),
        shown(number("seconds").map(|seconds| seconds / 60.0), 1),
    ]
    .join(" | ")
}

/// The held-out scores of the base and of what was written.
fn scores(manifest: &Manifest) -> (Option<HeldOutScore>, Option<HeldOutScore>) {
    let held_out = manifest.training.get("held_out").cloned();
    let scores: Vec<HeldOutScore> = held_out
        .and_then(|scores| serde_json::from_value(scores).ok())
        .unwrap_or_default();
    let at = |step: Option<u64>| {
        let mut scores = scores.iter();
        scores
            .find(|score| Some(score.step as u64) == step)
            .copied()
    };
    let best = manifest.training.get("best_step").and_then(Value::as_u64);
    (at(Some(0)), at(best))
}
