//! `POST /v1/replay`: an answer made again from its request and its receipt.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::chat::ChatRequest;
use super::classify::ClassifyRequest;
use super::completions::CompletionRequest;
use super::score::ScoreRequest;
use super::{chat, classify, completions, score};
use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::receipt::Receipt;
use crate::inference::target::Target;
use crate::openapi::InferenceErrors;
use crate::state::State;

/// What is to be made again.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ReplayRequest {
    /// The request as it was sent, to `/v1/chat/completions`, `/v1/completions`, `/v1/classify` or `/v1/score`; which one is told
    /// by `messages`, `prompt`, `inputs` or `pairs`.
    #[schema(value_type = Object)]
    pub request: Map<String, Value>,
    /// The content of the answer's header `x-quickchange-receipt`.
    pub receipt: Receipt,
}

impl RequestBody for ReplayRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Makes an answer again, whole even if it was streamed, or says which part of what it was made of is gone.
#[utoipa::path(post, path = "/v1/replay", tag = "inference", request_body = ReplayRequest,
    responses((status = 200, description = "The answer, in the shape of its route", body = Object), InferenceErrors))]
pub async fn replay(
    _key: InferenceKey,
    state: Data<State>,
    http: HttpRequest,
    body: Json<ReplayRequest>,
) -> Result<HttpResponse, ApiError> {
    state.check_open()?;
    let ReplayRequest { request, receipt } = body.0;
    let selection = receipt.selection(&state)?;
    let mut target = Target::resolve(&state, &selection, "").await?;
    target.admit(&state, &http)?;
    if let Some(Value::String(model)) = request.get("model") {
        target.model.clone_from(model);
    }
    let seed = receipt.seed;
    if request.contains_key("messages") {
        let request = ChatRequest::from_object(request)?;
        return chat::repeat(&state, request, (target, seed)).await;
    }
    if request.contains_key("prompt") && !request.contains_key("inputs") {
        let request = CompletionRequest::from_object(request)?;
        return completions::repeat(&state, request, (target, seed)).await;
    }
    if request.contains_key("inputs") {
        let request = ClassifyRequest::from_object(request)?;
        return classify::repeat(&state, request, target).await;
    }
    if request.contains_key("pairs") {
        let request = ScoreRequest::from_object(request)?;
        return score::repeat(&state, &request.pairs, target).await;
    }
    Err(ApiError::MissingField {
        param: "request".to_owned(),
        message: "`request` has none of `messages`, `prompt`, `inputs` and `pairs`; send the whole request whose answer is to be made again".to_owned(),
    })
}
