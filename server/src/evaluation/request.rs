//! From the body of a request to a job: names resolved, cells planned, examples counted.

use actix_web::web::Data;
use adapters::Version;
use serde::Deserialize;
use serde_json::{Map, Value};
use tasks::{Catalog, Cell, EvaluationKind, PlanRequest, Task, baseline_cells, plan};
use utoipa::ToSchema;
use uuid::Uuid;

use super::record::{Evaluation, Progress, Status};
use crate::body::{RequestBody, read};
use crate::error::ApiError;
use crate::inference::named::Named;
use crate::inference::target::Target;
use crate::routes::classify::parse_task;
use crate::state::{State, unix_seconds};

const MAX_ADAPTERS: usize = 64;

/// What to evaluate.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct EvaluationRequest {
    /// `in_domain`, `out_of_domain`, `cross_task` or `matrix`; fixed on the routes that name one.
    #[schema(value_type = Option<String>)]
    pub kind: Option<EvaluationKind>,
    /// Names of adapters, `base` among them for the base model alone.
    pub adapters: Vec<String>,
    /// Only these tasks.
    pub tasks: Option<Vec<String>>,
    /// Only these data sets.
    pub datasets: Option<Vec<String>>,
    /// Numbers of demonstrations; those of the task unless given.
    pub shots: Option<Vec<usize>>,
    /// Numbers of prompts; 0 unless given.
    pub prompts: Option<Vec<usize>>,
    /// At most this many examples of each cell.
    pub limit: Option<usize>,
    /// Seed of the confidence intervals; 0 unless given.
    pub seed: Option<u64>,
}

/// A planned evaluation.
pub struct Job {
    /// What was asked for.
    pub(super) request: PlanRequest,
    /// Whom to measure.
    pub(super) subjects: Vec<Subject>,
    names: Vec<String>,
    progress: Progress,
}

/// A model and the cells it is measured in.
pub(super) struct Subject {
    /// Name and version of the adapter, `None` for the base.
    pub(super) adapter: Option<(String, Version)>,
    pub(super) trained_task: Option<Task>,
    pub(super) cells: Vec<Cell>,
}

impl RequestBody for EvaluationRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        if object.get("gate").is_some_and(|gate| !gate.is_null()) {
            return Err(ApiError::not_supported(
                "gate",
                "an evaluation changes nothing; send the gate with POST /v1/adapters/{name}/activate or …/promote",
            ));
        }
        read(&Value::Object(object))
    }
}

impl Job {
    /// Resolves every name and plans every cell.
    ///
    /// # Errors
    /// For unknown models, tasks, data sets or prompts, and for contradictions.
    pub fn plan(state: &State, request: EvaluationRequest) -> Result<Self, ApiError> {
        state.check_open()?;
        let plan_request = request.plan_request()?;
        if request.adapters.is_empty() || request.adapters.len() > MAX_ADAPTERS {
            return Err(ApiError::invalid(
                "adapters",
                format!("`adapters` must name 1 to {MAX_ADAPTERS} models, for example [\"base\"]"),
            ));
        }
        let mut subjects = request
            .adapters
            .iter()
            .map(|name| Subject::resolve(state, name))
            .collect::<Result<Vec<_>, _>>()?;
        plan_subjects(&plan_request, &mut subjects, &state.catalog)?;
        let progress = expected(&plan_request, &subjects, &state.catalog);
        Ok(Self {
            request: plan_request,
            subjects,
            names: request.adapters,
            progress,
        })
    }

    /// The record of a job that has just been queued.
    pub fn record(&self) -> Evaluation {
        let unique = Uuid::new_v4().simple().to_string();
        let milliseconds = jiff::Timestamp::now().as_millisecond();
        Evaluation {
            // The time first, so that ids sort by it.
            id: format!("eval_{milliseconds:011x}{}", &unique[..8]),
            object: "evaluation".to_owned(),
            status: Status::Queued,
            kind: kind_name(self.request.kind).to_owned(),
            adapters: self.names.clone(),
            limit: self.request.limit,
            seed: self.request.seed,
            created: unix_seconds(),
            started: None,
            finished: None,
            error: None,
            progress: self.progress,
            cells: Vec::new(),
            scores: Vec::new(),
        }
    }
}

impl EvaluationRequest {
    /// Fixes the kind.
    ///
    /// # Errors
    /// `InvalidValue` when the body names another.
    pub fn of_kind(mut self, kind: EvaluationKind) -> Result<Self, ApiError> {
        match self.kind {
            Some(own) if own != kind => Err(ApiError::invalid(
                "kind",
                format!(
                    "this route evaluates `{}`; leave `kind` out",
                    kind_name(kind)
                ),
            )),
            _ => {
                self.kind = Some(kind);
                Ok(self)
            }
        }
    }

    fn plan_request(&self) -> Result<PlanRequest, ApiError> {
        let kind = self.kind.ok_or_else(|| ApiError::MissingField {
            param: "kind".to_owned(),
            message: "`kind` is missing; send in_domain, out_of_domain, cross_task or matrix"
                .to_owned(),
        })?;
        let tasks = self
            .tasks
            .as_ref()
            .map(|tasks| tasks.iter().map(|task| parse_task(task)).collect())
            .transpose()?;
        Ok(PlanRequest {
            kind,
            tasks,
            datasets: self.datasets.clone(),
            shots: self.shots.clone(),
            prompts: self.prompts.clone(),
            limit: self.limit,
            seed: self.seed.unwrap_or(0),
        })
    }
}

impl Subject {
    fn resolve(state: &State, name: &str) -> Result<Self, ApiError> {
        let named = Named::resolve(state, name, None)?;
        let task = named.summary().and_then(|summary| summary.task.as_deref());
        Ok(Self {
            trained_task: task.and_then(|task| task.parse().ok()),
            adapter: match &named {
                Named::Base => None,
                Named::Adapter(hold) => {
                    Some((hold.name().to_owned(), hold.summary().version.clone()))
                }
            },
            cells: Vec::new(),
        })
    }

    /// The weights, held in memory for as long as a cell is measured and no longer; `None` for the base.
    ///
    /// # Errors
    /// When the version is gone, or cannot be brought back into memory.
    pub(super) async fn target(&self, state: &Data<State>) -> Result<Option<Target>, ApiError> {
        match &self.adapter {
            None => Ok(None),
            Some((name, version)) => Target::pinned(state, name, version.as_str())
                .await
                .map(Some),
        }
    }

    fn is_base(&self) -> bool {
        self.adapter.is_none()
    }
}

/// Plans every model. The base beside adapters is there to be compared with, so unless tasks are named it gets their cells.
fn plan_subjects(
    request: &PlanRequest,
    subjects: &mut [Subject],
    catalog: &Catalog,
) -> Result<(), ApiError> {
    let compared = request.tasks.is_none() && subjects.iter().any(|subject| !subject.is_base());
    for subject in subjects.iter_mut() {
        if !(compared && subject.is_base()) {
            subject.cells = plan(request, subject.trained_task, catalog)?;
        }
    }
    if compared {
        let shared = baseline_cells(subjects.iter().map(|subject| subject.cells.as_slice()));
        for subject in subjects.iter_mut().filter(|subject| subject.is_base()) {
            subject.cells.clone_from(&shared);
        }
    }
    Ok(())
}

fn expected(request: &PlanRequest, subjects: &[Subject], catalog: &Catalog) -> Progress {
    let most = request.limit.unwrap_or(usize::MAX);
    let examples = |cell: &Cell| catalog.size(cell.task, &cell.dataset).min(most);
    let baselines = baseline_cells(subjects.iter().map(|subject| subject.cells.as_slice()));
    let adapters = subjects.iter().filter(|subject| !subject.is_base());
    Progress {
        cells_done: 0,
        cells_total: subjects.iter().map(|subject| subject.cells.len()).sum(),
        examples_done: 0,
        examples_total: baselines
            .iter()
            .chain(adapters.flat_map(|subject| &subject.cells))
            .map(examples)
            .sum(),
    }
}

fn kind_name(kind: EvaluationKind) -> &'static str {
    match kind {
        EvaluationKind::InDomain => "in_domain",
        EvaluationKind::OutOfDomain => "out_of_domain",
        EvaluationKind::CrossTask => "cross_task",
        EvaluationKind::Matrix => "matrix",
    }
}
