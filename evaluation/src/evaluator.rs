//! Running a plan: cells in order, with the next one begun before the last is done, so that the engine never waits for work.

use std::any::Any;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use engine::{Engine, PreparedAdapter};
use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream, StreamExt};
use tasks::{Catalog, Cell, Kind};
use tokio::sync::Semaphore;

use crate::cell::{Answering, PreparedCell};
use crate::cell_report::CellReport;
use crate::error::EvaluationError;
use crate::measurement::Measurement;
use crate::measurements::Measurements;
use crate::plan::{EvaluationPlan, ModelVersion, PlannedModel};
use crate::record::{CellScores, Stage};

/// Examples in the engine at the same time, of all cells under way.
pub(crate) const IN_FLIGHT: usize = 32;
/// Cells under way at the same time.
const CELLS_AT_ONCE: usize = 2;

/// Where the models of a plan come from.
#[async_trait]
pub trait ModelSource: Sync {
    /// The weights of an adapter version.
    ///
    /// # Errors
    /// [`EvaluationError::Model`] when it is gone.
    async fn hold(&self, model: &ModelVersion) -> Result<HeldModel, EvaluationError>;
}

/// An adapter's weights, in memory for as long as the value lives.
pub struct HeldModel {
    /// The weights.
    pub weights: Arc<PreparedAdapter>,
    /// What keeps them there.
    pub lease: Box<dyn Any + Send>,
}

/// Hears how far an evaluation is.
pub trait Observer: Sync {
    /// So many examples of a cell were answered.
    fn examples_done(&self, cell: &Cell, count: usize);
    /// So many seconds went into a stage.
    fn spent(&self, stage: Stage, seconds: f64);
}

/// A plan with all that measuring it needs.
pub struct Evaluator<'a> {
    /// The base model.
    pub engine: &'a Engine,
    /// Examples and prompts.
    pub catalog: &'a Catalog,
    /// What to measure.
    pub plan: &'a EvaluationPlan,
    /// The adapters.
    pub models: &'a dyn ModelSource,
    /// What was measured before.
    pub measurements: &'a Measurements,
    /// Where measurements are kept, to be looked into and gone on from.
    pub folder: Option<&'a Path>,
    /// Whom to tell.
    pub observer: &'a dyn Observer,
}

/// What the cells under way share.
struct Shared {
    /// Places in the engine.
    slots: Semaphore,
    /// Measurements whose examples are counted: each counts once, however many cells it is part of.
    counted: Mutex<HashSet<String>>,
}

impl Shared {
    /// Whether the examples of this measurement are not counted yet; from now on they are.
    fn counts(&self, key: &str) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.insert(key.to_owned())
    }
}

/// A cell's figures, and what they are made of.
pub struct MeasuredCell {
    /// The figures.
    pub report: CellReport,
    /// The scores of its examples.
    pub scores: CellScores,
}

impl<'a> Evaluator<'a> {
    /// The cells of the plan, in its order, as they are measured. Dropping the stream stops the measuring.
    ///
    /// # Errors
    /// Of the first cell that cannot be measured.
    pub fn cells(&self) -> impl Stream<Item = Result<MeasuredCell, EvaluationError>> {
        let shared = Arc::new(Shared {
            slots: Semaphore::new(IN_FLIGHT),
            counted: Mutex::default(),
        });
        let models = self.plan.models.iter();
        let cells = models.flat_map(|model| model.cells.iter().map(move |cell| (model, cell)));
        let measured = cells.map(|(model, cell)| {
            let shared = Arc::clone(&shared);
            async move { (cell, self.cell(model, cell, &shared).await) }.boxed()
        });
        let measured: Vec<_> = measured.collect();
        let mut since = Instant::now();
        stream::iter(measured)
            .buffered(CELLS_AT_ONCE)
            .map(move |(cell, measured)| {
                let stage = match cell.task.kind() {
                    Kind::Classification => Stage::Classification,
                    Kind::Generation => Stage::Generation,
                };
                self.observer.spent(stage, since.elapsed().as_secs_f64());
                since = Instant::now();
                measured
            })
    }

    /// One cell of one model, beside the base and the model that all are compared with.
    async fn cell(
        &self,
        model: &PlannedModel,
        cell: &Cell,
        shared: &Shared,
    ) -> Result<MeasuredCell, EvaluationError> {
        let started = Instant::now();
        let prepared = PreparedCell::new(self.plan, cell, self.catalog, self.engine)?;
        self.observer
            .spent(Stage::Preparing, started.elapsed().as_secs_f64());
        let base = ModelVersion::base();
        let measure = |model| self.measurement(model, cell, &prepared, shared);
        let (baseline, own, against) =
            futures_util::try_join!(measure(&base), measure(&model.model), async {
                match &self.plan.against {
                    None => Ok(None),
                    Some(other) => measure(other).await.map(|measured| Some((other, measured))),
                }
            })?;
        let against = against
            .as_ref()
            .map(|(other, measured)| (*other, &**measured));
        let seed = self.plan.request.seed;
        let report = CellReport::new(model, cell, (&own, &baseline, against), seed);
        let scores = CellScores {
            own: own.result.per_example.clone(),
            base: baseline.result.per_example.clone(),
            measurement: prepared.key(&model.model),
            baseline: prepared.key(&base),
        };
        Ok(MeasuredCell { report, scores })
    }

    /// One model in one cell, measured unless that was done before.
    async fn measurement(
        &self,
        model: &ModelVersion,
        cell: &Cell,
        prepared: &PreparedCell,
        shared: &Shared,
    ) -> Result<Arc<Measurement>, EvaluationError> {
        let key = prepared.key(model);
        let counts = shared.counts(&key);
        let answers = AtomicUsize::new(0);
        let answered = || {
            if counts {
                answers.fetch_add(1, Ordering::Relaxed);
                self.observer.examples_done(cell, 1);
            }
        };
        let make = || async {
            let held = match model.is_base() {
                true => None,
                false => Some(self.models.hold(model).await?),
            };
            let answering = Answering {
                engine: self.engine,
                weights: held.as_ref().map(|held| Arc::clone(&held.weights)),
                slots: &shared.slots,
                answered: &answered,
            };
            let predictions = prepared.answer(&answering).await?;
            let started = Instant::now();
            let scored = prepared.score(predictions);
            self.observer
                .spent(Stage::Scoring, started.elapsed().as_secs_f64());
            scored
        };
        let measured = self.measurements.get_or_make(&key, self.folder, make);
        let measured = measured.await?;
        if counts {
            // What was measured before is done at once.
            let before = prepared.examples() - answers.load(Ordering::Relaxed);
            self.observer.examples_done(cell, before);
        }
        Ok(measured)
    }
}
