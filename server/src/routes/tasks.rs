//! `GET /v1/tasks`.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use tasks::{Domain, Kind, Metric, Task};
use utoipa::ToSchema;

use crate::authorization::InferenceKey;
use crate::error::ApiError;
use crate::openapi::InferenceErrors;
use crate::state::State;

/// The tasks.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskList {
    /// `list`.
    pub object: &'static str,
    /// The five tasks.
    pub data: Vec<TaskCard>,
}

/// One task.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskCard {
    /// Its id.
    pub id: &'static str,
    /// `classification` or `generation`.
    #[schema(value_type = String)]
    pub kind: Kind,
    /// `accuracy` or `rouge_l`.
    #[schema(value_type = String)]
    pub metric: Metric,
    /// Its labels; none for generation.
    pub labels: &'static [&'static str],
    /// The fields of an input.
    pub fields: &'static [&'static str],
    /// The data set adapters are trained on.
    pub trained_on: &'static str,
    /// Its prompts.
    pub prompts: Vec<PromptCard>,
    /// Numbers of demonstrations it is evaluated with.
    pub shots_evaluated: &'static [usize],
    /// Numbers of demonstrations that fine-tuning with context uses.
    pub shots_trained: &'static [usize],
    /// Tokens generated at most; for classification the label decides.
    pub max_new_tokens: usize,
    /// Its data sets.
    pub datasets: Vec<DatasetCard>,
}

/// A prompt of a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct PromptCard {
    /// Its number.
    pub id: usize,
    /// Its text, with the fields in braces.
    pub template: String,
}

/// A data set of a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetCard {
    /// Its id.
    pub id: String,
    /// `in` or `out`.
    #[schema(value_type = String)]
    pub domain: Domain,
    /// Test examples.
    pub examples: usize,
    /// Whether it can be evaluated on.
    pub present: bool,
    /// Whether a user added it.
    pub uploaded: bool,
}

/// Lists the tasks with their prompts and data sets.
#[utoipa::path(get, path = "/v1/tasks", tag = "evaluation",
    responses((status = 200, description = "The five tasks", body = TaskList), InferenceErrors))]
pub async fn list_tasks(_key: InferenceKey, state: Data<State>) -> Result<HttpResponse, ApiError> {
    let data = Task::ALL
        .into_iter()
        .map(|task| card(&state, task))
        .collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(TaskList {
        object: "list",
        data,
    }))
}

fn card(state: &State, task: Task) -> Result<TaskCard, ApiError> {
    let catalog = &state.catalog;
    let prompts = (0..catalog.prompts().count())
        .map(|id| {
            Ok(PromptCard {
                id,
                template: catalog.prompts().template(id, task)?.to_owned(),
            })
        })
        .collect::<Result<_, ApiError>>()?;
    let datasets = catalog.datasets(task).into_iter();
    let datasets = datasets.map(|entry| DatasetCard {
        domain: entry.domain,
        examples: catalog.size(task, &entry.id),
        present: catalog.present(task, &entry.id),
        uploaded: entry.uploaded,
        id: entry.id,
    });
    Ok(TaskCard {
        id: task.id(),
        kind: task.kind(),
        metric: task.metric(),
        labels: task.labels(),
        fields: task.fields(),
        trained_on: task.trained_on(),
        prompts,
        shots_evaluated: task.shots_evaluated(),
        shots_trained: task.shots_trained(),
        max_new_tokens: task.max_new_tokens(),
        datasets: datasets.collect(),
    })
}
