//! Which field of a request an error is about.

use engine::SubmitError;

use super::ApiError;

impl ApiError {
    /// The field to blame, if any.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Malformed { param, .. } | Self::Dataset { param, .. } => param.as_deref(),
            Self::InvalidValue { param, .. }
            | Self::MissingField { param, .. }
            | Self::NotSupported { param, .. } => Some(param),
            Self::ModelNotFound { .. } => Some("model"),
            Self::Submit(
                SubmitError::PromptEmpty
                | SubmitError::TooLong { .. }
                | SubmitError::TokenOutOfRange { .. },
            ) => Some("prompt"),
            Self::NotFound { kind, .. } => Some(kind),
            Self::GateNotPassed(_) | Self::Gate(_) => Some("gate"),
            Self::Blend(_) => Some("adapter_weights"),
            Self::NotReproducible { .. } => Some("receipt"),
            _ => None,
        }
    }
}
