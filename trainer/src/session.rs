//! The loop over optimizer steps: steps, evaluations, checkpoints, and when to stop.
//!
//! Belongs here: the state that training moves, and the order in which things happen to it. Does not belong here: what is
//! trained on (`preparation`), what is written at the end (`publication`).

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::arguments::TrainArguments;
use crate::batch::passes;
use crate::checkpoint::{Checkpoint, Identity, Progress};
use crate::error::TrainerError;
use crate::examples::TokenizedExample;
use crate::gradient_check;
use crate::held_out::held_out;
use crate::journal::{Entry, Journal};
use crate::model::PassOptions;
use crate::optimizer::{AdamW, AdamWOptions, Gradients, Schedule};
use crate::parameters::LoraParameters;
use crate::preparation::Prepared;
use crate::training::Ending;

/// The orders of the epochs have the streams of the seed from here on; those below choose other things.
const ORDER_STREAM: u64 = 16;

/// A training between two steps.
pub(crate) struct Session<'a> {
    arguments: &'a TrainArguments,
    prepared: &'a Prepared,
    identity: Identity,
    parameters: LoraParameters,
    optimizer: AdamW,
    schedule: Schedule,
    steps_per_epoch: usize,
    progress: Progress,
    /// The values with the smallest held-out loss so far.
    best: Option<Vec<Vec<f32>>>,
    journal: Journal,
    bar: ProgressBar,
    started: Instant,
}

/// What a session leaves.
pub(crate) struct Trained {
    /// The best values.
    pub(crate) parameters: LoraParameters,
    pub(crate) progress: Progress,
    pub(crate) journal: Journal,
}

/// One optimizer step's outcome.
struct StepOutcome {
    loss: f64,
    norm: f64,
    rows: usize,
    tokens: usize,
    examples: usize,
    time: Duration,
}

impl<'a> Session<'a> {
    /// A session before its first step, or after the last one that a checkpoint holds.
    pub(crate) fn open(
        arguments: &'a TrainArguments,
        prepared: &'a Prepared,
    ) -> Result<Self, TrainerError> {
        let recipe = &arguments.recipe;
        let identity = prepared.identity(arguments)?;
        let parameters = prepared.fresh_parameters(arguments)?;
        let options = AdamWOptions {
            weight_decay: recipe.weight_decay,
            ..AdamWOptions::default()
        };
        let steps_per_epoch = prepared
            .training
            .len()
            .div_ceil(recipe.batch_size * recipe.accumulate);
        let found = match arguments.resume {
            true => Checkpoint::read(&arguments.out, &identity)?,
            false => None,
        };
        let mut session = Self {
            arguments,
            prepared,
            identity,
            optimizer: AdamW::new(&parameters, options),
            parameters,
            schedule: Schedule {
                decline: recipe.schedule,
                peak: recipe.learning_rate,
                warmup: recipe.warmup,
                total: steps_per_epoch * recipe.epochs,
            },
            steps_per_epoch,
            journal: Journal::open(
                &arguments.out,
                found
                    .as_ref()
                    .map_or(0, |found| found.progress.journal_bytes),
            )?,
            progress: Progress::default(),
            best: None,
            bar: progress_bar(steps_per_epoch * recipe.epochs),
            started: Instant::now(),
        };
        if let Some(found) = found {
            session.parameters.set_values(&found.values)?;
            session.optimizer = AdamW::restored(options, found.progress.step, found.moments);
            (session.progress, session.best) = (found.progress, found.best);
            session.bar.set_position(session.progress.step as u64);
            session.bar.reset_eta();
        }
        tracing::info!(
            examples = prepared.training.len(),
            held_out = prepared.held_out.len(),
            steps = session.schedule.total,
            from_step = session.progress.step,
            "training"
        );
        Ok(session)
    }

    /// Steps until a reason to end.
    pub(crate) fn train(&mut self) -> Result<Ending, TrainerError> {
        let recipe = &self.arguments.recipe;
        let per_step = recipe.batch_size * recipe.accumulate;
        if self.progress.held_out.is_empty() {
            self.evaluate()?;
        }
        let mut order = self.order();
        while self.progress.step < self.schedule.total {
            let place = self.progress.step % self.steps_per_epoch;
            if place == 0 {
                order = self.order();
            }
            let chosen = order.iter().skip(place * per_step).take(per_step);
            let prepared = self.prepared;
            let examples: Vec<_> = chosen.map(|&index| &prepared.training[index]).collect();
            let outcome = self.step(&examples)?;
            self.record(&outcome)?;
            let step = self.progress.step;
            if step.is_multiple_of(recipe.evaluate_every.unwrap_or(self.steps_per_epoch)) {
                self.evaluate()?;
                if (1..=self.progress.evaluations_since_best).contains(&recipe.patience) {
                    return Ok(Ending::OutOfPatience);
                }
            }
            let minutes = self.started.elapsed().as_secs_f64() / 60.0;
            let out_of_time = recipe.max_minutes.is_some_and(|limit| minutes >= limit);
            if out_of_time || step.is_multiple_of(recipe.checkpoint_every) {
                self.checkpoint()?;
            }
            if out_of_time && step < self.schedule.total {
                return Ok(Ending::OutOfTime);
            }
        }
        Ok(Ending::Complete)
    }

    /// Evaluates what was not, and gives the best values away.
    pub(crate) fn finish(mut self) -> Result<Trained, TrainerError> {
        let evaluated = self.progress.held_out.last();
        if evaluated.is_none_or(|score| score.step != self.progress.step) {
            self.evaluate()?;
        }
        self.bar.finish_and_clear();
        if let Some(best) = &self.best {
            self.parameters.set_values(best)?;
        }
        Ok(Trained {
            parameters: self.parameters,
            progress: self.progress,
            journal: self.journal,
        })
    }

    /// Places of the training examples in the order of the epoch that the next step belongs to.
    fn order(&self) -> Vec<usize> {
        let epoch = self.progress.step / self.steps_per_epoch;
        let mut random = ChaCha8Rng::seed_from_u64(self.arguments.recipe.seed);
        random.set_stream(ORDER_STREAM + epoch as u64);
        let mut order: Vec<usize> = (0..self.prepared.training.len()).collect();
        order.shuffle(&mut random);
        order
    }

    /// Gradients of all passes of `examples`, clipped; then one update.
    fn step(&mut self, examples: &[&TokenizedExample]) -> Result<StepOutcome, TrainerError> {
        let started = Instant::now();
        let step = self.progress.step + 1;
        let (loss, rows, mut gradients) = self.gradients(examples)?;
        if step <= 2 {
            gradient_check::check(&self.parameters, &gradients, step)?;
        }
        let norm = gradients.clip(self.arguments.recipe.clip);
        if !loss.is_finite() || !norm.is_finite() {
            let examples = examples.iter().map(|example| example.record).collect();
            return Err(TrainerError::Diverged {
                step,
                examples,
                loss,
                norm,
            });
        }
        let rate = self.schedule.at(step - 1);
        self.optimizer.step(&self.parameters, &gradients, rate)?;
        let tokens = examples
            .iter()
            .map(|example| example.prompt.len() + example.completion.len() - 1);
        Ok(StepOutcome {
            loss,
            norm,
            rows,
            tokens: tokens.sum(),
            examples: examples.len(),
            time: started.elapsed(),
        })
    }

    /// Mean loss, rows computed, and gradients, of all passes of `examples`.
    fn gradients(
        &self,
        examples: &[&TokenizedExample],
    ) -> Result<(f64, usize, Gradients), TrainerError> {
        let recipe = &self.arguments.recipe;
        let targets = examples.iter().map(|example| example.completion.len());
        let weight = 1.0 / targets.sum::<usize>() as f32;
        let (mut loss, mut rows, mut gradients) = (0.0, 0, Gradients::default());
        for batch in examples.chunks(recipe.batch_size) {
            for pass in passes(batch, recipe.rows_per_pass) {
                let mask = (self.progress.step * 4096 + rows) as u64;
                let options = PassOptions {
                    weight,
                    dropout: recipe.dropout,
                    recompute: recipe.recompute,
                    seed: recipe.seed.wrapping_mul(0x1_0000).wrapping_add(mask),
                };
                let (pass_loss, pass_gradients) = self.prepared.model.loss_and_gradients(
                    &self.parameters,
                    &pass.inputs,
                    &pass.targets,
                    options,
                )?;
                loss += f64::from(pass_loss);
                gradients.add(pass_gradients);
                rows += pass.inputs.tokens.len();
            }
        }
        Ok((loss, rows, gradients))
    }

    /// Counts a step and tells of it.
    fn record(&mut self, outcome: &StepOutcome) -> Result<(), TrainerError> {
        const STEPS_BETWEEN_LINES: usize = 10;
        let StepOutcome { loss, time, .. } = *outcome;
        let progress = &mut self.progress;
        progress.step += 1;
        progress.losses.push(loss);
        progress.rows += outcome.rows;
        progress.tokens += outcome.tokens;
        progress.seconds += time.as_secs_f64();
        let (step, total) = (progress.step, self.schedule.total);
        self.journal.write(&Entry::Step {
            step,
            epoch: step as f64 / self.steps_per_epoch as f64,
            loss,
            gradient_norm: outcome.norm,
            learning_rate: self.schedule.at(step - 1),
            rows: outcome.rows,
            tokens: outcome.tokens,
            examples: outcome.examples,
            seconds: time.as_secs_f64(),
        })?;
        let per_second = |count: usize| count as f64 / time.as_secs_f64();
        let (tokens, examples) = (per_second(outcome.tokens), per_second(outcome.examples));
        self.bar.set_message(format!(
            "loss {loss:.4} · {tokens:.0} tokens/s · {examples:.1} examples/s"
        ));
        self.bar.inc(1);
        if self.bar.is_hidden() && (step.is_multiple_of(STEPS_BETWEEN_LINES) || step == total) {
            let left = self.bar.eta().as_secs();
            tracing::info!(
                "step {step} of {total}: loss {loss:.4}, {tokens:.0} tokens/s, {examples:.1} examples/s, {left} s left"
            );
        }
        Ok(())
    }

    /// Scores the held-out examples, and keeps the values when there were none better.
    fn evaluate(&mut self) -> Result<(), TrainerError> {
        let Prepared {
            model,
            held_out: examples,
            labels,
            ..
        } = self.prepared;
        if examples.is_empty() {
            return Ok(());
        }
        let rows = self.arguments.recipe.rows_per_pass;
        let step = self.progress.step;
        let score = held_out(model, (&self.parameters, step), examples, labels, rows)?;
        let accuracy = score
            .accuracy
            .map_or_else(String::new, |accuracy| format!(", accuracy {accuracy:.3}"));
        self.bar.suspend(|| {
            tracing::info!("step {step}: held-out loss {:.4}{accuracy}", score.loss);
        });
        self.journal.write(&Entry::HeldOut(score))?;
        let progress = &mut self.progress;
        let loss_at = |best| {
            let of_best = progress.held_out.iter().find(|score| score.step == best);
            of_best.map_or(f64::INFINITY, |score| score.loss)
        };
        // The base itself is no candidate: what is written must be an adapter.
        if step > 0
            && progress
                .best_step
                .is_none_or(|best| score.loss < loss_at(best))
        {
            progress.best_step = Some(step);
            progress.evaluations_since_best = 0;
            self.best = Some(self.parameters.values()?);
        } else if step > 0 {
            progress.evaluations_since_best += 1;
        }
        progress.held_out.push(score);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), TrainerError> {
        self.progress.journal_bytes = self.journal.length()?;
        let checkpoint = Checkpoint {
            progress: self.progress.clone(),
            values: self.parameters.values()?,
            moments: self.optimizer.moments().to_vec(),
            best: self.best.clone(),
        };
        Ok(checkpoint.write(&self.arguments.out, &self.identity)?)
    }
}

impl Trained {
    /// The step whose values these are.
    pub(crate) fn best_step(&self) -> usize {
        self.progress.best_step.unwrap_or(self.progress.step)
    }
}

fn progress_bar(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} · {msg} · {elapsed} + {eta}")
        .expect("the template is a constant and valid");
    ProgressBar::new(total as u64).with_style(style)
}
