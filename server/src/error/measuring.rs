//! What an error of measuring is over HTTP. Most of them end in an evaluation's record; those of a single classification are answered.

use evaluation::EvaluationError;

use super::ApiError;

impl From<EvaluationError> for ApiError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Data(error) => error.into(),
            EvaluationError::Prompt(error) => error.into(),
            EvaluationError::Submit(error) => error.into(),
            EvaluationError::Engine(error) => error.into(),
            EvaluationError::Score(_)
            | EvaluationError::Model { .. }
            | EvaluationError::DataChanged { .. }
            | EvaluationError::Storage(_) => Self::internal(error),
        }
    }
}
