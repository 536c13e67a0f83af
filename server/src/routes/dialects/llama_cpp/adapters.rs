//! `GET` and `POST /lora-adapters`: adapters by number, and the scales of those that answer requests which choose none.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Payload};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LlamaCppError, LlamaCppErrorBody};
use crate::audit::note;
use crate::authorization::{AdminKey, InferenceKey};
use crate::body::{parse, read, read_bounded};
use crate::error::ApiError;
use crate::routes::dialects::registered::registered;
use crate::routes::dialects::spoken::Spoken;
use crate::state::State;

/// A loaded adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoraAdapter {
    /// Its position among the names in order. It changes when adapters come and go.
    pub id: usize,
    /// Its name.
    pub path: String,
    /// The factor that its weights get in requests that choose no adapter; 0 is off.
    pub scale: f64,
}

/// An adapter's scale.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct LoraScale {
    /// Its number in `GET /lora-adapters`.
    pub id: usize,
    /// The factor that its weights get; 0 is off.
    pub scale: f64,
}

/// What came of a change.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success {
    /// `true`.
    pub success: bool,
}

/// Lists the adapters with the scales that apply when a request says nothing.
#[utoipa::path(get, path = "/lora-adapters", tag = "dialects",
    responses((status = 200, description = "Every adapter", body = Vec<LoraAdapter>), (status = "4XX", description = "Refused", body = LlamaCppErrorBody)))]
pub async fn list_lora_adapters(
    _key: Spoken<LlamaCppError, InferenceKey>,
    state: Data<State>,
) -> HttpResponse {
    let scales = state.default_scales.get();
    let adapters = registered(&state).into_iter().enumerate();
    let listed: Vec<LoraAdapter> = adapters
        .map(|(id, adapter)| LoraAdapter {
            id,
            scale: scales.get(&adapter.name).copied().unwrap_or(0.0),
            path: adapter.name,
        })
        .collect();
    HttpResponse::Ok().json(listed)
}

/// Sets the scales that apply when a request says nothing; adapters that are not listed are off.
#[utoipa::path(post, path = "/lora-adapters", tag = "dialects", request_body = Vec<LoraScale>,
    responses((status = 200, description = "Set", body = Success), (status = "4XX", description = "Refused", body = LlamaCppErrorBody)))]
pub async fn scale_lora_adapters(
    _key: Spoken<LlamaCppError, AdminKey>,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, LlamaCppError> {
    let scales = read_scales(&state, payload).await?;
    let weights = by_name(&state, &scales)?;
    let names: Vec<&str> = weights.keys().map(String::as_str).collect();
    note::about(&names.join(","), None);
    state.default_scales.set(weights);
    Ok(HttpResponse::Ok().json(Success { success: true }))
}

/// Adapters' weights by name, without those that are off.
///
/// # Errors
/// `InvalidValue` for a number that no adapter has.
pub fn by_name(state: &State, scales: &[LoraScale]) -> Result<BTreeMap<String, f64>, ApiError> {
    let adapters = registered(state);
    let mut weights = BTreeMap::new();
    for (position, LoraScale { id, scale }) in scales.iter().enumerate() {
        let adapter = adapters.get(*id).ok_or_else(|| {
            ApiError::invalid(
                format!("[{position}].id"),
                format!("there is no adapter {id}; GET /lora-adapters lists them"),
            )
        })?;
        weights.insert(adapter.name.clone(), *scale);
    }
    weights.retain(|_, scale| *scale != 0.0);
    Ok(weights)
}

/// The weights for requests that choose no adapter, of those adapters that are still loaded.
pub fn defaults(state: &State) -> BTreeMap<String, f64> {
    let mut scales = state.default_scales.get();
    let adapters = registered(state);
    scales.retain(|name, _| adapters.iter().any(|adapter| adapter.name == *name));
    scales
}

async fn read_scales(state: &State, payload: Payload) -> Result<Vec<LoraScale>, ApiError> {
    let body = read_bounded(payload, state.configuration.max_body_bytes).await?;
    read(&parse(&body)?)
}
