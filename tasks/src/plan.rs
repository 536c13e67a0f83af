//! The plan of an evaluation: which cells are measured for one adapter or for the base. Running them is the server's
//! affair, scoring them `score`'s.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, DatasetEntry};
use crate::data_error::DataError;
use crate::dataset::Domain;
use crate::example::Example;
use crate::prompts::PromptError;
use crate::task::{Kind, Task};

/// Which side of an adapter is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationKind {
    /// Its own task, in-domain data sets.
    InDomain,
    /// Its own task, out-of-domain data sets.
    OutOfDomain,
    /// The training sets' domains of the other tasks.
    CrossTask,
    /// All three.
    Matrix,
}

/// What is asked for. `None` means the default of the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// Which side is measured.
    pub kind: EvaluationKind,
    /// The tasks whose data sets may be used; all five by default.
    #[serde(default)]
    pub tasks: Option<Vec<Task>>,
    /// The data sets that may be used. By default those of the kind; across tasks, each task's training domain.
    #[serde(default)]
    pub datasets: Option<Vec<String>>,
    /// Numbers of demonstrations. By default [`Task::shots_evaluated`]; across tasks 0 is left out for generation.
    #[serde(default)]
    pub shots: Option<Vec<usize>>,
    /// Prompt numbers; prompt 0 by default.
    #[serde(default)]
    pub prompts: Option<Vec<usize>>,
    /// At most this many examples of each cell, the first ones; all by default.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Seed of the confidence intervals.
    #[serde(default)]
    pub seed: u64,
}

/// One measurement of one model: a data set, with so many demonstrations, under one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// The task of the data set.
    pub task: Task,
    /// The data set.
    pub dataset: String,
    /// What the data set is to the adapter.
    pub domain: Domain,
    /// How many demonstrations stand before each example.
    pub shots: usize,
    /// The prompt's number.
    pub prompt: usize,
}

/// Why a request cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A list of the request is there but empty.
    #[error("{field} is an empty list; leave it out for the default")]
    EmptyList {
        /// `tasks`, `datasets`, `shots` or `prompts`.
        field: &'static str,
    },
    /// A limit of no examples.
    #[error("limit is 0; it must be at least 1")]
    ZeroLimit,
    /// No task has a data set of this name.
    #[error("no task has a data set {dataset:?}; the data sets are {known}")]
    UnknownDataset {
        /// The name asked for.
        dataset: String,
        /// The names there are.
        known: String,
    },
    /// Without a task of its own a model has no other tasks.
    #[error(
        "a cross-task evaluation of a model with no task of its own needs `tasks`: name the tasks to evaluate it on"
    )]
    NoOwnTask,
    /// The filters of the request leave nothing of what the kind asks for.
    #[error("nothing to evaluate{}: the named tasks and data sets leave no {domains} data set", own_task(*trained_task))]
    NothingLeft {
        /// The adapter's task.
        trained_task: Option<Task>,
        /// The domains the kind of evaluation asks for.
        domains: &'static str,
    },
    /// A prompt that does not exist.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// A data set of the plan is missing, or has too few demonstrations.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl EvaluationKind {
    /// `in_domain`, `out_of_domain`, `cross_task` or `matrix`.
    pub fn id(self) -> &'static str {
        match self {
            EvaluationKind::InDomain => "in_domain",
            EvaluationKind::OutOfDomain => "out_of_domain",
            EvaluationKind::CrossTask => "cross_task",
            EvaluationKind::Matrix => "matrix",
        }
    }
}

impl PlanError {
    /// A stable name for the error in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            PlanError::EmptyList { .. } => "empty_list",
            PlanError::ZeroLimit => "zero_limit",
            PlanError::UnknownDataset { .. } => "unknown_dataset",
            PlanError::NoOwnTask => "no_own_task",
            PlanError::NothingLeft { .. } => "nothing_to_evaluate",
            PlanError::Prompt(error) => error.code(),
            PlanError::Data(error) => error.code(),
        }
    }
}

impl PlanRequest {
    /// The kind with every default.
    pub fn new(kind: EvaluationKind) -> Self {
        PlanRequest {
            kind,
            tasks: None,
            datasets: None,
            shots: None,
            prompts: None,
            limit: None,
            seed: 0,
        }
    }

    /// The first [`PlanRequest::limit`] of a cell's examples.
    pub fn limited(&self, mut examples: Vec<Example>) -> Vec<Example> {
        examples.truncate(self.limit.unwrap_or(usize::MAX));
        examples
    }
}

/// The cells of one model in a fixed order: task, data set, shots, prompt. `trained_task` is the adapter's own task, or
/// `None` for the base and for adapters that do not name theirs.
///
/// Without a task of its own a model is measured on every (named) task as that task's adapter would be: in-domain and
/// out-of-domain data sets keep their roles.
///
/// # Errors
///
/// When the request is contradictory, or data that the plan needs is missing. Nothing is planned in part.
pub fn plan(
    request: &PlanRequest,
    trained_task: Option<Task>,
    catalog: &Catalog,
) -> Result<Vec<Cell>, PlanError> {
    check(request, catalog)?;
    if request.kind == EvaluationKind::CrossTask
        && trained_task.is_none()
        && request.tasks.is_none()
    {
        return Err(PlanError::NoOwnTask);
    }
    let mut cells = Vec::new();
    for task in Task::ALL {
        if request
            .tasks
            .as_ref()
            .is_some_and(|tasks| !tasks.contains(&task))
        {
            continue;
        }
        for entry in catalog.datasets(task) {
            if let Some(domain) = domain(request, trained_task, task, &entry) {
                push_cells(request, catalog, (task, &entry, domain), &mut cells)?;
            }
        }
    }
    if cells.is_empty() {
        return Err(PlanError::NothingLeft {
            trained_task,
            domains: domains(request.kind),
        });
    }
    Ok(cells)
}

/// The cells in which the base must be measured as the baseline of several plans, each once, in the order of first
/// occurrence. The domain is the one of the first plan that has the cell.
pub fn baseline_cells<'a>(plans: impl IntoIterator<Item = &'a [Cell]>) -> Vec<Cell> {
    let mut seen = HashSet::new();
    plans
        .into_iter()
        .flatten()
        .filter(|cell| seen.insert((cell.task, &cell.dataset, cell.shots, cell.prompt)))
        .cloned()
        .collect()
}

fn check(request: &PlanRequest, catalog: &Catalog) -> Result<(), PlanError> {
    let empty = [
        ("tasks", request.tasks.as_ref().is_some_and(Vec::is_empty)),
        (
            "datasets",
            request.datasets.as_ref().is_some_and(Vec::is_empty),
        ),
        ("shots", request.shots.as_ref().is_some_and(Vec::is_empty)),
        (
            "prompts",
            request.prompts.as_ref().is_some_and(Vec::is_empty),
        ),
    ];
    if let Some((field, _)) = empty.into_iter().find(|(_, empty)| *empty) {
        return Err(PlanError::EmptyList { field });
    }
    if request.limit == Some(0) {
        return Err(PlanError::ZeroLimit);
    }
    for dataset in request.datasets.iter().flatten() {
        let all = || {
            Task::ALL
                .into_iter()
                .flat_map(|task| catalog.datasets(task))
        };
        if !all().any(|entry| entry.id == *dataset) {
            let known = all().map(|entry| entry.id);
            return Err(PlanError::UnknownDataset {
                dataset: dataset.clone(),
                known: known.collect::<Vec<_>>().join(", "),
            });
        }
    }
    for prompt in request.prompts.iter().flatten() {
        catalog.prompts().template(*prompt, Task::Summary)?;
    }
    Ok(())
}

/// What the data set is to the model in this evaluation; `None` when it has no part in it.
fn domain(
    request: &PlanRequest,
    trained_task: Option<Task>,
    task: Task,
    entry: &DatasetEntry,
) -> Option<Domain> {
    let named = request
        .datasets
        .as_ref()
        .map(|datasets| datasets.contains(&entry.id));
    let crosses = match trained_task {
        Some(own) => own != task,
        None => request.kind == EvaluationKind::CrossTask,
    };
    let domain = if crosses { Domain::Cross } else { entry.domain };
    let wanted = match (request.kind, domain) {
        (EvaluationKind::Matrix, _)
        | (EvaluationKind::InDomain, Domain::In)
        | (EvaluationKind::OutOfDomain, Domain::Out)
        | (EvaluationKind::CrossTask, Domain::Cross) => true,
        (EvaluationKind::InDomain | EvaluationKind::OutOfDomain | EvaluationKind::CrossTask, _) => {
            false
        }
    };
    let by_default = domain != Domain::Cross || entry.id == task.trained_on();
    (wanted && named.unwrap_or(by_default)).then_some(domain)
}

fn push_cells(
    request: &PlanRequest,
    catalog: &Catalog,
    (task, entry, domain): (Task, &DatasetEntry, Domain),
    cells: &mut Vec<Cell>,
) -> Result<(), PlanError> {
    let mut shots = match &request.shots {
        Some(shots) => distinct(shots),
        None => default_shots(task, domain),
    };
    let asked_for = request.shots.is_some() && request.datasets.is_some();
    if let (Some(most), false) = (entry.demonstrations, asked_for) {
        // A user's data set that nobody named must not fail a plan for want of demonstrations.
        shots.retain(|shots| *shots <= most);
    }
    let dataset = &entry.id;
    let prompts = request
        .prompts
        .as_ref()
        .map_or(vec![0], |prompts| distinct(prompts));
    catalog.test(task, dataset)?;
    catalog.demonstrations(task, dataset, shots.iter().copied().max().unwrap_or(0))?;
    for shots in shots {
        for &prompt in &prompts {
            cells.push(Cell {
                task,
                dataset: dataset.to_owned(),
                domain,
                shots,
                prompt,
            });
        }
    }
    Ok(())
}

/// Asked without a demonstration for another task's text, an adapter has no way to know what is wanted; a label set it
/// is at least given to choose from.
fn default_shots(task: Task, domain: Domain) -> Vec<usize> {
    let needs_demonstrations = domain == Domain::Cross && task.kind() == Kind::Generation;
    let shots = task.shots_evaluated().iter().copied();
    shots
        .filter(|shots| *shots > 0 || !needs_demonstrations)
        .collect()
}

fn distinct(numbers: &[usize]) -> Vec<usize> {
    let mut seen = HashSet::new();
    let numbers = numbers.iter().copied();
    numbers.filter(|number| seen.insert(*number)).collect()
}

fn domains(kind: EvaluationKind) -> &'static str {
    match kind {
        EvaluationKind::InDomain => "in-domain",
        EvaluationKind::OutOfDomain => "out-of-domain",
        EvaluationKind::CrossTask => "cross-task",
        EvaluationKind::Matrix => "known",
    }
}

fn own_task(trained_task: Option<Task>) -> String {
    trained_task.map_or_else(String::new, |task| format!(" for an adapter of {task}"))
}

#[cfg(test)]
mod tests;
