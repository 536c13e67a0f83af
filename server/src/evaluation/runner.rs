//! Running one evaluation from start to end: the adapters' cells against those of the base, the record kept on disk.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::web::Data;
use serde_json::{Value, json};
use tasks::{Cell, Domain, Interval, Metric, Task, bootstrap_paired};

use super::baselines::Baselines;
use super::cell::{Measurement, Measuring};
use super::record::{CellReport, CellScores, Status};
use super::request::{Job, Subject};
use super::{Watched, persistence};
use crate::error::ApiError;
use crate::inference::target::Target;
use crate::state::{State, unix_seconds};

/// A cell whatever its role towards an adapter.
type Place = (Task, String, usize, usize);

/// Runs an evaluation; its record says how it ended.
pub(super) async fn run(
    state: &Data<State>,
    watched: &Watched,
    job: &Job,
    baselines: &mut Baselines,
) {
    if watched.record.borrow().status.is_final() {
        save(state, watched).await;
        return;
    }
    watched.change(|record| {
        record.status = Status::Running;
        record.started = Some(unix_seconds());
    });
    save(state, watched).await;
    let outcome = tokio::select! {
        biased;
        () = watched.until_cancelled() => None,
        outcome = measure_all(state, watched, job, baselines) => Some(outcome),
    };
    watched.change(|record| match outcome {
        None => record.finish(Status::Cancelled, None),
        Some(Ok(())) => record.finish(Status::Completed, None),
        Some(Err(error)) => record.finish(Status::Failed, Some(error.to_string())),
    });
    save(state, watched).await;
    let record = watched.snapshot();
    tracing::info!(
        evaluation = record.id,
        status = record.status.name(),
        cells = record.cells.len(),
        error = record.error.unwrap_or_default(),
        "evaluation ended"
    );
}

async fn measure_all(
    state: &Data<State>,
    watched: &Watched,
    job: &Job,
    remembered: &mut Baselines,
) -> Result<(), ApiError> {
    let measuring = Measuring {
        engine: &state.engine,
        catalog: &state.catalog,
        request: &job.request,
        watched,
    };
    let mut baselines: HashMap<Place, Measurement> = HashMap::new();
    for subject in &job.subjects {
        for cell in &subject.cells {
            let place = place(cell);
            let prepared = measuring.prepare(cell)?;
            if !baselines.contains_key(&place) {
                let baseline = remembered.of(&measuring, &prepared).await?;
                baselines.insert(place.clone(), baseline);
            }
            let baseline = &baselines[&place];
            let target = subject.target(state).await?;
            let own = match target.as_ref().and_then(Target::weights) {
                None => baseline.clone(),
                Some(weights) => measuring.measure(&prepared, Some(weights)).await?,
            };
            let report = report(subject, cell, &own, (baseline, job.request.seed));
            let scores = Arc::new(CellScores {
                own: own.result.per_example,
                base: baseline.result.per_example.clone(),
            });
            watched.change(|record| {
                record.cells.push(report);
                record.scores.push(scores);
                record.progress.cells_done += 1;
            });
            publish_value(state, watched);
            save(state, watched).await;
        }
    }
    Ok(())
}

fn place(cell: &Cell) -> Place {
    (cell.task, cell.dataset.clone(), cell.shots, cell.prompt)
}

fn report(
    subject: &Subject,
    cell: &Cell,
    own: &Measurement,
    (baseline, seed): (&Measurement, u64),
) -> CellReport {
    let delta = bootstrap_paired(&own.result.per_example, &baseline.result.per_example, seed);
    CellReport {
        adapter: subject
            .adapter
            .as_ref()
            .map_or("base", |(name, _)| name)
            .to_owned(),
        version: (subject.adapter.as_ref()).map(|(_, version)| version.to_string()),
        trained_task: subject.trained_task.map(|task| task.id().to_owned()),
        task: cell.task.id().to_owned(),
        dataset: cell.dataset.clone(),
        domain: domain_name(cell.domain).to_owned(),
        shots: cell.shots,
        prompt: cell.prompt,
        n: own.result.n,
        metric: metric_name(own.result.metric).to_owned(),
        value: own.result.value,
        ci95: bounds(own.result.ci95),
        baseline: baseline.result.value,
        delta: own.result.value - baseline.result.value,
        extra: with_more(&own.result.extra, delta, own.truncated),
    }
}

fn with_more(extra: &Value, delta: Interval, truncated: usize) -> Value {
    let mut extra = extra.clone();
    if let Some(fields) = extra.as_object_mut() {
        fields.insert("delta_ci95".to_owned(), json!(bounds(delta)));
        fields.insert("truncated".to_owned(), json!(truncated));
    }
    extra
}

fn bounds(interval: Interval) -> [f64; 2] {
    [interval.low, interval.high]
}

fn domain_name(domain: Domain) -> &'static str {
    match domain {
        Domain::In => "in",
        Domain::Out => "out",
        Domain::Cross => "cross",
    }
}

fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy",
        Metric::RougeL => "rouge_l",
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

/// Writes the record; a disk that refuses does not stop the measuring.
async fn save(state: &Data<State>, watched: &Watched) {
    let record = watched.snapshot();
    if let Err(error) = persistence::save(state.evaluations.directory(), &record).await {
        tracing::error!(evaluation = record.id, error = ?error, "evaluation not written to disk");
    }
}
