//! vLLM's `POST /v1/load_lora_adapter` and `POST /v1/unload_lora_adapter`.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use adapters::RegistryError;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::authorization::AdminKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::loading::{self, LoadRequest, Replace, Source};
use crate::openapi::InferenceErrors;
use crate::state::State;

/// An adapter to load.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LoadLoraRequest {
    /// The name it gets.
    pub lora_name: String,
    /// Its directory, relative to the adapters root.
    pub lora_path: String,
    /// Replace the adapter when the name is taken.
    pub load_inplace: Option<bool>,
}

/// An adapter to unload.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UnloadLoraRequest {
    /// Its name.
    pub lora_name: String,
}

impl RequestBody for LoadLoraRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

impl RequestBody for UnloadLoraRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Loads an adapter from a directory.
#[utoipa::path(post, path = "/v1/load_lora_adapter", tag = "adapters", request_body = LoadLoraRequest,
    responses((status = 200, description = "Loaded", body = String, content_type = "text/plain"), InferenceErrors))]
pub async fn load_lora_adapter(
    _key: AdminKey,
    state: Data<State>,
    body: Json<LoadLoraRequest>,
) -> Result<HttpResponse, ApiError> {
    let name = body.0.lora_name;
    let loading = LoadRequest {
        name: name.clone(),
        source: Source::Path(body.0.lora_path),
        replace: match body.0.load_inplace {
            Some(true) => Replace::Allowed,
            Some(false) | None => Replace::Never,
        },
        activate: true,
    };
    loading::load(&state, loading)
        .await
        .map_err(|error| in_words_of_vllm(error, &name))?;
    Ok(text(format!(
        "Success: LoRA adapter '{name}' added successfully."
    )))
}

/// Unloads an adapter.
#[utoipa::path(post, path = "/v1/unload_lora_adapter", tag = "adapters", request_body = UnloadLoraRequest,
    responses((status = 200, description = "Unloaded", body = String, content_type = "text/plain"), InferenceErrors))]
pub async fn unload_lora_adapter(
    _key: AdminKey,
    state: Data<State>,
    body: Json<UnloadLoraRequest>,
) -> Result<HttpResponse, ApiError> {
    let name = body.0.lora_name;
    loading::remove(&state, &name)
        .await
        .map_err(|error| in_words_of_vllm(error, &name))?;
    Ok(text(format!(
        "Success: LoRA adapter '{name}' removed successfully."
    )))
}

/// Two refusals that clients of vLLM know by text and status.
fn in_words_of_vllm(error: ApiError, name: &str) -> ApiError {
    let (status, message) = match &error {
        ApiError::Registry(RegistryError::AlreadyLoaded { .. }) => (
            StatusCode::BAD_REQUEST,
            format!(
                "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."
            ),
        ),
        ApiError::Registry(RegistryError::NotLoaded { .. }) => (
            StatusCode::NOT_FOUND,
            format!("The lora adapter '{name}' cannot be found."),
        ),
        _ => return error,
    };
    ApiError::InOtherWords {
        error: Box::new(error),
        message,
        status,
    }
}

fn text(message: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body(message)
}
