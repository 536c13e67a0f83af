//! The interface of text-generation-inference and of LoRAX, which has the same one with adapters: `POST /`, `/generate`,
//! `/generate_stream`, `GET /info`. Here are its errors and what the server says of itself.

pub mod answer;
pub mod parameters;
pub mod request;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use super::spoken::{message, refusal};
use crate::error::ApiError;
use crate::inference::parameters::MAX_STOPS;
use crate::state::State;

/// Fields that have another name here.
const NAMES: &[(&str, &str)] = &[("prompt", "inputs"), ("max_tokens", "max_new_tokens")];

/// An error as these servers tell it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TgiError(#[from] ApiError);

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiErrorBody {
    /// What was wrong, where, and what would be right.
    pub error: String,
    /// `validation`, `generation`, `overloaded` or `authentication`.
    pub error_type: &'static str,
}

/// What is served.
#[derive(Debug, Serialize, ToSchema)]
pub struct Info {
    /// The base model's name.
    pub model_id: String,
    /// SHA-256 of the model file, hex.
    pub model_sha: String,
    /// The arithmetic in use.
    pub model_dtype: String,
    /// `text-generation`.
    pub model_pipeline_tag: &'static str,
    /// Requests that can be under way or waiting.
    pub max_concurrent_requests: usize,
    /// Answers to choose the best from: 1.
    pub max_best_of: usize,
    /// Stop strings of one request.
    pub max_stop_sequences: usize,
    /// Tokens a prompt may have.
    pub max_input_length: usize,
    /// The newer name of `max_input_length`.
    pub max_input_tokens: usize,
    /// Tokens of a prompt and its answer.
    pub max_total_tokens: usize,
    /// Prompts of one request: 1.
    pub max_client_batch_size: usize,
    /// `quickchange`.
    pub router: &'static str,
    /// Version of the server.
    pub version: &'static str,
}

impl TgiError {
    /// The body that tells a client about this error.
    pub fn body(&self) -> TgiErrorBody {
        TgiErrorBody {
            error: message(&self.0, NAMES),
            error_type: self.told().1,
        }
    }

    /// Status and type. These servers answer 422 whatever is wrong with a request, an adapter's name too, and 424 when the
    /// model failed.
    fn told(&self) -> (StatusCode, &'static str) {
        match self.0.status_code() {
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                (status, "authentication")
            }
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                (status, "overloaded")
            }
            // Of the server, not of the request: a 422 would tell the client to change it.
            status @ (StatusCode::GATEWAY_TIMEOUT | StatusCode::INSUFFICIENT_STORAGE) => {
                (status, "generation")
            }
            StatusCode::INTERNAL_SERVER_ERROR => (StatusCode::FAILED_DEPENDENCY, "generation"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "validation"),
        }
    }
}

impl ResponseError for TgiError {
    fn status_code(&self) -> StatusCode {
        self.told().0
    }

    fn error_response(&self) -> HttpResponse {
        refusal(&self.0, self.status_code(), &self.body())
    }
}

/// Says what is served, as text-generation-inference does.
#[utoipa::path(get, path = "/info", tag = "dialects", responses((status = 200, description = "The base model and its limits", body = Info)))]
pub async fn info(state: Data<State>) -> HttpResponse {
    let positions = state.engine.max_model_len();
    HttpResponse::Ok().json(Info {
        model_id: state.served_name().to_owned(),
        model_sha: state.engine.base().digest.clone(),
        model_dtype: state.engine.kernels().to_owned(),
        model_pipeline_tag: "text-generation",
        max_concurrent_requests: state.configuration.max_running + state.configuration.max_queue,
        max_best_of: 1,
        max_stop_sequences: MAX_STOPS,
        // A prompt must leave room for a token.
        max_input_length: positions - 1,
        max_input_tokens: positions - 1,
        max_total_tokens: positions,
        max_client_batch_size: 1,
        router: "quickchange",
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use engine::{EngineError, SubmitError};

    use super::*;
    use crate::error::AccessError;

    fn told(error: impl Into<ApiError>) -> (u16, &'static str) {
        let (status, kind) = TgiError::from(error.into()).told();
        (status.as_u16(), kind)
    }

    #[test]
    fn statuses_are_those_that_clients_know() {
        let full = SubmitError::QueueFull {
            waiting: 3,
            limit: 3,
            retry_after: std::time::Duration::from_secs(1),
        };
        assert_eq!(told(full), (429, "overloaded"));
        assert_eq!(told(ApiError::Draining), (503, "overloaded"));
        assert_eq!(told(ApiError::invalid("top_p", "x")), (422, "validation"));
        assert_eq!(told(EngineError::Stopped), (424, "generation"));
        assert_eq!(told(EngineError::DeadlineExceeded), (504, "generation"));
        assert_eq!(told(AccessError::Unauthenticated), (401, "authentication"));
    }
}
