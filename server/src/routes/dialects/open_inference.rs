//! The Open Inference Protocol, version 2, as KServe and Triton speak it: health, metadata, inference on text tensors, and the
//! extension for the model repository. Here are its errors, and what says that the server is there.

pub mod infer;
pub mod models;
pub mod repository;
pub mod tensors;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use super::spoken::{message, refusal};
use crate::error::ApiError;
use crate::state::State;

/// Fields that have another name here.
const NAMES: &[(&str, &str)] = &[("prompt", tensors::INPUT)];

/// An error as the protocol tells it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenInferenceError(#[from] ApiError);

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenInferenceErrorBody {
    /// What was wrong, where, and what would be right.
    pub error: String,
}

/// What the server is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    /// `quickchange`.
    pub name: &'static str,
    /// Version of the server.
    pub version: &'static str,
    /// Extensions of the protocol that work.
    pub extensions: [&'static str; 2],
}

/// Whether the process answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Live {
    /// `true`.
    pub live: bool,
}

/// Whether work is taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `true`.
    pub ready: bool,
}

impl ResponseError for OpenInferenceError {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let body = OpenInferenceErrorBody {
            error: message(&self.0, NAMES),
        };
        refusal(&self.0, self.status_code(), &body)
    }
}

/// Says what the server is.
#[utoipa::path(get, path = "/v2", tag = "dialects", responses((status = 200, description = "Name, version and extensions", body = ServerMetadata)))]
pub async fn server_metadata() -> HttpResponse {
    HttpResponse::Ok().json(ServerMetadata {
        name: "quickchange",
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["model_repository", "binary_tensor_data"],
    })
}

/// Answers while the process can.
#[utoipa::path(get, path = "/v2/health/live", tag = "dialects", responses((status = 200, description = "The process answers", body = Live)))]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Live { live: true })
}

/// Says whether new work is taken.
#[utoipa::path(get, path = "/v2/health/ready", tag = "dialects",
    responses((status = 200, description = "The model is loaded", body = Ready), (status = 503, description = "Draining", body = OpenInferenceErrorBody)))]
pub async fn ready(state: Data<State>) -> Result<HttpResponse, OpenInferenceError> {
    state.check_open()?;
    Ok(HttpResponse::Ok().json(Ready { ready: true }))
}
