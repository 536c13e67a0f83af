//! llama.cpp's server: `POST /completion` and `/completions`, `GET` and `POST /lora-adapters`. Here are its errors.

pub mod adapters;
pub mod answer;
pub mod completion;
pub mod parameters;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use engine::SubmitError;
use serde::Serialize;
use utoipa::ToSchema;

use super::spoken::{message, refusal};
use crate::error::ApiError;

/// Fields that have another name here.
const NAMES: &[(&str, &str)] = &[
    ("max_tokens", "n_predict"),
    ("repetition_penalty", "repeat_penalty"),
];

/// An error as llama.cpp tells it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LlamaCppError(#[from] ApiError);

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct LlamaCppErrorBody {
    /// The error.
    pub error: LlamaCppErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct LlamaCppErrorDetail {
    /// The status.
    pub code: u16,
    /// What was wrong, where, and what would be right.
    pub message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Tokens of a prompt that is too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_prompt_tokens: Option<usize>,
    /// Tokens that would have been allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_ctx: Option<usize>,
}

impl LlamaCppError {
    /// The body that tells a client about this error.
    pub fn body(&self) -> LlamaCppErrorBody {
        let (status, kind) = self.told();
        let too_long = match &self.0 {
            ApiError::Submit(SubmitError::TooLong { tokens, limit }) => Some((*tokens, *limit)),
            _ => None,
        };
        LlamaCppErrorBody {
            error: LlamaCppErrorDetail {
                code: status.as_u16(),
                message: message(&self.0, NAMES),
                kind,
                n_prompt_tokens: too_long.map(|(tokens, _)| tokens),
                n_ctx: too_long.map(|(_, limit)| limit),
            },
        }
    }

    fn told(&self) -> (StatusCode, &'static str) {
        if let ApiError::Submit(SubmitError::TooLong { .. }) = self.0 {
            return (StatusCode::BAD_REQUEST, "exceed_context_size_error");
        }
        let status = self.0.status_code();
        let kind = match status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "unavailable_error",
            StatusCode::INTERNAL_SERVER_ERROR => "server_error",
            _ => "invalid_request_error",
        };
        (status, kind)
    }
}

impl ResponseError for LlamaCppError {
    fn status_code(&self) -> StatusCode {
        self.told().0
    }

    fn error_response(&self) -> HttpResponse {
        refusal(&self.0, self.status_code(), &self.body())
    }
}
