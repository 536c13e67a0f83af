//! Every route, on one page. Each module documents its own endpoints.

pub mod adapter_card;
pub mod adapters;
pub mod canary;
pub mod chat;
pub mod classify;
pub mod compare;
pub mod completions;
pub mod datasets;
pub mod dialects;
pub mod evaluations;
pub mod models;
pub mod operations;
mod precondition;
pub mod replay;
pub mod score;
pub mod tasks;
pub mod tokenizer;

use actix_web::web::{ServiceConfig, delete, get, post, put, resource, to};
use actix_web::{HttpRequest, HttpResponse, Resource};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use self::dialects::{generate, llama_cpp, open_inference, sglang, tgi, vllm};
use crate::error::ApiError;
use crate::openapi::ApiDocument;

/// Mounts every route.
#[rustfmt::skip]
pub fn configure(app: &mut ServiceConfig) {
    configure_evaluation(app);
    configure_dialects(app);
    app
        // Inference
        .service(at("/v1/completions", "POST").route(post().to(completions::create_completion)))
        .service(at("/v1/chat/completions", "POST").route(post().to(chat::create_chat_completion)))
        .service(at("/v1/classify", "POST").route(post().to(classify::classify)))
        .service(at("/v1/score", "POST").route(post().to(score::score)))
        .service(at("/v1/compare", "POST").route(post().to(compare::compare)))
        .service(at("/v1/replay", "POST").route(post().to(replay::replay)))
        .service(at("/v1/models", "GET").route(get().to(models::list_models)))
        .service(at("/v1/models/{id}", "GET").route(get().to(models::get_model)))
        .service(at("/tokenize", "POST").route(post().to(tokenizer::tokenize)))
        .service(at("/detokenize", "POST").route(post().to(tokenizer::detokenize)))
        .service(at("/tokenizer_info", "GET").route(get().to(tokenizer::tokenizer_info)))
        // Adapters
        .service(at("/v1/adapters", "GET, POST")
            .route(get().to(adapters::list_adapters))
            .route(post().to(adapters::create_adapter)))
        .service(at("/v1/adapters/{name}", "GET, PUT, DELETE")
            .route(get().to(adapters::get_adapter))
            .route(put().to(adapters::replace_adapter))
            .route(delete().to(adapters::delete_adapter)))
        .service(at("/v1/adapters/{name}/activate", "POST").route(post().to(adapters::activate_adapter)))
        .service(at("/v1/adapters/{name}/promote", "POST").route(post().to(adapters::promote_adapter)))
        .service(at("/v1/adapters/{name}/rollback", "POST").route(post().to(adapters::roll_back_adapter)))
        .service(at("/v1/adapters/{name}/history", "GET").route(get().to(canary::get_history)))
        .service(at("/v1/adapters/{name}/canary", "POST, DELETE")
            .route(post().to(canary::start_canary))
            .route(delete().to(canary::end_canary)))
        .service(at("/v1/adapters/{name}/pin", "PUT, DELETE")
            .route(put().to(canary::pin))
            .route(delete().to(canary::unpin)))
        // Operations
        .service(at("/health", "GET").route(get().to(operations::health)))
        .service(at("/ready", "GET").route(get().to(operations::ready)))
        .service(at("/metrics", "GET").route(get().to(operations::metrics)))
        .service(at("/version", "GET").route(get().to(operations::version)))
        .service(at("/openapi.json", "GET").route(get().to(operations::openapi)))
        .service(at("/docs", "GET").route(get().to(operations::docs)))
        .service(SwaggerUi::new("/docs/{_:.*}").config(Config::from("/openapi.json")))
        .default_service(to(operations::not_found));
}

/// Mounts what measures models.
#[rustfmt::skip]
fn configure_evaluation(app: &mut ServiceConfig) {
    app
        .service(at("/v1/tasks", "GET").route(get().to(tasks::list_tasks)))
        .service(at("/v1/datasets", "GET, POST")
            .route(get().to(datasets::list_datasets))
            .route(post().to(datasets::create_dataset)))
        .service(at("/v1/datasets/{id}", "GET, DELETE")
            .route(get().to(datasets::get_dataset))
            .route(delete().to(datasets::delete_dataset)))
        .service(at("/v1/evaluations", "GET, POST")
            .route(get().to(evaluations::list_evaluations))
            .route(post().to(evaluations::create_evaluation)))
        .service(at("/v1/evaluations/ood", "POST").route(post().to(evaluations::create_ood_evaluation)))
        .service(at("/v1/evaluations/cross-task", "POST").route(post().to(evaluations::create_cross_task_evaluation)))
        .service(at("/v1/evaluations/{id}", "GET, DELETE")
            .route(get().to(evaluations::get_evaluation))
            .route(delete().to(evaluations::cancel_evaluation)))
        .service(at("/v1/evaluations/{id}/events", "GET").route(get().to(evaluations::watch_evaluation)))
        .service(at("/v1/evaluations/{id}/pause", "POST").route(post().to(evaluations::pause_evaluation)))
        .service(at("/v1/evaluations/{id}/resume", "POST").route(post().to(evaluations::resume_evaluation)))
        .service(at("/v1/evaluations/{id}/predictions", "GET").route(get().to(evaluations::list_predictions)))
        .service(at("/v1/evaluations/{id}/report", "GET").route(get().to(evaluations::report_evaluation)));
}

/// Mounts other servers' interfaces: vLLM, SGLang, text-generation-inference and LoRAX, llama.cpp, the Open Inference Protocol.
#[rustfmt::skip]
fn configure_dialects(app: &mut ServiceConfig) {
    app
        .service(at("/v1/load_lora_adapter", "POST").route(post().to(vllm::load_lora_adapter)))
        .service(at("/v1/unload_lora_adapter", "POST").route(post().to(vllm::unload_lora_adapter)))
        .service(at("/load_lora_adapter", "POST").route(post().to(sglang::load_lora_adapter)))
        .service(at("/unload_lora_adapter", "POST").route(post().to(sglang::unload_lora_adapter)))
        .service(at("/generate", "POST").route(post().to(generate::generate)))
        .service(at("/", "POST").route(post().to(tgi::request::generate_or_stream)))
        .service(at("/generate_stream", "POST").route(post().to(tgi::request::generate_stream)))
        .service(at("/info", "GET").route(get().to(tgi::info)))
        .service(at("/completion", "POST").route(post().to(llama_cpp::completion::create_completion)))
        .service(at("/completions", "POST").route(post().to(llama_cpp::completion::create_completions)))
        .service(at("/lora-adapters", "GET, POST")
            .route(get().to(llama_cpp::adapters::list_lora_adapters))
            .route(post().to(llama_cpp::adapters::scale_lora_adapters)))
        .service(at("/v2", "GET").route(get().to(open_inference::server_metadata)))
        .service(at("/v2/health/live", "GET").route(get().to(open_inference::live)))
        .service(at("/v2/health/ready", "GET").route(get().to(open_inference::ready)))
        .service(at("/v2/models/{model}", "GET").route(get().to(open_inference::models::model_metadata)))
        .service(at("/v2/models/{model}/ready", "GET").route(get().to(open_inference::models::model_ready)))
        .service(at("/v2/models/{model}/infer", "POST").route(post().to(open_inference::infer::infer)))
        .service(at("/v2/models/{model}/versions/{version}", "GET").route(get().to(open_inference::models::version_metadata)))
        .service(at("/v2/models/{model}/versions/{version}/ready", "GET").route(get().to(open_inference::models::version_ready)))
        .service(at("/v2/models/{model}/versions/{version}/infer", "POST").route(post().to(open_inference::infer::infer_version)))
        .service(at("/v2/repository/index", "POST").route(post().to(open_inference::repository::repository_index)))
        .service(at("/v2/repository/models/{model}/load", "POST").route(post().to(open_inference::repository::repository_load)))
        .service(at("/v2/repository/models/{model}/unload", "POST").route(post().to(open_inference::repository::repository_unload)));
}

/// A resource that answers other methods than its own with 405 and the list of its own.
fn at(path: &str, allowed: &'static str) -> Resource {
    resource(path.to_owned()).default_service(to(move |request: HttpRequest| async move {
        Err::<HttpResponse, _>(ApiError::MethodNotAllowed {
            method: request.method().to_string(),
            allowed,
        })
    }))
}

/// Paths of the routes above that stand in the OpenAPI document.
pub fn documented_paths() -> Vec<String> {
    ApiDocument::openapi().paths.paths.keys().cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_and_every_documented_route_exists() {
        let mounted: BTreeSet<String> = include_str!("routes.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".service(at(\""))
            .filter_map(|rest| rest.split('"').next())
            .filter(|path| *path != "/docs")
            .map(str::to_owned)
            .collect();
        let documented: BTreeSet<String> = documented_paths().into_iter().collect();
        assert_eq!(mounted, documented);
    }
}
