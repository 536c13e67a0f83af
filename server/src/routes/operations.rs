//! `GET /health`, `/ready`, `/metrics`, `/version`, `/openapi.json`, `/docs`, and the answers for what does not exist.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::authorization::MetricsKey;
use crate::error::{ApiError, ErrorBody};
use crate::openapi::ApiDocument;
use crate::state::State;

/// A word about the process.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `ready`.
    pub status: &'static str,
}

/// What is running.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionInfo {
    /// Version of the server.
    pub version: &'static str,
    /// How it was built.
    pub build: BuildInfo,
    /// The base model.
    pub base_model: BaseModelInfo,
    /// The kernel set in use.
    pub kernels: String,
}

/// How the server was built.
#[derive(Debug, Serialize, ToSchema)]
pub struct BuildInfo {
    /// `debug` or `release`.
    pub profile: &'static str,
    /// Operating system and processor.
    pub target: String,
}

/// The base model.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaseModelInfo {
    /// The name in requests.
    pub name: String,
    /// SHA-256 of the model file, hex.
    pub digest: String,
}

/// Answers while the process can.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, description = "The process answers", body = Health)))]
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Says whether new work is taken.
#[utoipa::path(get, path = "/ready", tag = "operations",
    responses((status = 200, description = "The model is loaded", body = Health), (status = 503, description = "Draining", body = ErrorBody)))]
pub async fn ready(state: Data<State>) -> Result<HttpResponse, ApiError> {
    state.check_open()?;
    Ok(HttpResponse::Ok().json(Health { status: "ready" }))
}

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"),
    (status = 401, description = "No key or a wrong one, where keys are configured", body = ErrorBody), (status = 403, description = "The key lacks the scope `metrics`", body = ErrorBody)))]
pub async fn metrics(_key: MetricsKey, state: Data<State>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(state.metrics.scrape(&state)?))
}

/// Says what is running.
#[utoipa::path(get, path = "/version", tag = "operations", responses((status = 200, description = "Build, base model, kernels", body = VersionInfo)))]
pub async fn version(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(VersionInfo {
        version: env!("CARGO_PKG_VERSION"),
        build: BuildInfo {
            profile: match cfg!(debug_assertions) {
                true => "debug",
                false => "release",
            },
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        },
        base_model: BaseModelInfo {
            name: state.served_name().to_owned(),
            digest: state.engine.base().digest.clone(),
        },
        kernels: state.engine.kernels().to_owned(),
    })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = 200, description = "The OpenAPI document", body = Object)))]
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().json(ApiDocument::openapi())
}

/// Sends browsers to the page with its slash, which its relative links need.
pub async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, "/docs/"))
        .finish()
}

/// The answer for unknown routes.
///
/// # Errors
/// Always `RouteNotFound`.
pub async fn not_found(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::RouteNotFound {
        path: request.path().to_owned(),
    })
}
