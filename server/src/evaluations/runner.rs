//! Running one evaluation from start to end, or until it is paused: its cells measured, its record kept on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::web::Data;
use async_trait::async_trait;
use engine::{EngineError, SubmitError};
use evaluation::{
    Evaluation, EvaluationError, EvaluationPlan, Evaluator, HeldModel, MeasuredCell, Measurements,
    ModelSource, ModelVersion, Observer, Stage, Status, patience::PAUSE,
};
use futures_util::TryStreamExt;
use tasks::Cell;

use super::{Watched, persistence};
use crate::error::ApiError;
use crate::inference::target::Target;
use crate::state::{State, unix_seconds};

/// Work is counted in thousandths.
const WORK_UNIT: f64 = 1000.0;

/// Runs an evaluation; its record says how it ended.
pub(super) async fn run(state: &Data<State>, watched: &Watched, measurements: &Measurements) {
    let plan = match watched.snapshot().plan {
        // One that was cancelled or paused while it waited is left as it is.
        Some(plan) if watched.turn(Status::Queued, Status::Running) => plan,
        _ => return save(state, watched).await,
    };
    watched.change(|record| {
        record.started = record.started.or_else(|| Some(unix_seconds()));
        // What was measured before is found again at once, and counted again.
        record.cells.clear();
        record.scores.clear();
        record.progress = plan.progress();
    });
    save(state, watched).await;
    let outcome = tokio::select! {
        biased;
        status = watched.until_stopped() => Err(status),
        outcome = measure_all(state, watched, &plan, measurements) => Ok(outcome),
    };
    if let Ok(Err(error)) = &outcome
        && is_of_a_server_that_stops(error)
    {
        // On disk it is running, so the next start goes on with it.
        return;
    }
    let now = unix_seconds();
    let end = |record: &mut Evaluation| match &outcome {
        Err(Status::Paused) => {
            record.status = Status::Paused;
            record.progress.estimated_seconds_left = None;
        }
        Err(status) => record.finish(*status, None, now),
        Ok(Ok(())) => record.finish(Status::Completed, None, now),
        Ok(Err(error)) => record.finish(Status::Failed, Some(error.to_string()), now),
    };
    // On disk before anybody hears of it: what has ended is not begun again by a restart.
    let mut ended = watched.snapshot();
    end(&mut ended);
    write(state, &ended).await;
    watched.change(end);
    let record = watched.snapshot();
    tracing::info!(
        evaluation = record.id,
        status = record.status.name(),
        cells = record.cells.len(),
        error = record.error.unwrap_or_default(),
        "evaluation ended"
    );
}

/// Whether measuring ended because the engine takes nothing any more.
fn is_of_a_server_that_stops(error: &EvaluationError) -> bool {
    matches!(
        error,
        EvaluationError::Submit(SubmitError::Draining | SubmitError::Stopped)
            | EvaluationError::Engine(EngineError::Stopped)
    )
}

async fn measure_all(
    state: &Data<State>,
    watched: &Watched,
    plan: &EvaluationPlan,
    measurements: &Measurements,
) -> Result<(), EvaluationError> {
    let folder = persistence::measurements_of(state.evaluations.directory(), &watched.id());
    let follower = Follower::new(watched, plan);
    let evaluator = Evaluator {
        engine: &state.engine,
        catalog: &state.catalog,
        plan,
        models: &Served { state },
        measurements,
        folder: Some(Path::new(&folder)),
        observer: &follower,
    };
    let mut cells = std::pin::pin!(evaluator.cells());
    while let Some(MeasuredCell { report, scores }) = cells.try_next().await? {
        watched.change(|record| {
            record.cells.push(report);
            record.scores.push(Arc::new(scores));
            record.progress.cells_done += 1;
        });
        publish_value(state, watched);
        let started = Instant::now();
        save(state, watched).await;
        follower.spent(Stage::Saving, started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The adapters that this server serves.
struct Served<'a> {
    state: &'a Data<State>,
}

#[async_trait]
impl ModelSource for Served<'_> {
    /// The weights, brought back into memory when they are not there. When memory is full of adapters in use, it is waited for.
    async fn hold(&self, model: &ModelVersion) -> Result<HeldModel, EvaluationError> {
        let version = model.version.as_deref().unwrap_or_default();
        loop {
            let target = match Target::pinned(self.state, &model.name, version).await {
                Ok(target) => target,
                Err(ApiError::Memory(adapters::MemoryError::Full { .. })) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(unavailable(model, &error.to_string())),
            };
            let weights = target.weights();
            let weights = weights.ok_or_else(|| unavailable(model, "it is the base model"))?;
            return Ok(HeldModel {
                weights,
                lease: Box::new(target),
            });
        }
    }
}

fn unavailable(model: &ModelVersion, reason: &str) -> EvaluationError {
    EvaluationError::Model {
        model: model.to_string(),
        reason: reason.to_owned(),
    }
}

/// Writes progress into the record.
struct Follower<'a> {
    watched: &'a Watched,
    plan: &'a EvaluationPlan,
    started: Instant,
    total: f64,
    /// Work done since the start, and the part of it that was found done.
    done: AtomicU64,
    found: AtomicU64,
}

impl<'a> Follower<'a> {
    fn new(watched: &'a Watched, plan: &'a EvaluationPlan) -> Self {
        Self {
            watched,
            plan,
            started: Instant::now(),
            total: plan.total_work(),
            done: AtomicU64::new(0),
            found: AtomicU64::new(0),
        }
    }

    /// Seconds left, if the work goes on as it did since the start.
    fn estimate(&self) -> Option<f64> {
        let [done, found] = [&self.done, &self.found]
            .map(|counter| counter.load(Ordering::Relaxed) as f64 / WORK_UNIT);
        let measured = done - found;
        let seconds = self.started.elapsed().as_secs_f64();
        (measured > 0.0).then(|| ((self.total - done) * seconds / measured).max(0.0))
    }
}

impl Observer for Follower<'_> {
    fn examples_done(&self, cell: &Cell, count: usize) {
        let work = (self.plan.work(cell) * count as f64 * WORK_UNIT) as u64;
        self.done.fetch_add(work, Ordering::Relaxed);
        if count > 1 {
            // Answers come one by one; what comes at once was there before.
            self.found.fetch_add(work, Ordering::Relaxed);
        }
        let left = self.estimate();
        self.watched.change(|record| {
            record.progress.examples_done += count;
            record.progress.estimated_seconds_left = left;
        });
    }

    fn spent(&self, stage: Stage, seconds: f64) {
        self.watched
            .change(|record| record.stages.add(stage, seconds));
    }
}

/// Sets the metric of the last cell's adapter, task and domain to the mean over this evaluation's cells of them.
fn publish_value(state: &State, watched: &Watched) {
    let record = watched.record.borrow();
    let Some(last) = record.cells.last() else {
        return;
    };
    let key = (&last.adapter, &last.task, &last.domain);
    let values: Vec<f64> = record
        .cells
        .iter()
        .filter(|cell| (&cell.adapter, &cell.task, &cell.domain) == key)
        .map(|cell| cell.value)
        .collect();
    let adapter = state.metrics.labels.label(&last.adapter);
    state
        .metrics
        .evaluation_value
        .with_label_values(&[&adapter, &last.task, &last.domain])
        .set(values.iter().sum::<f64>() / values.len() as f64);
}

/// Writes the record as it is now.
async fn save(state: &Data<State>, watched: &Watched) {
    write(state, &watched.snapshot()).await;
}

/// Writes a record; a disk that refuses does not stop the measuring.
async fn write(state: &Data<State>, record: &Evaluation) {
    if let Err(error) = persistence::save(state.evaluations.directory(), record).await {
        tracing::error!(evaluation = record.id, error = ?error, "evaluation not written to disk");
    }
}
