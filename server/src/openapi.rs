//! The OpenAPI document, made from the handlers. Each handler describes itself; here is only what they share.

mod modifiers;

use utoipa::{IntoResponses, OpenApi, ToSchema};

use self::modifiers::{AnswerHeaders, BearerKey, OverlappingKinds};
use crate::error::ErrorBody;
use crate::routes::dialects::{generate, llama_cpp, open_inference, sglang, tgi, vllm};
use crate::routes::{
    adapters, canary, chat, classify, compare, completions, datasets, evaluations, models,
    operations, replay, score, tasks, tokenizer,
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quickchange",
        description = "One language model, many adapters: served, swapped and evaluated."
    ),
    paths(
        completions::create_completion,
        chat::create_chat_completion,
        classify::classify,
        score::score,
        compare::compare,
        replay::replay,
        models::list_models,
        models::get_model,
        tokenizer::tokenize,
        tokenizer::detokenize,
        tokenizer::tokenizer_info,
        adapters::list_adapters,
        adapters::get_adapter,
        adapters::create_adapter,
        adapters::replace_adapter,
        adapters::delete_adapter,
        adapters::activate_adapter,
        adapters::promote_adapter,
        adapters::roll_back_adapter,
        canary::get_history,
        canary::start_canary,
        canary::end_canary,
        canary::pin,
        canary::unpin,
        tasks::list_tasks,
        datasets::list_datasets,
        datasets::create_dataset,
        datasets::get_dataset,
        datasets::delete_dataset,
        evaluations::list_evaluations,
        evaluations::create_evaluation,
        evaluations::create_ood_evaluation,
        evaluations::create_cross_task_evaluation,
        evaluations::get_evaluation,
        evaluations::cancel_evaluation,
        evaluations::watch_evaluation,
        evaluations::list_predictions,
        evaluations::pause_evaluation,
        evaluations::resume_evaluation,
        evaluations::report_evaluation,
        vllm::load_lora_adapter,
        vllm::unload_lora_adapter,
        sglang::load_lora_adapter,
        sglang::unload_lora_adapter,
        generate::generate,
        tgi::request::generate_or_stream,
        tgi::request::generate_stream,
        tgi::info,
        llama_cpp::completion::create_completion,
        llama_cpp::completion::create_completions,
        llama_cpp::adapters::list_lora_adapters,
        llama_cpp::adapters::scale_lora_adapters,
        open_inference::server_metadata,
        open_inference::live,
        open_inference::ready,
        open_inference::models::model_metadata,
        open_inference::models::model_ready,
        open_inference::models::version_metadata,
        open_inference::models::version_ready,
        open_inference::infer::infer,
        open_inference::infer::infer_version,
        open_inference::repository::repository_index,
        open_inference::repository::repository_load,
        open_inference::repository::repository_unload,
        operations::health,
        operations::ready,
        operations::metrics,
        operations::version,
        operations::openapi,
    ),
    modifiers(&BearerKey, &OverlappingKinds, &AnswerHeaders),
    // A server without keys needs none.
    security((), ("key" = []))
)]
pub struct ApiDocument;

/// An event of a stream, as its parser hands it out.
#[derive(Debug, serde::Serialize, ToSchema)]
pub struct ServerSentEvent {
    /// Its name, where events have one.
    pub event: Option<String>,
    /// What it carries: JSON, or `[DONE]` at the end of OpenAI's streams.
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// The errors any route with a body or a model may answer with.
#[derive(IntoResponses)]
pub enum InferenceErrors {
    /// Malformed, out of range, or known and not supported; `param` names the field.
    #[response(status = 400)]
    BadRequest(#[to_schema] ErrorBody),
    /// No key, a wrong one, or one that has expired.
    #[response(status = 401)]
    Unauthenticated(#[to_schema] ErrorBody),
    /// The key lacks the scope.
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorBody),
    /// Something that was named does not exist.
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody),
    /// Less than 1 KiB of the body came within the time that the server waits for it.
    #[response(status = 408)]
    BodyTooSlow(#[to_schema] ErrorBody),
    /// The name is taken, or a compare-and-swap lost.
    #[response(status = 409)]
    Conflict(#[to_schema] ErrorBody),
    /// The body, prompt or upload is over its limit, or no minute has so many tokens for the key.
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorBody),
    /// An adapter that cannot be served.
    #[response(status = 422)]
    Unservable(#[to_schema] ErrorBody),
    /// The queue is full, the answer would come after the request's deadline, or the key has used what it may; see `Retry-After`.
    #[response(status = 429)]
    QueueFull(#[to_schema] ErrorBody),
    /// The server is draining; see `Retry-After`.
    #[response(status = 503)]
    Draining(#[to_schema] ErrorBody),
    /// The request took longer than its header `x-request-timeout` says, in seconds, or than the server grants.
    #[response(status = 504)]
    DeadlineExceeded(#[to_schema] ErrorBody),
    /// The server's disk is full or cannot be written; nothing was changed.
    #[response(status = 507)]
    StorageFull(#[to_schema] ErrorBody),
}

/// The document as it is committed: pretty JSON with a line break at its end.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn document() -> Result<String, serde_json::Error> {
    Ok(ApiDocument::openapi().to_pretty_json()? + "\n")
}
