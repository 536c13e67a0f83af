//! `/v1/adapters`: list, get, upload, replace, activate, roll back, delete.

use actix_multipart::Multipart;
use actix_web::http::header;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use adapters::{AdapterError, Cause, Entry};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::adapter_card::{AdapterCard, AdapterList, DryRun, GatedAdapter, LoadedAdapter};
use super::precondition::{entity_tag, expected_version, one_expectation};
use crate::authorization::AdminKey;
use crate::body::{Json, RequestBody, parse_object, parse_optional_object, read, read_bounded};
use crate::error::ApiError;
use crate::evaluations::gate::{Gate, GateReport};
use crate::loading::upload::read_upload;
use crate::loading::{self, Conditions, LoadRequest, PromoteRequest, Replace, Source};
use crate::openapi::InferenceErrors;
use crate::query::Query;
use crate::state::State;

/// An adapter in a directory under the adapters root.
#[derive(Debug, Deserialize, ToSchema)]
pub struct AdapterFromPath {
    /// The name it gets; with PUT the path's.
    pub name: Option<String>,
    /// The directory, relative to the adapters root.
    pub path: String,
}

/// An adapter as a form.
#[derive(Debug, ToSchema)]
pub struct AdapterForm {
    /// The name it gets; with PUT the path's.
    pub name: Option<String>,
    /// adapter_config.json.
    #[schema(value_type = String, format = Binary)]
    pub config: Vec<u8>,
    /// adapter_model.safetensors.
    #[schema(value_type = String, format = Binary)]
    pub weights: Vec<u8>,
    /// manifest.json.
    #[schema(value_type = Option<String>, format = Binary)]
    pub manifest: Option<Vec<u8>>,
}

/// How to load.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LoadOptions {
    /// Requests by name get the new version from now on; true unless given.
    pub activate: Option<bool>,
    /// Check and measure everything, store and change nothing; false unless given.
    pub dry_run: Option<bool>,
}

/// What to delete.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteOptions {
    /// One version, by a prefix of at least 8 hex digits; the whole adapter unless given.
    pub version: Option<String>,
}

/// Which version to activate.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ActivateRequest {
    /// The version, or a prefix of at least 8 hex digits.
    pub version: String,
    /// Only if this version, or prefix, is active now.
    pub expected: Option<String>,
    /// Only if an evaluation found this.
    pub gate: Option<Gate>,
}

/// Where to return to.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RollbackRequest {
    /// A retained version, or a prefix of at least 8 hex digits; the one active before unless given.
    pub version: Option<String>,
    /// Only if this version, or prefix, is active now.
    pub expected: Option<String>,
}

impl RequestBody for ActivateRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// What the OpenAPI document says of a replacement.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Replaced {
    /// It took place.
    Loaded(LoadedAdapter),
    /// It was only tried.
    DryRun(DryRun),
}

/// Lists the adapters.
#[utoipa::path(get, path = "/v1/adapters", tag = "adapters",
    responses((status = 200, description = "Every adapter with its versions", body = AdapterList), InferenceErrors))]
pub async fn list_adapters(_key: AdminKey, state: Data<State>) -> HttpResponse {
    let entries = state.registry.list();
    HttpResponse::Ok().json(AdapterList {
        object: "list",
        data: entries
            .iter()
            .map(|entry| AdapterCard::of(&state, entry))
            .collect(),
    })
}

/// Describes an adapter.
#[utoipa::path(get, path = "/v1/adapters/{name}", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    responses((status = 200, description = "The adapter with its versions", body = AdapterCard), InferenceErrors))]
pub async fn get_adapter(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(card(&state, &state.registry.entry(&name)?))
}

/// Loads an adapter under a new name, from an upload or from a directory.
#[utoipa::path(post, path = "/v1/adapters", tag = "adapters", params(LoadOptions),
    request_body(content((AdapterFromPath = "application/json"), (AdapterForm = "multipart/form-data"))),
    responses((status = 201, description = "Loaded", body = LoadedAdapter), (status = 200, description = "A dry run", body = DryRun), InferenceErrors))]
pub async fn create_adapter(
    _key: AdminKey,
    state: Data<State>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let options: LoadOptions = crate::query::parse(request.query_string())?;
    let (name, source) = read_source(&state, &request, payload).await?;
    let name = name.ok_or_else(|| ApiError::MissingField {
        param: "name".to_owned(),
        message: "`name` is missing; send the name the adapter shall have".to_owned(),
    })?;
    let loading = LoadRequest {
        name,
        source,
        replace: Replace::Never,
        activate: options.activate.unwrap_or(true),
    };
    load(&state, loading, &options).await
}

/// Adds a version to an adapter and activates it; a new name is created. `If-Match: "<active version>"` makes it a compare-and-swap.
#[utoipa::path(put, path = "/v1/adapters/{name}", tag = "adapters", params(("name" = String, Path, description = "The adapter"), LoadOptions),
    request_body(content((AdapterFromPath = "application/json"), (AdapterForm = "multipart/form-data"))),
    responses((status = 200, description = "Replaced, or what a dry run found", body = Replaced), (status = 201, description = "Created", body = LoadedAdapter), InferenceErrors))]
pub async fn replace_adapter(
    _key: AdminKey,
    state: Data<State>,
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let options: LoadOptions = crate::query::parse(request.query_string())?;
    let replace = match expected_version(&request)? {
        Some(expected) => Replace::Active(expected),
        None => Replace::Allowed,
    };
    let (named, source) = read_source(&state, &request, payload).await?;
    check_same_name(named.as_deref(), &name)?;
    let loading = LoadRequest {
        name: name.into_inner(),
        source,
        replace,
        activate: options.activate.unwrap_or(true),
    };
    load(&state, loading, &options).await
}

/// Makes a retained version the active one.
#[utoipa::path(post, path = "/v1/adapters/{name}/activate", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    request_body = ActivateRequest, responses((status = 200, description = "Activated", body = GatedAdapter), InferenceErrors))]
pub async fn activate_adapter(
    _key: AdminKey,
    state: Data<State>,
    request: HttpRequest,
    name: Path<String>,
    body: Json<ActivateRequest>,
) -> Result<HttpResponse, ApiError> {
    let expected = one_expectation(&request, body.0.expected)?;
    let conditions = Conditions {
        expected: expected.as_deref(),
        gate: body.0.gate.as_ref(),
        cause: Cause::Activate,
    };
    let (entry, gate) = loading::activate(&state, &name, &body.0.version, conditions).await?;
    Ok(gated(&state, &entry, gate))
}

/// Makes a version active if its figures pass a gate; without an evaluation to go by, runs one first and answers when it is done.
#[utoipa::path(post, path = "/v1/adapters/{name}/promote", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    request_body = PromoteRequest, responses((status = 200, description = "Promoted", body = GatedAdapter), InferenceErrors))]
pub async fn promote_adapter(
    _key: AdminKey,
    state: Data<State>,
    request: HttpRequest,
    name: Path<String>,
    body: Json<PromoteRequest>,
) -> Result<HttpResponse, ApiError> {
    let mut promotion = body.0;
    promotion.expected = one_expectation(&request, promotion.expected)?;
    let (entry, gate) = loading::promote(&state, &name, promotion).await?;
    Ok(gated(&state, &entry, gate))
}

/// Returns to the version that was active before, or to another one that is retained; with `If-Match`, only from that version.
#[utoipa::path(post, path = "/v1/adapters/{name}/rollback", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    request_body = Option<RollbackRequest>, responses((status = 200, description = "Rolled back", body = AdapterCard), InferenceErrors))]
pub async fn roll_back_adapter(
    _key: AdminKey,
    state: Data<State>,
    request: HttpRequest,
    name: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = read_bounded(payload, state.configuration.max_body_bytes).await?;
    // The usual rollback has no body at all.
    let wanted: RollbackRequest = read(&Value::Object(parse_optional_object(&body)?))?;
    let expected = one_expectation(&request, wanted.expected)?;
    let version = wanted.version.as_deref();
    let entry = loading::rollback(&state, &name, version, expected.as_deref()).await?;
    Ok(card(&state, &entry))
}

/// Unloads an adapter, or one version of it.
#[utoipa::path(delete, path = "/v1/adapters/{name}", tag = "adapters", params(("name" = String, Path, description = "The adapter"), DeleteOptions),
    responses((status = 204, description = "Gone; the weights are freed with the last request that uses them"), InferenceErrors))]
pub async fn delete_adapter(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
    options: Query<DeleteOptions>,
) -> Result<HttpResponse, ApiError> {
    match &options.0.version {
        Some(version) => loading::remove_version(&state, &name, version).await?,
        None => loading::remove(&state, &name).await?,
    }
    Ok(HttpResponse::NoContent().finish())
}

/// Loads, or says what loading would do.
async fn load(
    state: &Data<State>,
    loading: LoadRequest,
    options: &LoadOptions,
) -> Result<HttpResponse, ApiError> {
    if options.dry_run == Some(true) {
        let examined = loading::examine(state, loading).await?;
        return Ok(HttpResponse::Ok().json(DryRun::of(examined)));
    }
    let loaded = loading::load(state, loading).await?;
    let mut response = match loaded.created {
        true => HttpResponse::Created(),
        false => HttpResponse::Ok(),
    };
    response.insert_header(entity_tag(&loaded.entry));
    Ok(response.json(LoadedAdapter::of(state, loaded)))
}

/// An adapter and what a gate found, as an answer.
fn gated(state: &State, entry: &Entry, gate: Option<GateReport>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(entity_tag(entry))
        .json(GatedAdapter {
            adapter: AdapterCard::of(state, entry),
            gate,
        })
}

/// An adapter as an answer.
fn card(state: &State, entry: &Entry) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(entity_tag(entry))
        .json(AdapterCard::of(state, entry))
}

fn check_same_name(named: Option<&str>, path: &str) -> Result<(), ApiError> {
    match named {
        Some(named) if named != path => Err(ApiError::invalid(
            "name",
            format!("`name` is {named:?} and the path says {path:?}; leave one out"),
        )),
        _ => Ok(()),
    }
}

/// The adapter's files, uploaded or named.
async fn read_source(
    state: &Data<State>,
    request: &HttpRequest,
    payload: Payload,
) -> Result<(Option<String>, Source), ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_form = content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/"));
    if is_form {
        let form = Multipart::new(request.headers(), payload);
        let upload = read_upload(state, form).await?;
        return Ok((upload.name, Source::Upload(upload.incoming)));
    }
    let body = read_bounded(payload, state.configuration.max_body_bytes).await?;
    let request: AdapterFromPath = read(&Value::Object(parse_object(&body)?))?;
    if request.path.is_empty() {
        let requested = request.path;
        return Err(AdapterError::PathNotFound { requested }.into());
    }
    Ok((request.name, Source::Path(request.path)))
}
