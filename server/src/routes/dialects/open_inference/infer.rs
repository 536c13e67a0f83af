//! Inference of the protocol: a text for each text.

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use adapters::Lease;
use serde::Serialize;
use utoipa::ToSchema;

use super::models::{version_of, versioned};
use super::tensors::{InferParameters, InferRequest, OUTPUT, OutputTensor, split};
use super::{OpenInferenceError, OpenInferenceErrorBody};
use crate::authorization::InferenceKey;
use crate::body::{RequestBody, read_bounded};
use crate::error::ApiError;
use crate::inference::generation::{collect, submit};
use crate::inference::parameters::{Generation, SamplingFields};
use crate::inference::prompts::Prompt;
use crate::inference::target::{Selection, Target};
use crate::routes::dialects::spoken::Spoken;
use crate::state::State;

/// Most tokens per text unless the request says.
const DEFAULT_MAX_TOKENS: i64 = 16;

/// The answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct InferResponse {
    /// The model as it was named.
    pub model_name: String,
    /// The version that answered.
    pub model_version: String,
    /// The request's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// One tensor, `text_output`.
    pub outputs: Vec<OutputTensor>,
}

/// Continues each text of a tensor.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "dialects", params(("model" = String, Path, description = "Any name a request may carry")),
    request_body = InferRequest, responses((status = 200, description = "As many texts", body = InferResponse),
        (status = "4XX", description = "Refused", body = OpenInferenceErrorBody), (status = "5XX", description = "Failed", body = OpenInferenceErrorBody)))]
pub async fn infer(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    model: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, OpenInferenceError> {
    let name = model.into_inner();
    let selection = Selection::of_model(Some(&name));
    Ok(continue_texts(&state, &request, (name, selection), payload).await?)
}

/// Continues each text of a tensor with one version of a model.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer", tag = "dialects",
    params(("model" = String, Path, description = "An adapter, or the base model"), ("version" = String, Path, description = "Eight or more hex digits of it")),
    request_body = InferRequest, responses((status = 200, description = "As many texts", body = InferResponse),
        (status = "4XX", description = "Refused", body = OpenInferenceErrorBody), (status = "5XX", description = "Failed", body = OpenInferenceErrorBody)))]
pub async fn infer_version(
    _key: Spoken<OpenInferenceError, InferenceKey>,
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String)>,
    payload: Payload,
) -> Result<HttpResponse, OpenInferenceError> {
    let (name, version) = path.into_inner();
    let selection = Selection::of_model(Some(&versioned(&state, &name, &version)?));
    Ok(continue_texts(&state, &request, (name, selection), payload).await?)
}

async fn continue_texts(
    state: &Data<State>,
    request: &HttpRequest,
    (name, selection): (String, Selection),
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = read_bounded(payload, state.configuration.max_body_bytes).await?;
    let (object, bytes) = split(request, &body)?;
    let body = InferRequest::from_object(object)?;
    let target = Target::of_request(state, request, &selection).await?;
    let texts = body.tensors.texts(bytes)?;
    let tokenizer = state.engine.tokenizer();
    let generation = check(&body.generation(), tokenizer.vocabulary())?;
    let prompts = Prompt::Texts(texts.texts).encode(tokenizer)?;
    let finished = collect(submit(state, &target, &prompts, &generation)?).await?;
    Ok(HttpResponse::Ok().json(InferResponse {
        model_name: name,
        model_version: version_of(state, target.lease().map(Lease::summary)),
        id: body.tensors.id,
        outputs: vec![OutputTensor {
            name: OUTPUT,
            datatype: "BYTES",
            shape: texts.shape,
            data: finished.into_iter().map(|own| own.text).collect(),
        }],
    }))
}

fn check(parameters: &InferParameters, vocabulary: usize) -> Result<Generation, ApiError> {
    let fields = SamplingFields {
        temperature: parameters.temperature,
        top_p: parameters.top_p,
        top_k: parameters.top_k,
        seed: parameters.seed,
        stop: parameters.stop.clone(),
        ..SamplingFields::default()
    };
    let max_tokens = parameters.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    fields.check(Some(max_tokens), vocabulary)
}
