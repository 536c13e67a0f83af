//! The training loop, in reading order: load, tokenise, step, evaluate, write.
//!
//! Belongs here: what happens when. Does not belong here: how a loss, an update or a batch is computed.

use std::time::{Duration, Instant};

use adapters::Version;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::arguments::TrainArguments;
use crate::batch::passes;
use crate::error::TrainerError;
use crate::evaluation::{HeldOutScore, held_out};
use crate::examples::TokenizedExample;
use crate::gradient_check;
use crate::journal::{Entry, Journal};
use crate::model::{PassOptions, TrainingModel};
use crate::optimizer::{AdamW, AdamWOptions, Gradients, Schedule};
use crate::parameters::LoraParameters;
use crate::preparation::{Prepared, prepare};
use crate::publication::{Finished, publish};

/// What a finished training leaves besides the adapter directory.
#[derive(Clone, Debug)]
pub struct TrainingReport {
    /// Of the adapter that was written.
    pub version: Version,
    /// Mean loss per completion token of each optimizer step.
    pub losses: Vec<f64>,
    /// Before training, then after each epoch; empty without held-out examples.
    pub held_out: Vec<HeldOutScore>,
    /// Inputs that were cut to fit.
    pub shortened: usize,
    /// Rows computed per second of training, evaluation left out.
    pub rows_per_second: f64,
    /// Tokens of the training sequences per second, shared starts counted for each.
    pub tokens_per_second: f64,
}

/// Trains an adapter as the arguments say and writes its directory.
///
/// # Errors
/// Everything [`TrainerError`] lists. Nothing is left in the output directory then.
pub fn run(arguments: &TrainArguments) -> Result<TrainingReport, TrainerError> {
    arguments.validate()?;
    let threads = arguments.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| TrainerError::Threads(error.to_string()))?;
    pool.install(|| train(arguments))
}

/// Counts what was done, for speed and for the log.
#[derive(Clone, Copy, Default)]
struct Work {
    rows: usize,
    tokens: usize,
    time: Duration,
}

/// One optimizer step's outcome.
struct StepOutcome {
    loss: f64,
    norm: f64,
    work: Work,
}

/// The state that training moves.
struct Trainer<'a> {
    arguments: &'a TrainArguments,
    model: &'a TrainingModel,
    parameters: &'a LoraParameters,
    optimizer: AdamW,
    schedule: Schedule,
    step: usize,
}

fn train(arguments: &TrainArguments) -> Result<TrainingReport, TrainerError> {
    let started = Instant::now();
    let prepared = prepare(arguments)?;
    let parameters = prepared.fresh_parameters(arguments)?;
    let mut journal = Journal::create(&arguments.out)?;
    let examples = &prepared.training;
    let steps_per_epoch = examples
        .len()
        .div_ceil(arguments.batch_size * arguments.accumulate);
    let total = steps_per_epoch * arguments.epochs;
    let mut trainer = Trainer::new(arguments, &prepared.model, &parameters, total);
    let held_out = prepared.held_out.len();
    tracing::info!(
        examples = examples.len(),
        held_out,
        steps = total,
        "training"
    );
    let progress = progress_bar(total);
    let mut order: Vec<&TokenizedExample> = examples.iter().collect();
    let mut random = ChaCha8Rng::seed_from_u64(arguments.seed);
    let (mut losses, mut scores, mut work) =
        (Vec::with_capacity(total), Vec::new(), Work::default());
    evaluate(&trainer, &prepared, &mut journal, &mut scores)?;
    for _ in 0..arguments.epochs {
        order.shuffle(&mut random);
        for examples in order.chunks(arguments.batch_size * arguments.accumulate) {
            let outcome = trainer.step(examples)?;
            work.add(outcome.work);
            losses.push(outcome.loss);
            trainer.report(&outcome, steps_per_epoch, &mut journal, &progress)?;
        }
        evaluate(&trainer, &prepared, &mut journal, &mut scores)?;
    }
    progress.finish_and_clear();
    let finished = Finished {
        held_out: &scores,
        steps: total,
        seconds: started.elapsed().as_secs_f64(),
    };
    let version = publish(arguments, &prepared, &parameters, &finished)?;
    journal.finish(&arguments.out)?;
    let report = TrainingReport {
        version,
        losses,
        held_out: scores,
        shortened: prepared.shortened,
        rows_per_second: work.rows as f64 / work.time.as_secs_f64(),
        tokens_per_second: work.tokens as f64 / work.time.as_secs_f64(),
    };
    tracing::info!(
        version = %report.version,
        rows_per_second = report.rows_per_second.round(),
        tokens_per_second = report.tokens_per_second.round(),
        out = %arguments.out.display(),
        "trained"
    );
    Ok(report)
}

impl<'a> Trainer<'a> {
    /// A trainer before the first of `total` steps.
    fn new(
        arguments: &'a TrainArguments,
        model: &'a TrainingModel,
        parameters: &'a LoraParameters,
        total: usize,
    ) -> Self {
        let options = AdamWOptions {
            weight_decay: arguments.weight_decay,
            ..AdamWOptions::default()
        };
        Self {
            arguments,
            model,
            parameters,
            optimizer: AdamW::new(parameters, options),
            schedule: Schedule {
                peak: arguments.learning_rate,
                warmup: arguments.warmup,
                total,
            },
            step: 0,
        }
    }

    /// Gradients of all passes of `examples`, clipped; then one update.
    fn step(&mut self, examples: &[&TokenizedExample]) -> Result<StepOutcome, TrainerError> {
        let started = Instant::now();
        let targets: usize = examples
            .iter()
            .map(|example| example.completion.len())
            .sum();
        let mut gradients = Gradients::default();
        let (mut loss, mut work) = (0.0, Work::default());
        for batch in examples.chunks(self.arguments.batch_size) {
            for pass in passes(batch, self.arguments.rows_per_pass) {
                let options = PassOptions {
                    weight: 1.0 / targets as f32,
                    dropout: self.arguments.dropout,
                    seed: self
                        .arguments
                        .seed
                        .wrapping_mul(0x1_0000)
                        .wrapping_add((self.step * 4096 + work.rows) as u64),
                };
                let (pass_loss, pass_gradients) = self.model.loss_and_gradients(
                    self.parameters,
                    &pass.inputs,
                    &pass.targets,
                    options,
                )?;
                loss += f64::from(pass_loss);
                gradients.add(pass_gradients);
                work.rows += pass.inputs.tokens.len();
            }
        }
        let step = self.step + 1;
        if step <= 2 {
            gradient_check::check(self.parameters, &gradients, step)?;
        }
        let norm = gradients.clip(self.arguments.clip);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(TrainerError::Diverged { step, loss, norm });
        }
        self.optimizer
            .step(self.parameters, &gradients, self.schedule.at(self.step))?;
        self.step = step;
        work.tokens = examples
            .iter()
            .map(|example| example.prompt.len() + example.completion.len() - 1)
            .sum();
        work.time = started.elapsed();
        Ok(StepOutcome { loss, norm, work })
    }

    fn report(
        &self,
        outcome: &StepOutcome,
        steps_per_epoch: usize,
        journal: &mut Journal,
        progress: &ProgressBar,
    ) -> Result<(), TrainerError> {
        const STEPS_BETWEEN_LINES: usize = 10;
        let StepOutcome { loss, norm, work } = outcome;
        journal.write(&Entry::Step {
            step: self.step,
            epoch: self.step as f64 / steps_per_epoch as f64,
            loss: *loss,
            gradient_norm: *norm,
            learning_rate: self.schedule.at(self.step - 1),
            rows: work.rows,
            tokens: work.tokens,
            seconds: work.time.as_secs_f64(),
        })?;
        let speed = work.tokens as f64 / work.time.as_secs_f64();
        progress.set_message(format!("loss {loss:.4} · {speed:.0} tokens/s"));
        progress.inc(1);
        if progress.is_hidden()
            && (self.step.is_multiple_of(STEPS_BETWEEN_LINES) || self.step == self.schedule.total)
        {
            let left = progress.eta().as_secs();
            tracing::info!(
                "step {} of {}: loss {loss:.4}, {speed:.0} tokens/s, {left} s left",
                self.step,
                self.schedule.total
            );
        }
        Ok(())
    }
}

impl Work {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.tokens += other.tokens;
        self.time += other.time;
    }
}

fn evaluate(
    trainer: &Trainer<'_>,
    prepared: &Prepared,
    journal: &mut Journal,
    scores: &mut Vec<HeldOutScore>,
) -> Result<(), TrainerError> {
    if prepared.held_out.is_empty() {
        return Ok(());
    }
    let rows = trainer.arguments.rows_per_pass;
    let score = held_out(
        trainer.model,
        trainer.parameters,
        &prepared.held_out,
        &prepared.labels,
        rows,
    )?;
    let epoch = scores.len();
    let accuracy = score
        .accuracy
        .map_or_else(String::new, |accuracy| format!(", accuracy {accuracy:.3}"));
    tracing::info!("epoch {epoch}: held-out loss {:.4}{accuracy}", score.loss);
    journal.write(&Entry::HeldOut { epoch, score })?;
    scores.push(score);
    Ok(())
}

fn progress_bar(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} · {msg} · {elapsed} + {eta}")
        .expect("the template is a constant and valid");
    ProgressBar::new(total as u64).with_style(style)
}
