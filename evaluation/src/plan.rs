//! What an evaluation measures, fixed before it starts: models, cells, and the content of the data sets they are measured on. A plan
//! can be written down and gone on with by another process.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use tasks::{Catalog, Cell, Kind, PlanError, PlanRequest, Task, baseline_cells, plan};
use utoipa::ToSchema;

use crate::labels::LabelScoring;
use crate::record::Progress;

/// The base model's name in plans and reports.
const BASE: &str = "base";

/// What an answer's token costs beside a prompt's token, for estimating the time left: prompts are computed many tokens at a time.
const COST_OF_ANSWER_TOKEN: f64 = 3.0;

/// Characters of a token, for estimating the time left.
const CHARACTERS_PER_TOKEN: f64 = 4.0;

/// Everything that decides an evaluation's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationPlan {
    /// What was asked for.
    pub request: PlanRequest,
    /// How labels are chosen.
    pub scoring: Scoring,
    /// Whom to measure, and where.
    pub models: Vec<PlannedModel>,
    /// A model that is measured in every cell for comparison, beside the base.
    pub against: Option<ModelVersion>,
    /// The data sets by `<task>/<id>`.
    pub datasets: BTreeMap<String, PlannedDataset>,
}

/// How labels are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Scoring {
    /// Which of a label's tokens count.
    pub labels: LabelScoring,
    /// Whether what each label gets for the input `N/A` is divided out (contextual calibration).
    pub calibrate: bool,
}

/// The base model or an adapter version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The adapter's name, or `base`.
    pub name: String,
    /// The adapter's version; `None` for the base.
    pub version: Option<String>,
}

/// A model and the cells it is measured in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedModel {
    /// The model.
    pub model: ModelVersion,
    /// The task it was trained for.
    pub trained_task: Option<Task>,
    /// Where it is measured, in order.
    pub cells: Vec<Cell>,
}

/// A data set as it was when the evaluation was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedDataset {
    /// SHA-256 of its examples and demonstrations, hex.
    pub digest: String,
    /// Examples that are put to a model.
    pub examples: usize,
    /// Mean length of an input.
    pub characters: f64,
}

impl ModelVersion {
    /// The base model.
    pub fn base() -> Self {
        Self {
            name: BASE.to_owned(),
            version: None,
        }
    }

    /// An adapter version.
    pub fn adapter(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: Some(version.into()),
        }
    }

    /// Whether it is the base model.
    pub fn is_base(&self) -> bool {
        self.version.is_none()
    }
}

impl std::fmt::Display for ModelVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            None => formatter.write_str(&self.name),
            Some(version) => write!(formatter, "{}@{version}", self.name),
        }
    }
}

impl EvaluationPlan {
    /// Plans the cells of every model, each with the task it was trained for.
    ///
    /// # Errors
    /// For contradictory requests and data that is missing.
    pub fn new(
        request: PlanRequest,
        scoring: Scoring,
        models: Vec<(ModelVersion, Option<Task>)>,
        against: Option<ModelVersion>,
        catalog: &Catalog,
    ) -> Result<Self, PlanError> {
        let models = plan_models(&request, models, catalog)?;
        let mut datasets = BTreeMap::new();
        for cell in models.iter().flat_map(|model| &model.cells) {
            if let Entry::Vacant(vacant) = datasets.entry(dataset_key(cell)) {
                vacant.insert(PlannedDataset::of(cell, &request, catalog)?);
            }
        }
        Ok(Self {
            request,
            scoring,
            models,
            against,
            datasets,
        })
    }

    /// The progress of an evaluation that has not begun.
    pub fn progress(&self) -> Progress {
        let examples = |cell: &Cell| self.dataset(cell).map_or(0, |dataset| dataset.examples);
        Progress {
            cells_total: self.models.iter().map(|model| model.cells.len()).sum(),
            examples_total: self.measured().into_iter().map(examples).sum(),
            ..Progress::default()
        }
    }

    /// The cell of every measurement that is made: of each model once, and of the base and the model compared with wherever anything
    /// is measured.
    fn measured(&self) -> Vec<&Cell> {
        let base = ModelVersion::base();
        let mut seen = HashSet::new();
        let mut cells = Vec::new();
        for model in &self.models {
            let beside = self.against.as_ref();
            for cell in &model.cells {
                for measured in [Some(&base), Some(&model.model), beside]
                    .into_iter()
                    .flatten()
                {
                    let place = (cell.task, &cell.dataset, cell.shots, cell.prompt);
                    if seen.insert((&measured.version, place)) {
                        cells.push(cell);
                    }
                }
            }
        }
        cells
    }

    /// What is known of a cell's data set.
    pub fn dataset(&self, cell: &Cell) -> Option<&PlannedDataset> {
        self.datasets.get(&dataset_key(cell))
    }

    /// The work of one example of a cell, in units of a prompt token that is computed: a rough measure to estimate the time left by.
    pub fn work(&self, cell: &Cell) -> f64 {
        let characters = self.dataset(cell).map_or(0.0, |dataset| dataset.characters);
        let answer = match cell.task.kind() {
            Kind::Classification => cell.task.labels().len(),
            Kind::Generation => cell.task.max_new_tokens(),
        };
        characters / CHARACTERS_PER_TOKEN + COST_OF_ANSWER_TOKEN * answer as f64
    }

    /// The work of all measurements.
    pub fn total_work(&self) -> f64 {
        let work = |cell: &Cell| {
            let examples = self.dataset(cell).map_or(0, |dataset| dataset.examples);
            examples as f64 * self.work(cell)
        };
        self.measured().into_iter().map(work).sum()
    }
}

impl PlannedDataset {
    fn of(cell: &Cell, request: &PlanRequest, catalog: &Catalog) -> Result<Self, PlanError> {
        let examples = request.limited(catalog.test(cell.task, &cell.dataset)?);
        let lengths = examples
            .iter()
            .flat_map(|example| example.fields.0.values());
        let characters: usize = lengths.map(String::len).sum();
        Ok(Self {
            digest: catalog.digest(cell.task, &cell.dataset)?,
            examples: examples.len(),
            characters: characters as f64 / examples.len().max(1) as f64,
        })
    }
}

/// The key of a cell's data set in a plan.
pub(crate) fn dataset_key(cell: &Cell) -> String {
    format!("{}/{}", cell.task, cell.dataset)
}

/// Plans every model. The base beside adapters is there to be compared with, so unless tasks are named it gets their cells.
fn plan_models(
    request: &PlanRequest,
    models: Vec<(ModelVersion, Option<Task>)>,
    catalog: &Catalog,
) -> Result<Vec<PlannedModel>, PlanError> {
    let compared = request.tasks.is_none() && models.iter().any(|(model, _)| !model.is_base());
    let mut planned = Vec::with_capacity(models.len());
    for (model, trained_task) in models {
        let cells = match compared && model.is_base() {
            true => Vec::new(),
            false => plan(request, trained_task, catalog)?,
        };
        planned.push(PlannedModel {
            model,
            trained_task,
            cells,
        });
    }
    if compared {
        let shared = baseline_cells(planned.iter().map(|model| model.cells.as_slice()));
        for base in planned.iter_mut().filter(|model| model.model.is_base()) {
            base.cells.clone_from(&shared);
        }
    }
    Ok(planned)
}
