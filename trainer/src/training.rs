//! From arguments to an adapter directory: prepare, train, write.
//!
//! Belongs here: what happens when. Does not belong here: the loop over steps (`session`), how a loss, an update or a
//! batch is computed.

use std::time::Duration;

use adapters::Version;

use crate::arguments::TrainArguments;
use crate::checkpoint::Checkpoint;
use crate::curve;
use crate::error::TrainerError;
use crate::examples::TokenizedExample;
use crate::held_out::HeldOutScore;
use crate::preparation::prepare;
use crate::publication::{Finished, publish};
use crate::session::Session;

/// What a finished training leaves besides the adapter directory.
#[derive(Clone, Debug)]
pub struct TrainingReport {
    /// Of the adapter that was written.
    pub version: Version,
    /// Why it ended.
    pub ending: Ending,
    /// Mean loss per completion token of each optimizer step.
    pub losses: Vec<f64>,
    /// Before training, then whenever it was due and at the end; empty without held-out examples.
    pub held_out: Vec<HeldOutScore>,
    /// The step whose values were written: the one with the smallest held-out loss.
    pub best_step: usize,
    /// Examples trained on.
    pub examples: usize,
    /// Inputs that were cut to fit.
    pub shortened: usize,
    /// Spent on optimizer steps, evaluation left out.
    pub time: Duration,
    /// Rows computed per second of training, evaluation left out.
    pub rows_per_second: f64,
    /// Tokens of the training sequences per second, shared starts counted for each.
    pub tokens_per_second: f64,
}

/// Why a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Complete,
    /// The held-out loss fell no more for as many evaluations as `--patience` grants.
    OutOfPatience,
    /// `--max-minutes` are over; a checkpoint stays.
    OutOfTime,
}

/// Trains an adapter as the arguments say and writes its directory.
///
/// # Errors
/// Everything [`TrainerError`] lists. Nothing is left in the output directory then; the last checkpoint stays beside it.
pub fn run(arguments: &TrainArguments) -> Result<TrainingReport, TrainerError> {
    arguments.validate()?;
    let threads = arguments.recipe.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| TrainerError::Threads(error.to_string()))?;
    pool.install(|| train(arguments))
}

/// The training examples that these arguments choose, as token ids.
///
/// # Errors
/// Those of a training before its first step.
pub fn tokenized_examples(
    arguments: &TrainArguments,
) -> Result<Vec<TokenizedExample>, TrainerError> {
    arguments.validate()?;
    Ok(prepare(arguments)?.training)
}

fn train(arguments: &TrainArguments) -> Result<TrainingReport, TrainerError> {
    let prepared = prepare(arguments)?;
    let mut session = Session::open(arguments, &prepared)?;
    let ending = session.train()?;
    let trained = session.finish()?;
    let progress = &trained.progress;
    let finished = Finished {
        held_out: &progress.held_out,
        steps: progress.step,
        best_step: trained.best_step(),
        seconds: progress.seconds,
    };
    let version = publish(arguments, &prepared, &trained.parameters, &finished)?;
    curve::write(&arguments.out, &progress.losses, &progress.held_out)?;
    let report = TrainingReport {
        version,
        ending,
        losses: progress.losses.clone(),
        held_out: progress.held_out.clone(),
        best_step: trained.best_step(),
        examples: prepared.training.len(),
        shortened: prepared.shortened,
        time: Duration::from_secs_f64(progress.seconds),
        rows_per_second: progress.rows as f64 / progress.seconds,
        tokens_per_second: progress.tokens as f64 / progress.seconds,
    };
    let goes_on = ending == Ending::OutOfTime;
    trained.journal.finish(&arguments.out, goes_on)?;
    if !goes_on {
        Checkpoint::remove(&arguments.out)?;
    }
    tracing::info!(
        version = %report.version,
        steps = report.losses.len(),
        best_step = report.best_step,
        rows_per_second = report.rows_per_second.round(),
        tokens_per_second = report.tokens_per_second.round(),
        out = %arguments.out.display(),
        "{}",
        match ending {
            Ending::Complete => "trained",
            Ending::OutOfPatience => "stopped early: the held-out loss fell no more",
            Ending::OutOfTime => "out of time; the checkpoint stays, --resume --overwrite goes on from it",
        }
    );
    Ok(report)
}
