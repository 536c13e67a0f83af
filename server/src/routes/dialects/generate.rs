//! `POST /generate`, a route that text-generation-inference and SGLang both have. The body says whose request it is.

use actix_web::web::Data;
use actix_web::{Error, HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::sglang::{self, SglangError, SglangErrorBody};
use super::spoken::Spoken;
use super::tgi::request::TgiRequest;
use super::tgi::{self, TgiError, TgiErrorBody};
use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody};
use crate::error::ApiError;
use crate::openapi::ServerSentEvent;
use crate::state::State;

/// A request of either kind, not read yet, so that what is wrong with it can be told in its own dialect.
#[derive(Debug)]
pub enum GenerateRequest {
    /// Text-generation-inference's.
    Tgi(Map<String, Value>),
    /// SGLang's.
    Sglang(Map<String, Value>),
}

/// What the OpenAPI document says of a request: `inputs` is text-generation-inference's and LoRAX's, `text` and `input_ids` are
/// SGLang's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum GenerateBody {
    /// Text-generation-inference's.
    Tgi(TgiRequest),
    /// SGLang's.
    Sglang(sglang::generate::SglangRequest),
}

/// What the OpenAPI document says of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum GenerateAnswer {
    /// Text-generation-inference's.
    Tgi(tgi::answer::TgiGeneration),
    /// SGLang's, for one prompt.
    Sglang(sglang::answer::SglangGeneration),
    /// SGLang's, for several.
    SglangList(Vec<sglang::answer::SglangGeneration>),
}

/// What the OpenAPI document says of a refusal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum GenerateErrorBody {
    /// Text-generation-inference's.
    Tgi(TgiErrorBody),
    /// SGLang's.
    Sglang(SglangErrorBody),
}

impl RequestBody for GenerateRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        let has = |field: &str| object.contains_key(field);
        if has("text") || has("input_ids") {
            return Ok(Self::Sglang(object));
        }
        // What names no prompt at all gets this error as well.
        Ok(Self::Tgi(object))
    }
}

/// Continues prompts, as text-generation-inference or as SGLang does.
#[utoipa::path(post, path = "/generate", tag = "dialects", request_body = GenerateBody,
    responses((status = 200, description = "The answer; SGLang's as server-sent events when its `stream` is true", content((GenerateAnswer = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = "4XX", description = "Refused, in the shape of whose request it was", body = GenerateErrorBody),
        (status = "5XX", description = "Failed", body = GenerateErrorBody)))]
pub async fn generate(
    _key: Spoken<TgiError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    body: Spoken<TgiError, Json<GenerateRequest>>,
) -> Result<HttpResponse, Error> {
    match body.0.0 {
        GenerateRequest::Tgi(object) => {
            let body = TgiRequest::from_object(object).map_err(TgiError::from)?;
            Ok(tgi::request::generate(&state, &request, body).await?)
        }
        GenerateRequest::Sglang(object) => {
            let answer = sglang::generate::generate(&state, &request, object).await;
            Ok(answer.map_err(SglangError::from)?)
        }
    }
}
