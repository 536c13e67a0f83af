//! `GET /v1/models` and `GET /v1/models/{id}`, in vLLM's shape.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use adapters::Entry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::authorization::InferenceKey;
use crate::error::ApiError;
use crate::inference::named::Named;
use crate::openapi::InferenceErrors;
use crate::state::State;

/// The models that can be named in requests.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// The base model first, then the adapters.
    pub data: Vec<ModelCard>,
}

/// One model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelCard {
    /// The name to send as `model`.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// `quickchange`.
    pub owned_by: &'static str,
    /// The base model's file, or the adapter's active version.
    pub root: String,
    /// The base model's name for an adapter; null for the base model.
    pub parent: Option<String>,
    /// Tokens one request may have.
    pub max_model_len: usize,
}

/// Lists the base model and every adapter.
#[utoipa::path(get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "Every model", body = ModelList), InferenceErrors))]
pub async fn list_models(_key: InferenceKey, state: Data<State>) -> HttpResponse {
    let mut entries = state.registry.list();
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    let adapters = entries.iter().map(|entry| adapter_card(&state, entry));
    HttpResponse::Ok().json(ModelList {
        object: "list",
        data: std::iter::once(base_card(&state)).chain(adapters).collect(),
    })
}

/// Describes one model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models", params(("id" = String, Path, description = "Any name a request may carry")),
    responses((status = 200, description = "The model", body = ModelCard), InferenceErrors))]
pub async fn get_model(
    _key: InferenceKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let mut card = match Named::resolve(&state, &id, None)? {
        Named::Base => base_card(&state),
        Named::Adapter(hold) => {
            let entry = state.registry.get(hold.name());
            let entry = entry.ok_or_else(|| ApiError::ModelNotFound { model: id.clone() })?;
            ModelCard {
                root: hold.summary().version.to_string(),
                ..adapter_card(&state, &entry)
            }
        }
    };
    card.id.clone_from(&id);
    Ok(HttpResponse::Ok().json(card))
}

fn base_card(state: &State) -> ModelCard {
    ModelCard {
        id: state.served_name().to_owned(),
        object: "model",
        created: state.started,
        owned_by: "quickchange",
        root: state.configuration.model.display().to_string(),
        parent: None,
        max_model_len: state.engine.max_model_len(),
    }
}

fn adapter_card(state: &State, entry: &Entry) -> ModelCard {
    ModelCard {
        id: entry.name.clone(),
        object: "model",
        created: entry.created,
        owned_by: "quickchange",
        root: entry.active().to_string(),
        parent: Some(state.served_name().to_owned()),
        max_model_len: state.engine.max_model_len(),
    }
}
