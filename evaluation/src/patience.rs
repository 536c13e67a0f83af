//! Submitting work nobody waits for: when the queue is full, wait and try again instead of failing.

use std::time::Duration;

use engine::{Engine, ScoreRequest, ScoreResult, SubmitError};

use crate::error::EvaluationError;

/// Time between two tries.
pub const PAUSE: Duration = Duration::from_millis(25);

/// Runs `submit` until the queue has room.
///
/// # Errors
/// Every `SubmitError` that does not pass with time.
pub async fn when_there_is_room<T>(
    mut submit: impl FnMut() -> Result<T, SubmitError>,
) -> Result<T, SubmitError> {
    loop {
        match submit() {
            Err(error) if error.retry_after().is_some() => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// Scores continuations in the background.
///
/// # Errors
/// The engine's errors.
pub async fn score(engine: &Engine, request: ScoreRequest) -> Result<ScoreResult, EvaluationError> {
    let reply = when_there_is_room(|| engine.score(request.clone())).await?;
    Ok(reply.await.map_err(|_| engine::EngineError::Stopped)??)
}
