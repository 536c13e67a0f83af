//! SGLang's native interface: `POST /load_lora_adapter`, `POST /unload_lora_adapter`, and its share of `POST /generate`.

pub mod answer;
pub mod generate;
pub mod parameters;

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::registered::{folder, registered};
use super::spoken::{Spoken, message, refusal};
use crate::authorization::AdminKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::loading::{self, LoadRequest, Replace, Source};
use crate::state::State;

/// Fields that have another name here.
const NAMES: &[(&str, &str)] = &[
    ("prompt", "text"),
    ("max_tokens", "max_new_tokens"),
    ("min_tokens", "min_new_tokens"),
];

/// An error as SGLang tells it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SglangError(#[from] ApiError);

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct SglangErrorBody {
    /// The error.
    pub error: SglangErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct SglangErrorDetail {
    /// What was wrong, where, and what would be right.
    pub message: String,
}

/// An adapter to load.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SglangLoadRequest {
    /// The name it gets.
    pub lora_name: String,
    /// Its directory, relative to the adapters root.
    pub lora_path: String,
    /// Keep it in memory, used or not.
    pub pinned: Option<bool>,
}

/// An adapter to unload.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SglangUnloadRequest {
    /// Its name.
    pub lora_name: String,
}

/// What came of a change, and what is loaded now.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoraUpdate {
    /// Whether it was made.
    pub success: bool,
    /// Why not; empty when it was.
    pub error_message: String,
    /// Every adapter's folder by name.
    pub loaded_adapters: BTreeMap<String, String>,
}

impl RequestBody for SglangLoadRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

impl RequestBody for SglangUnloadRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

impl SglangError {
    /// The body that tells a client about this error.
    pub fn body(&self) -> SglangErrorBody {
        SglangErrorBody {
            error: SglangErrorDetail {
                message: message(&self.0, NAMES),
            },
        }
    }
}

impl ResponseError for SglangError {
    /// SGLang answers 400 whatever is wrong with a request.
    fn status_code(&self) -> StatusCode {
        match self.0.status_code() {
            StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        }
    }

    fn error_response(&self) -> HttpResponse {
        refusal(&self.0, self.status_code(), &self.body())
    }
}

/// What the OpenAPI document says of a refusal: a body that cannot be read has no adapters to list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LoraRefusal {
    /// The adapter could not be loaded or unloaded.
    Update(LoraUpdate),
    /// The request could not be read.
    Request(SglangErrorBody),
}

/// Loads an adapter from a directory under a new name.
#[utoipa::path(post, path = "/load_lora_adapter", tag = "dialects", request_body = SglangLoadRequest,
    responses((status = 200, description = "Loaded", body = LoraUpdate), (status = 400, description = "Not loaded", body = LoraRefusal),
        (status = "4XX", description = "Refused", body = SglangErrorBody)))]
pub async fn load_lora_adapter(
    _key: Spoken<SglangError, AdminKey>,
    state: Data<State>,
    body: Spoken<SglangError, Json<SglangLoadRequest>>,
) -> HttpResponse {
    let body = body.0.0;
    let loading = LoadRequest {
        name: body.lora_name,
        source: Source::Path(body.lora_path),
        replace: Replace::Never,
        activate: true,
    };
    let loaded = load(&state, loading, body.pinned == Some(true)).await;
    update(&state, loaded)
}

async fn load(state: &Data<State>, loading: LoadRequest, pinned: bool) -> Result<(), ApiError> {
    let loaded = loading::load(state, loading).await?;
    if pinned {
        loading::pin(state, &loaded.entry.name, true).await?;
    }
    Ok(())
}

/// Unloads an adapter.
#[utoipa::path(post, path = "/unload_lora_adapter", tag = "dialects", request_body = SglangUnloadRequest,
    responses((status = 200, description = "Unloaded", body = LoraUpdate), (status = 400, description = "Not unloaded", body = LoraRefusal),
        (status = "4XX", description = "Refused", body = SglangErrorBody)))]
pub async fn unload_lora_adapter(
    _key: Spoken<SglangError, AdminKey>,
    state: Data<State>,
    body: Spoken<SglangError, Json<SglangUnloadRequest>>,
) -> HttpResponse {
    let removed = loading::remove(&state, &body.0.0.lora_name).await;
    update(&state, removed)
}

fn update(state: &State, outcome: Result<(), ApiError>) -> HttpResponse {
    let adapters = registered(state).into_iter();
    let loaded_adapters = adapters.map(|adapter| {
        let folder = folder(state, &adapter.name).display().to_string();
        (adapter.name, folder)
    });
    let mut update = LoraUpdate {
        success: outcome.is_ok(),
        error_message: String::new(),
        loaded_adapters: loaded_adapters.collect(),
    };
    match outcome.map_err(SglangError::from) {
        Ok(()) => HttpResponse::Ok().json(update),
        Err(error) => {
            update.error_message = message(&error.0, NAMES);
            refusal(&error.0, error.status_code(), &update)
        }
    }
}
