//! The protocol's extension for the model repository: adapters listed, loaded and unloaded.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Payload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{OpenInferenceError, OpenInferenceErrorBody};
use crate::authorization::{AdminKey, InferenceKey};
use crate::body::{parse_optional_object, read, read_bounded};
use crate::error::ApiError;
use crate::inference::unsupported::{Refused, never, refuse, refused};
use crate::loading::{self, LoadRequest, Replace, Source};
use crate::routes::dialects::registered::registered;
use crate::routes::dialects::spoken::Spoken;
use crate::state::State;

const REFUSED: &[Refused] = &[refused(
    "config",
    never,
    "an adapter's configuration is in its folder",
)];

/// What to list.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct IndexRequest {
    /// Only what is ready, which all that is listed is.
    #[serde(rename = "ready")]
    pub _ready: Option<bool>,
}

/// A model that is ready, in one version.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndexEntry {
    /// Its name.
    pub name: String,
    /// The version that requests by name get.
    pub version: String,
    /// `READY`.
    pub state: &'static str,
    /// Empty.
    pub reason: &'static str,
}

/// An adapter to load.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RepositoryLoadRequest {
    /// Where it is.
    pub parameters: Option<RepositoryLoadParameters>,
}

/// Where an adapter is.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RepositoryLoadParameters {
    /// Its directory, relative to the adapters root; the one of its name unless given. Given for a name that is loaded, it becomes the
    /// name's active version.
    pub path: Option<String>,
}

/// Nothing but the name in the path counts.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RepositoryUnloadRequest {}

/// Lists the base model and the adapters.
#[utoipa::path(post, path = "/v2/repository/index", tag = "dialects", request_body = Option<IndexRequest>,
    responses((status = 200, description = "Every model", body = Vec<IndexEntry>), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody)))]
pub async fn repository_index(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, OpenInferenceError> {
    let _: IndexRequest = read_optional(&state, payload).await?;
    let ready = |name, version| IndexEntry {
        name,
        version,
        state: "READY",
        reason: "",
    };
    let digest = state.engine.base().digest.clone();
    let base = ready(state.served_name().to_owned(), digest);
    let adapters = registered(&state).into_iter();
    let adapters = adapters.map(|adapter| ready(adapter.name, adapter.active));
    let entries: Vec<IndexEntry> = std::iter::once(base).chain(adapters).collect();
    Ok(HttpResponse::Ok().json(entries))
}

/// Loads an adapter from a directory; one that is loaded stays as it is unless a path is given.
#[utoipa::path(post, path = "/v2/repository/models/{model}/load", tag = "dialects", params(("model" = String, Path, description = "The adapter")),
    request_body = Option<RepositoryLoadRequest>,
    responses((status = 200, description = "Loaded"), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody)))]
pub async fn repository_load(
    _key: Spoken<OpenInferenceError, AdminKey>,
    state: Data<State>,
    model: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, OpenInferenceError> {
    let body: RepositoryLoadRequest = read_optional(&state, payload).await?;
    let name = model.into_inner();
    let path = body.parameters.and_then(|parameters| parameters.path);
    if path.is_none() && is_loaded(&state, &name) {
        return Ok(HttpResponse::Ok().finish());
    }
    let loading = LoadRequest {
        source: Source::Path(path.unwrap_or_else(|| name.clone())),
        name,
        replace: Replace::Allowed,
        activate: true,
    };
    loading::load(&state, loading).await?;
    Ok(HttpResponse::Ok().finish())
}

/// Unloads an adapter.
#[utoipa::path(post, path = "/v2/repository/models/{model}/unload", tag = "dialects", params(("model" = String, Path, description = "The adapter")),
    request_body = Option<RepositoryUnloadRequest>,
    responses((status = 200, description = "Unloaded"), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody)))]
pub async fn repository_unload(
    _key: Spoken<OpenInferenceError, AdminKey>,
    state: Data<State>,
    model: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, OpenInferenceError> {
    let _: RepositoryUnloadRequest = read_optional(&state, payload).await?;
    loading::remove(&state, &model).await?;
    Ok(HttpResponse::Ok().finish())
}

fn is_loaded(state: &State, name: &str) -> bool {
    name == state.served_name() || registered(state).iter().any(|adapter| adapter.name == name)
}

/// Reads a body that clients leave empty when they have nothing to say.
async fn read_optional<T: DeserializeOwned>(
    state: &State,
    payload: Payload,
) -> Result<T, ApiError> {
    let body = read_bounded(payload, state.configuration.max_body_bytes).await?;
    let object = parse_optional_object(&body)?;
    if let Some(Value::Object(parameters)) = object.get("parameters") {
        refuse(parameters, REFUSED)?;
    }
    read(&Value::Object(object))
}
