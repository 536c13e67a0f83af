//! What the protocol says of one model or one version of it.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use adapters::Summary;
use serde::Serialize;
use utoipa::ToSchema;

use super::tensors::{INPUT, OUTPUT};
use super::{OpenInferenceError, OpenInferenceErrorBody};
use crate::authorization::InferenceKey;
use crate::error::ApiError;
use crate::inference::named::Named;
use crate::routes::dialects::registered::registered;
use crate::routes::dialects::spoken::Spoken;
use crate::state::State;

/// A digest's shortest prefix that stands for it.
const SHORTEST_PREFIX: usize = 8;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    /// The name it was asked for by.
    pub name: String,
    /// Its versions; those that are active come first.
    pub versions: Vec<String>,
    /// `quickchange`.
    pub platform: &'static str,
    /// The tensors it reads.
    pub inputs: Vec<TensorMetadata>,
    /// The tensors it answers with.
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    /// Its name.
    pub name: &'static str,
    /// `BYTES`.
    pub datatype: &'static str,
    /// Any number of texts.
    pub shape: [i64; 1],
}

/// Whether a model answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelReady {
    /// Its name.
    pub name: String,
    /// `true`.
    pub ready: bool,
}

/// Describes a model.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "dialects", params(("model" = String, Path, description = "Any name a request may carry")),
    responses((status = 200, description = "Versions and tensors", body = ModelMetadata), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody)))]
pub async fn model_metadata(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    model: Path<String>,
) -> Result<HttpResponse, OpenInferenceError> {
    let name = model.into_inner();
    let named = Named::resolve(&state, &name, None)?;
    Ok(HttpResponse::Ok().json(metadata(name, versions(&state, &named))))
}

/// Describes a version of a model.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", tag = "dialects",
    params(("model" = String, Path, description = "An adapter, or the base model"), ("version" = String, Path, description = "Eight or more hex digits of it")),
    responses((status = 200, description = "The version and its tensors", body = ModelMetadata), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody)))]
pub async fn version_metadata(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, OpenInferenceError> {
    let (name, version) = path.into_inner();
    let named = Named::resolve(&state, &versioned(&state, &name, &version)?, None)?;
    Ok(HttpResponse::Ok().json(metadata(name, vec![version_of(&state, named.summary())])))
}

/// Says whether a model answers.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "dialects", params(("model" = String, Path, description = "Any name a request may carry")),
    responses((status = 200, description = "It does", body = ModelReady), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody), (status = 503, description = "Draining", body = OpenInferenceErrorBody)))]
pub async fn model_ready(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    model: Path<String>,
) -> Result<HttpResponse, OpenInferenceError> {
    Ok(is_ready(&state, &model, &model)?)
}

/// Says whether a version of a model answers.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready", tag = "dialects",
    params(("model" = String, Path, description = "An adapter, or the base model"), ("version" = String, Path, description = "Eight or more hex digits of it")),
    responses((status = 200, description = "It does", body = ModelReady), (status = "4XX", description = "Refused", body = OpenInferenceErrorBody), (status = 503, description = "Draining", body = OpenInferenceErrorBody)))]
pub async fn version_ready(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, OpenInferenceError> {
    let (name, version) = path.into_inner();
    Ok(is_ready(
        &state,
        &name,
        &versioned(&state, &name, &version)?,
    )?)
}

/// The model name that stands for one version of a model.
///
/// # Errors
/// `NotFound` for a version that is not the base model's; an adapter's is looked up with the name.
pub fn versioned(state: &State, model: &str, version: &str) -> Result<String, ApiError> {
    let base = state.served_name();
    if model != base && model != "base" {
        return Ok(format!("{model}@{version}"));
    }
    let digest = &state.engine.base().digest;
    if version.len() >= SHORTEST_PREFIX && digest.starts_with(version) {
        return Ok(base.to_owned());
    }
    Err(ApiError::NotFound {
        kind: "version",
        id: version.to_owned(),
        hint: format!("the base model's only version is {digest}"),
    })
}

/// The version that answers: an adapter's, or the base model's digest.
pub fn version_of(state: &State, adapter: Option<&Summary>) -> String {
    match adapter {
        Some(summary) => summary.version.to_string(),
        None => state.engine.base().digest.clone(),
    }
}

fn is_ready(state: &State, name: &str, versioned: &str) -> Result<HttpResponse, ApiError> {
    state.check_open()?;
    Named::resolve(state, versioned, None)?;
    Ok(HttpResponse::Ok().json(ModelReady {
        name: name.to_owned(),
        ready: true,
    }))
}

fn versions(state: &State, named: &Named) -> Vec<String> {
    let answering = version_of(state, named.summary());
    let adapters = registered(state).into_iter();
    let all = adapters
        .filter(|adapter| Some(adapter.name.as_str()) == named.adapter())
        .flat_map(|adapter| adapter.versions);
    let others: Vec<String> = all.filter(|version| *version != answering).collect();
    std::iter::once(answering).chain(others).collect()
}

fn metadata(name: String, versions: Vec<String>) -> ModelMetadata {
    let texts = |name| TensorMetadata {
        name,
        datatype: "BYTES",
        shape: [-1],
    };
    ModelMetadata {
        name,
        versions,
        platform: "quickchange",
        inputs: vec![texts(INPUT)],
        outputs: vec![texts(OUTPUT)],
    }
}
