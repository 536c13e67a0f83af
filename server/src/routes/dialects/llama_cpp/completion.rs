//! `POST /completion` and `/completions`, llama.cpp's own completions.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use serde::Serialize;
use utoipa::ToSchema;

use super::adapters::{by_name, defaults};
use super::answer::{Answer, LlamaCppCompletion};
use super::parameters::LlamaCppRequest;
use super::{LlamaCppError, LlamaCppErrorBody};
use crate::authorization::InferenceKey;
use crate::body::Json;
use crate::error::ApiError;
use crate::inference::generation::{collect, submit};
use crate::inference::stream::{StreamPlan, respond};
use crate::inference::target::{Selection, Target};
use crate::openapi::ServerSentEvent;
use crate::routes::dialects::spoken::Spoken;
use crate::state::State;

/// What the OpenAPI document says of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LlamaCppAnswer {
    /// To one prompt.
    One(Box<LlamaCppCompletion>),
    /// To several.
    Several(Vec<LlamaCppCompletion>),
}

/// Continues a prompt or several, as llama.cpp does.
#[utoipa::path(post, path = "/completion", tag = "dialects", request_body = LlamaCppRequest,
    responses((status = 200, description = "The answer, a list of them for several prompts, or parts as server-sent events", content((LlamaCppAnswer = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = "4XX", description = "Refused", body = LlamaCppErrorBody), (status = "5XX", description = "Failed", body = LlamaCppErrorBody)))]
pub async fn create_completion(
    _key: Spoken<LlamaCppError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    body: Spoken<LlamaCppError, Json<LlamaCppRequest>>,
) -> Result<HttpResponse, LlamaCppError> {
    Ok(complete(&state, &request, body.0.0).await?)
}

/// The same as `/completion`.
#[utoipa::path(post, path = "/completions", tag = "dialects", request_body = LlamaCppRequest,
    responses((status = 200, description = "As for `/completion`", content((LlamaCppAnswer = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = "4XX", description = "Refused", body = LlamaCppErrorBody), (status = "5XX", description = "Failed", body = LlamaCppErrorBody)))]
pub async fn create_completions(
    _key: Spoken<LlamaCppError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    body: Spoken<LlamaCppError, Json<LlamaCppRequest>>,
) -> Result<HttpResponse, LlamaCppError> {
    Ok(complete(&state, &request, body.0.0).await?)
}

async fn complete(
    state: &Data<State>,
    request: &HttpRequest,
    body: LlamaCppRequest,
) -> Result<HttpResponse, ApiError> {
    let selection = selection(state, &body)?;
    let target = Target::of_request(state, request, &selection).await?;
    let tokenizer = state.engine.tokenizer();
    let generation = body.generation(tokenizer.vocabulary())?;
    let prompts = body.prompt.encode(tokenizer)?;
    let running = submit(state, &target, &prompts, &generation)?;
    let streamed = body.stream == Some(true);
    let prompt_tokens = prompts.iter().map(|prompt| prompt.tokens.len()).collect();
    let answer = Answer::new(state, target, prompts, (body, generation));
    if streamed {
        let plan = StreamPlan {
            running,
            prompt_tokens,
            include_usage: false,
        };
        return Ok(respond(plan, answer));
    }
    let mut completions = answer.whole(collect(running).await?);
    match (completions.len(), completions.pop()) {
        (1, Some(only)) => Ok(HttpResponse::Ok().json(only)),
        (_, last) => {
            completions.extend(last);
            Ok(HttpResponse::Ok().json(completions))
        }
    }
}

/// The request's own scales, or its model, or the scales set for the server.
fn selection(state: &State, body: &LlamaCppRequest) -> Result<Selection, ApiError> {
    let weights = match (&body.lora, &body.model) {
        (Some(scales), _) => by_name(state, scales)?,
        (None, Some(model)) => return Ok(Selection::of_model(Some(model))),
        (None, None) => defaults(state),
    };
    Ok(Selection {
        adapter_weights: (!weights.is_empty()).then_some(weights),
        ..Selection::default()
    })
}
