//! `/v1/datasets`: users' data sets beside those of the experiment.

mod upload;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tasks::{Domain, Task, UploadedDataset};
use utoipa::ToSchema;

pub use self::upload::{DatasetForm, DatasetRequest};

use crate::audit::note;
use crate::authorization::{AdminKey, InferenceKey};
use crate::error::ApiError;
use crate::openapi::InferenceErrors;
use crate::state::{State, unix_seconds};

/// The data sets.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetList {
    /// `list`.
    pub object: &'static str,
    /// Those of the experiment by task, each task's followed by users'.
    pub data: Vec<Dataset>,
}

/// A data set.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dataset {
    /// Its name.
    pub id: String,
    /// `dataset`.
    pub object: &'static str,
    /// The task whose fields and labels its records have.
    #[schema(value_type = String)]
    pub task: Task,
    /// What it is to an adapter of that task: `in` or `out`.
    #[schema(value_type = String)]
    pub domain: Domain,
    /// Examples that an evaluation scores.
    pub examples: usize,
    /// SHA-256 of its examples and demonstrations, hex; null when its files cannot be used.
    pub digest: Option<String>,
    /// Whether a user added it.
    pub uploaded: bool,
    /// When, seconds since 1970; null for those of the experiment.
    pub created: Option<u64>,
}

/// Lists the data sets.
#[utoipa::path(get, path = "/v1/datasets", tag = "evaluation",
    responses((status = 200, description = "Every data set", body = DatasetList), InferenceErrors))]
pub async fn list_datasets(_key: InferenceKey, state: Data<State>) -> HttpResponse {
    let mut data = Vec::new();
    for task in Task::ALL {
        for entry in state.catalog.datasets(task) {
            data.push(describe(&state, task, &entry.id).await);
        }
    }
    HttpResponse::Ok().json(DatasetList {
        object: "list",
        data: data.into_iter().flatten().collect(),
    })
}

/// Describes a data set.
#[utoipa::path(get, path = "/v1/datasets/{id}", tag = "evaluation", params(("id" = String, Path, description = "The data set")),
    responses((status = 200, description = "The data set", body = Dataset), InferenceErrors))]
pub async fn get_dataset(
    _key: InferenceKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    for task in Task::ALL {
        if let Some(dataset) = describe(&state, task, &id).await {
            return Ok(HttpResponse::Ok().json(dataset));
        }
    }
    Err(unknown(&id))
}

/// Adds a data set. Evaluations of its task and domain take it in from now on.
#[utoipa::path(post, path = "/v1/datasets", tag = "evaluation",
    request_body(content((DatasetRequest = "application/json"), (DatasetForm = "multipart/form-data"))),
    responses((status = 201, description = "Added", body = Dataset), (status = 200, description = "It was there with the same content", body = Dataset), InferenceErrors))]
pub async fn create_dataset(
    _key: AdminKey,
    state: Data<State>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    state.check_open()?;
    let dataset = upload::read_dataset(&state, &request, payload).await?;
    let _lock = state.dataset_locks.lock(&dataset.id).await;
    note::about(&dataset.id, None);
    let added = add(&state, &dataset).await?;
    let digest = dataset.digest();
    // One that was there already had this content.
    note::changed((!added).then_some(digest.as_str()), Some(&digest));
    let described = describe(&state, dataset.task, &dataset.id).await;
    let mut answer = match added {
        true => HttpResponse::Created(),
        false => HttpResponse::Ok(),
    };
    Ok(answer.json(described.ok_or_else(|| unknown(&dataset.id))?))
}

/// Removes a user's data set.
#[utoipa::path(delete, path = "/v1/datasets/{id}", tag = "evaluation", params(("id" = String, Path, description = "The data set")),
    responses((status = 204, description = "Removed"), InferenceErrors))]
pub async fn delete_dataset(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let _lock = state.dataset_locks.lock(&id).await;
    let uploaded = state.catalog.uploaded();
    let Some(dataset) = uploaded.iter().find(|dataset| dataset.id == *id) else {
        let of_the_experiment = |task: &Task| task.datasets().iter().any(|role| role.id == *id);
        return Err(match Task::ALL.iter().any(of_the_experiment) {
            true => ApiError::DatasetInUse {
                id: id.into_inner(),
                by: "the experiment, whose data sets stay".to_owned(),
            },
            false => unknown(&id),
        });
    };
    let digest = dataset.digest();
    note::about(&id, Some(&digest));
    let place = format!("{}/{}", dataset.task, dataset.id);
    if let Some(evaluation) = state.evaluations.unfinished_on(&place) {
        return Err(ApiError::DatasetInUse {
            id: id.into_inner(),
            by: format!("evaluation {evaluation}; wait for it or cancel it"),
        });
    }
    state.dataset_folder.remove(&id).await?;
    state.catalog.remove(&id);
    note::changed(Some(&digest), None);
    Ok(HttpResponse::NoContent().finish())
}

/// On disk first: what an evaluation can see outlives the process.
async fn add(state: &State, dataset: &UploadedDataset) -> Result<bool, ApiError> {
    if !state.catalog.accepts(dataset).map_err(ApiError::dataset)? {
        return Ok(false);
    }
    let now = unix_seconds();
    state.dataset_folder.save(dataset.clone(), now).await?;
    state
        .catalog
        .add(dataset.clone())
        .map_err(ApiError::dataset)
}

async fn describe(state: &State, task: Task, id: &str) -> Option<Dataset> {
    let entries = state.catalog.datasets(task);
    let entry = entries.into_iter().find(|entry| entry.id == id)?;
    Some(Dataset {
        object: "dataset",
        task,
        domain: entry.domain,
        examples: state.catalog.size(task, id),
        digest: state.catalog.digest(task, id).ok(),
        uploaded: entry.uploaded,
        created: match entry.uploaded {
            true => state.dataset_folder.created(id).await,
            false => None,
        },
        id: entry.id,
    })
}

fn unknown(id: &str) -> ApiError {
    ApiError::NotFound {
        kind: "dataset",
        id: id.to_owned(),
        hint: "GET /v1/datasets lists them".to_owned(),
    }
}
