//! The command line of `trainer train`.

use std::path::PathBuf;

use adapters::Method;
use clap::Args;
use tasks::Task;

use crate::error::TrainerError;
use crate::recipe::Recipe;

/// What is trained, and where it goes.
#[derive(Args, Clone, Debug)]
pub struct TrainArguments {
    /// summary, question, sentiment, detection or inference
    #[arg(long, value_parser = parse_task)]
    pub task: Task,

    /// ft: examples as they are; fticl: the same demonstrations before every example
    #[arg(long, default_value = "ft", value_parser = parse_method)]
    pub method: Method,

    /// Demonstrations before every example [default: 0 for ft, the task's smaller FTICL number for fticl]
    #[arg(long)]
    pub shots: Option<usize>,

    /// Which training file, by the number in its name [default: the smallest there is]
    #[arg(long)]
    pub train_size: Option<usize>,

    /// Where the adapter directory is written
    #[arg(long)]
    pub out: PathBuf,

    /// Replace an adapter that already stands in the output directory
    #[arg(long)]
    pub overwrite: bool,

    /// Go on from the checkpoint beside the output directory, if there is one
    #[arg(long)]
    pub resume: bool,

    /// Begin with the values of this adapter instead of fresh ones; it must have the same targets, ranks and scales
    #[arg(long)]
    pub from: Option<PathBuf>,

    /// How it is trained
    #[command(flatten)]
    pub recipe: Recipe,
}

impl TrainArguments {
    /// The number of demonstrations, the default filled in.
    #[must_use]
    pub fn shots(&self) -> usize {
        match (self.shots, self.method) {
            (Some(shots), _) => shots,
            (None, Method::Fticl) => self.task.shots_trained().first().copied().unwrap_or(1),
            (None, _) => 0,
        }
    }

    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`TrainerError::Argument`] naming the flag and what would be right.
    pub fn validate(&self) -> Result<(), TrainerError> {
        self.recipe.validate()?;
        match (self.method, self.shots()) {
            (Method::Ft, shots @ 1..) => Err(TrainerError::argument(
                "--shots",
                &shots.to_string(),
                "0 with --method ft; use --method fticl",
            )),
            (Method::Fticl, 0) => Err(TrainerError::argument(
                "--shots",
                "0",
                "at least 1 with --method fticl",
            )),
            _ => Ok(()),
        }
    }
}

pub(crate) fn parse_task(text: &str) -> Result<Task, String> {
    text.parse::<Task>().map_err(|error| error.to_string())
}

pub(crate) fn parse_method(text: &str) -> Result<Method, String> {
    match text {
        "ft" => Ok(Method::Ft),
        "fticl" => Ok(Method::Fticl),
        _ => Err("expected ft or fticl".into()),
    }
}
