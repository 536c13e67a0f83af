//! `trainer evaluate`: the same plan as an evaluation of the server, without one, and the same figures.

mod arguments;
mod models;
mod progress;
mod written;

use std::sync::Arc;

use engine::{Engine, EngineConfig, Model};
use evaluation::{
    Evaluation, EvaluationPlan, Evaluator, MeasuredCell, Measurements, Progress, Status, report,
};
use futures_util::TryStreamExt;
use tasks::Catalog;

pub use self::arguments::EvaluateArguments;

use self::models::Adapters;
use self::progress::Bar;
use crate::error::TrainerError;
use crate::opened::unusable_model;

/// Measures what the arguments name, writes what they ask for, and returns the report as Markdown.
///
/// # Errors
/// What is wrong with the model, an adapter, the data or the plan. With `--out`, what was measured before an error is kept, and the
/// next call goes on there.
pub fn evaluate(arguments: &EvaluateArguments) -> Result<String, TrainerError> {
    let catalog = Catalog::open(arguments.data.as_deref())?;
    let model = Model::load(&arguments.model, &arguments.engine.options())
        .and_then(|model| Engine::start(model, EngineConfig::default()));
    let engine = model.map_err(|error| unusable_model(&arguments.model, error))?;
    let adapters = Adapters::read(arguments, &engine)?;
    let plan = EvaluationPlan::new(
        arguments.plan_request(),
        arguments.scoring(),
        adapters.planned(arguments.base),
        adapters.against(),
        &catalog,
    )?;
    let mut record = record(&plan);
    let measured = measure(
        arguments,
        &engine,
        &catalog,
        (&adapters, &plan),
        &mut record,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(measured)?;
    written::write(arguments, &record, &adapters, engine.kernels())?;
    Ok(report::markdown(&record))
}

async fn measure(
    arguments: &EvaluateArguments,
    engine: &Engine,
    catalog: &Catalog,
    (adapters, plan): (&Adapters, &EvaluationPlan),
    record: &mut Evaluation,
) -> Result<(), TrainerError> {
    let bar = Bar::new(plan);
    let folder = arguments.out.as_ref().map(|out| out.join("measurements"));
    let evaluator = Evaluator {
        engine,
        catalog,
        plan,
        models: adapters,
        measurements: &Measurements::default(),
        folder: folder.as_deref(),
        observer: &bar,
    };
    let mut cells = std::pin::pin!(evaluator.cells());
    while let Some(MeasuredCell { report, scores }) = cells.try_next().await? {
        record.cells.push(report);
        record.scores.push(Arc::new(scores));
    }
    record.stages = bar.finish();
    record.status = Status::Completed;
    record.finished = Some(now());
    let planned = plan.progress();
    record.progress = Progress {
        cells_done: planned.cells_total,
        examples_done: planned.examples_total,
        ..planned
    };
    Ok(())
}

fn record(plan: &EvaluationPlan) -> Evaluation {
    let names = plan.models.iter().map(|model| model.model.name.clone());
    let datasets = plan.datasets.iter();
    let created = now();
    Evaluation {
        id: format!("eval_{created:08x}"),
        object: "evaluation".to_owned(),
        status: Status::Running,
        kind: plan.request.kind.id().to_owned(),
        adapters: names.collect(),
        limit: plan.request.limit,
        seed: plan.request.seed,
        scoring: plan.scoring,
        against: plan.against.as_ref().map(|model| model.name.clone()),
        datasets: datasets
            .map(|(id, dataset)| (id.clone(), dataset.digest.clone()))
            .collect(),
        created,
        started: Some(created),
        ..Evaluation::default()
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}
