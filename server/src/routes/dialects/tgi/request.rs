//! `POST /`, `/generate` and `/generate_stream` as text-generation-inference and LoRAX take them.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::{Answer, TgiGeneration};
use super::parameters::{TgiParameters, refuse_parameters};
use super::{TgiError, TgiErrorBody};
use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::generation::{Running, collect, submit};
use crate::inference::prompts::Prompt;
use crate::inference::stream::{StreamPlan, respond};
use crate::inference::target::Target;
use crate::openapi::ServerSentEvent;
use crate::routes::dialects::spoken::Spoken;
use crate::state::State;

/// A prompt to continue.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TgiRequest {
    /// The prompt.
    pub inputs: String,
    /// How to generate.
    #[serde(default)]
    pub parameters: Option<TgiParameters>,
    /// Server-sent events; only on `/`.
    pub stream: Option<bool>,
}

impl RequestBody for TgiRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        if let Some(Value::Object(parameters)) = object.get("parameters") {
            refuse_parameters(parameters)?;
        }
        read(&Value::Object(object))
    }
}

/// Continues a prompt, streamed or in a list of one, as text-generation-inference does at its root.
#[utoipa::path(post, path = "/", tag = "dialects", request_body = TgiRequest,
    responses((status = 200, description = "A list of one answer, or its tokens as server-sent events", content((Vec<TgiGeneration> = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = "4XX", description = "Refused", body = TgiErrorBody), (status = "5XX", description = "Failed", body = TgiErrorBody)))]
pub async fn generate_or_stream(
    _key: Spoken<TgiError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    body: Spoken<TgiError, Json<TgiRequest>>,
) -> Result<HttpResponse, TgiError> {
    let body = body.0.0;
    if body.stream == Some(true) {
        return Ok(stream(&state, &request, body).await?);
    }
    Ok(HttpResponse::Ok().json([whole(&state, &request, body).await?]))
}

/// Continues a prompt, token by token.
#[utoipa::path(post, path = "/generate_stream", tag = "dialects", request_body = TgiRequest,
    responses((status = 200, description = "The tokens as server-sent events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = "4XX", description = "Refused", body = TgiErrorBody), (status = "5XX", description = "Failed", body = TgiErrorBody)))]
pub async fn generate_stream(
    _key: Spoken<TgiError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    body: Spoken<TgiError, Json<TgiRequest>>,
) -> Result<HttpResponse, TgiError> {
    Ok(stream(&state, &request, body.0.0).await?)
}

/// The answer to `/generate`.
///
/// # Errors
/// The request's and the engine's.
pub async fn generate(
    state: &Data<State>,
    request: &HttpRequest,
    body: TgiRequest,
) -> Result<HttpResponse, TgiError> {
    Ok(HttpResponse::Ok().json(whole(state, request, body).await?))
}

async fn whole(
    state: &Data<State>,
    request: &HttpRequest,
    body: TgiRequest,
) -> Result<TgiGeneration, ApiError> {
    let told = (body.parameters.as_ref()).is_some_and(TgiParameters::wants_details);
    let (running, answer) = start(state, request, body, told).await?;
    let finished = collect(running).await?;
    answer.whole(finished)
}

async fn stream(
    state: &Data<State>,
    request: &HttpRequest,
    body: TgiRequest,
) -> Result<HttpResponse, ApiError> {
    let parameters = body.parameters.as_ref();
    if parameters.is_some_and(|parameters| parameters.decoder_input_details == Some(true)) {
        return Err(ApiError::not_supported(
            "decoder_input_details",
            "a stream tells nothing about the prompt; use /generate",
        ));
    }
    let (running, answer) = start(state, request, body, true).await?;
    let plan = StreamPlan {
        running,
        prompt_tokens: vec![answer.prompt_tokens()],
        include_usage: false,
    };
    Ok(respond(plan, answer))
}

async fn start(
    state: &Data<State>,
    request: &HttpRequest,
    body: TgiRequest,
    told: bool,
) -> Result<(Vec<Running>, Answer), ApiError> {
    let parameters = body.parameters.unwrap_or_default();
    let target = Target::of_request(state, request, &parameters.selection()?).await?;
    let tokenizer = state.engine.tokenizer();
    let generation = parameters.generation(tokenizer, told)?;
    let mut prompts = Prompt::Text(body.inputs).encode(tokenizer)?;
    for prompt in &mut prompts {
        let kept = parameters.truncate.unwrap_or(usize::MAX).max(1);
        let surplus = prompt.tokens.len().saturating_sub(kept);
        prompt.tokens.drain(..surplus);
    }
    let running = submit(state, &target, &prompts, &generation)?;
    let answer = Answer::new(state, target, prompts, (parameters, generation));
    Ok((running, answer))
}
