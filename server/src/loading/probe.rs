//! Whether an adapter does anything: how far it moves the base's next-token distributions on a few prompts.

use std::sync::Arc;

use engine::{
    EffectError, Engine, EngineError, LogitsRequest, PreparedAdapter, Priority, SubmitError,
};

use crate::error::ApiError;
use crate::inference::patience::{PAUSE, when_there_is_room};

/// Any text does: weights that overflow do so everywhere.
const PROMPT: &str = "The capital of France is";

/// The mean Kullback-Leibler divergence of the adapter's next-token distribution from the base's, in nats.
///
/// # Errors
/// `NoEffect` when it is exactly 0, `NonFiniteOutput` when a logit is not a number, and the engine's errors.
pub(super) async fn effect(
    engine: &Engine,
    name: &str,
    weights: &Arc<PreparedAdapter>,
) -> Result<f64, ApiError> {
    let finite = has_finite_output(engine, weights).await?;
    let measured = loop {
        match engine.effect(Arc::clone(weights)).await {
            // Users' requests fill the queue; a load waits for its turn.
            Err(EffectError::Submit(SubmitError::QueueFull { .. })) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(EffectError::Submit(error)) => return Err(error.into()),
            Err(EffectError::Engine(error)) => return Err(error.into()),
            Ok(measured) => break measured,
        }
    };
    judge(name, measured, finite)
}

async fn has_finite_output(
    engine: &Engine,
    weights: &Arc<PreparedAdapter>,
) -> Result<bool, ApiError> {
    let request = LogitsRequest {
        prompt: engine.tokenizer().encode(PROMPT, false),
        adapter: Some(Arc::clone(weights)),
        priority: Priority::Interactive,
    };
    let reply = when_there_is_room(|| engine.logits(request.clone())).await?;
    let logits = reply.await.map_err(|_| EngineError::Stopped)??;
    Ok(logits.iter().all(|logit| logit.is_finite()))
}

fn judge(name: &str, measured: f64, finite: bool) -> Result<f64, ApiError> {
    let name = name.to_owned();
    if !finite || !measured.is_finite() {
        return Err(ApiError::NonFiniteOutput { name });
    }
    if measured == 0.0 {
        return Err(ApiError::NoEffect { name });
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_nonsense_are_refused() {
        assert!(matches!(
            judge("tone", 0.0, true),
            Err(ApiError::NoEffect { .. })
        ));
        assert!(matches!(
            judge("tone", f64::NAN, true),
            Err(ApiError::NonFiniteOutput { .. })
        ));
        assert!(matches!(
            judge("tone", 0.5, false),
            Err(ApiError::NonFiniteOutput { .. })
        ));
        assert!(matches!(judge("tone", 1e-12, true), Ok(kl) if kl == 1e-12));
    }
}
