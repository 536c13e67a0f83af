//! `/v1/adapters/{name}/canary`, `/pin` and `/history`: what a name points at besides its active version.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use adapters::{ActivePointer, Canary, Entry};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::adapter_card::{ActivationCard, AdapterCard};
use super::precondition::entity_tag;
use crate::authorization::AdminKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::loading;
use crate::openapi::InferenceErrors;
use crate::state::State;

/// A version to try on a share of the requests.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CanaryRequest {
    /// The version, or a prefix of at least 8 hex digits.
    pub version: String,
    /// Its share of the requests by name, in percent, from 0 to 100.
    pub percent: f64,
}

/// The activations of a name.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// `list`.
    pub object: &'static str,
    /// The latest activations, oldest first; the last one is that of the active version.
    pub data: Vec<ActivationCard>,
}

impl RequestBody for CanaryRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Gives a retained version a share of the requests by name, chosen by a hash of `user`, or of the request's id without one.
#[utoipa::path(post, path = "/v1/adapters/{name}/canary", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    request_body = CanaryRequest, responses((status = 200, description = "The version is on trial", body = AdapterCard), InferenceErrors))]
pub async fn start_canary(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
    body: Json<CanaryRequest>,
) -> Result<HttpResponse, ApiError> {
    let CanaryRequest { version, percent } = body.0;
    if !(0.0..=100.0).contains(&percent) {
        return Err(ApiError::invalid(
            "percent",
            format!("`percent` is {percent}; it must be from 0 to 100"),
        ));
    }
    change(&state, &name, |entry| {
        let version = entry.resolve(&version)?.clone();
        if version == *entry.active() {
            return Err(ApiError::invalid(
                "version",
                format!("version {version} is active and gets every request already; a canary is another version"),
            ));
        }
        Ok(ActivePointer {
            canary: Some(Canary { version, percent }),
            ..entry.pointer.clone()
        })
    })
    .await
}

/// Ends a trial; the active version gets every request again.
#[utoipa::path(delete, path = "/v1/adapters/{name}/canary", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    responses((status = 200, description = "No version is on trial", body = AdapterCard), InferenceErrors))]
pub async fn end_canary(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    change(&state, &name, |entry| {
        Ok(ActivePointer {
            canary: None,
            ..entry.pointer.clone()
        })
    })
    .await
}

/// Keeps the active version of an adapter in memory, used or not.
#[utoipa::path(put, path = "/v1/adapters/{name}/pin", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    responses((status = 200, description = "Pinned, and in memory", body = AdapterCard), InferenceErrors))]
pub async fn pin(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(card(&state, &loading::pin(&state, &name, true).await?))
}

/// Lets an adapter leave memory again when others need the room.
#[utoipa::path(delete, path = "/v1/adapters/{name}/pin", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    responses((status = 200, description = "Not pinned", body = AdapterCard), InferenceErrors))]
pub async fn unpin(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(card(&state, &loading::pin(&state, &name, false).await?))
}

/// Lists the latest activations.
#[utoipa::path(get, path = "/v1/adapters/{name}/history", tag = "adapters", params(("name" = String, Path, description = "The adapter")),
    responses((status = 200, description = "The latest activations", body = History), InferenceErrors))]
pub async fn get_history(
    _key: AdminKey,
    state: Data<State>,
    name: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let entry = state.registry.entry(&name)?;
    Ok(HttpResponse::Ok()
        .insert_header(entity_tag(&entry))
        .json(History {
            object: "list",
            data: ActivationCard::all(&entry),
        }))
}

async fn change(
    state: &Data<State>,
    name: &str,
    next: impl FnMut(&Entry) -> Result<ActivePointer, ApiError>,
) -> Result<HttpResponse, ApiError> {
    Ok(card(state, &loading::adjust(state, name, next).await?))
}

fn card(state: &State, entry: &Entry) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(entity_tag(entry))
        .json(AdapterCard::of(state, entry))
}
