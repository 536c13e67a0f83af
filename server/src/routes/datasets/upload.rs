//! Reading a data set from a request: a JSON object, or a form with files.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures_util::TryStreamExt;
use serde::Deserialize;
use serde_json::{Map, Value};
use tasks::{Domain, UploadedDataset};
use utoipa::ToSchema;

use crate::body::{discard, parse_object, read, read_bounded, unreadable};
use crate::error::ApiError;
use crate::loading::blocking;
use crate::routes::classify::parse_task;
use crate::state::State;

/// Largest part of a form that is no file.
const SMALL_PART: usize = 4096;

/// A data set as JSON.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DatasetRequest {
    /// The name it shall have.
    pub name: String,
    /// The task whose fields and labels the records have.
    pub task: String,
    /// What it is to an adapter of that task: `in` or `out`.
    pub domain: String,
    /// Records with the task's fields and `output`, all strings; an `id` or `idx` must differ from all others.
    #[schema(value_type = Vec<Object>)]
    pub examples: Vec<Value>,
    /// Records that can stand in front of the examples as demonstrations.
    #[schema(value_type = Option<Vec<Object>>)]
    pub demonstrations: Option<Vec<Value>>,
}

/// A data set as a form.
#[derive(ToSchema)]
pub struct DatasetForm {
    /// The name it shall have.
    #[schema(value_type = String)]
    pub name: String,
    /// The task whose fields and labels the records have.
    #[schema(value_type = String)]
    pub task: String,
    /// What it is to an adapter of that task: `in` or `out`.
    #[schema(value_type = String)]
    pub domain: String,
    /// A file with a JSON list of records, or one record a line.
    #[schema(value_type = String, format = Binary)]
    pub examples: Vec<u8>,
    /// Such a file of demonstrations.
    #[schema(value_type = Option<String>, format = Binary)]
    pub demonstrations: Option<Vec<u8>>,
}

/// The parts of a request, whichever form it had.
#[derive(Default)]
struct Parts {
    name: Option<String>,
    task: Option<String>,
    domain: Option<String>,
    examples: Option<Bytes>,
    demonstrations: Option<Bytes>,
}

/// Reads and checks a data set.
///
/// # Errors
/// `BodyTooLarge`, `MissingField`, `InvalidValue`, `Malformed`, and `Dataset` naming the record and the field that cannot be used.
pub(super) async fn read_dataset(
    state: &State,
    request: &HttpRequest,
    payload: Payload,
) -> Result<UploadedDataset, ApiError> {
    let limit = state.configuration.max_dataset_bytes;
    let form = request.content_type().starts_with("multipart/");
    let parts = match form {
        true => read_form(Multipart::new(request.headers(), payload), limit).await?,
        false => read_json(&read_bounded(payload, limit).await?)?,
    };
    let name = required(parts.name, "name")?;
    let task = parse_task(&required(parts.task, "task")?)?;
    let domain = required(parts.domain, "domain")?;
    let domain = match domain.as_str() {
        "in" => Domain::In,
        "out" => Domain::Out,
        other => {
            return Err(ApiError::invalid(
                "domain",
                format!(
                    "`domain` is {other:?}; send in or out: what the data set is to an adapter of {task}"
                ),
            ));
        }
    };
    let examples = required(parts.examples, "examples")?;
    let demonstrations = parts.demonstrations;
    blocking(move || {
        let demonstrations = demonstrations.as_deref();
        UploadedDataset::parse(&name, (task, domain), &examples, demonstrations)
            .map_err(ApiError::dataset)
    })
    .await
}

fn required<T>(part: Option<T>, name: &str) -> Result<T, ApiError> {
    part.ok_or_else(|| ApiError::MissingField {
        param: name.to_owned(),
        message: format!("`{name}` is missing; send name, task, domain (in or out) and examples"),
    })
}

fn read_json(body: &[u8]) -> Result<Parts, ApiError> {
    let object: Map<String, Value> = parse_object(body)?;
    let request: DatasetRequest = read(&Value::Object(object))?;
    let bytes = |records: &Vec<Value>| serde_json::to_vec(records).map(Bytes::from);
    Ok(Parts {
        name: Some(request.name),
        task: Some(request.task),
        domain: Some(request.domain),
        examples: Some(bytes(&request.examples).map_err(ApiError::internal)?),
        demonstrations: match &request.demonstrations {
            Some(records) => Some(bytes(records).map_err(ApiError::internal)?),
            None => None,
        },
    })
}

/// Reads a form; after a part that is refused the rest is read only to be able to answer.
async fn read_form(mut form: Multipart, limit: usize) -> Result<Parts, ApiError> {
    let mut parts = Parts::default();
    let mut refusal = None;
    let malformed = |error: MultipartError| unreadable("the body is no multipart form", &error);
    while let Some(field) = form.try_next().await.map_err(malformed)? {
        if refusal.is_some() {
            discard(field).await;
            continue;
        }
        match read_part(&mut parts, field, limit).await {
            Ok(()) => {}
            // Nothing more will come.
            Err(error @ ApiError::BodyTooSlow { .. }) => return Err(error),
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) => Err(error),
        None => Ok(parts),
    }
}

async fn read_part(parts: &mut Parts, field: Field, limit: usize) -> Result<(), ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let text = match name.as_str() {
        "examples" => {
            parts.examples = Some(read_bounded(field, limit).await?);
            return Ok(());
        }
        "demonstrations" => {
            parts.demonstrations = Some(read_bounded(field, limit).await?);
            return Ok(());
        }
        "name" => &mut parts.name,
        "task" => &mut parts.task,
        "domain" => &mut parts.domain,
        _ => {
            discard(field).await;
            return Ok(());
        }
    };
    let bytes = read_bounded(field, SMALL_PART).await?;
    let read = String::from_utf8(bytes.to_vec());
    *text = Some(read.map_err(|_| ApiError::invalid(&name, format!("`{name}` is not UTF-8")))?);
    Ok(())
}
