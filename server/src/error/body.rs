//! What a client gets to read about an error.

use serde::Serialize;
use utoipa::ToSchema;

use crate::evaluations::gate::GateReport;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong, for people and for programs.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// What was wrong, where, and what would be right.
    pub message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A stable code.
    pub code: &'static str,
    /// The field, when one is to blame.
    pub param: Option<String>,
    /// What a gate measured, when one did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateReport>,
    /// What is gone or different, when an answer cannot be reproduced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// What an adapter without sense makes of every output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Degeneration {
    /// Logits that are not numbers.
    #[error("makes the model's output non-finite; its weights are too large to serve")]
    NotFinite,
    /// All tokens as likely as each other.
    #[error(
        "makes every next token as likely as any other; its weights have wiped out what the model knows"
    )]
    Uniform,
}
