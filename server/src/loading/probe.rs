//! Whether an adapter does anything: how far it moves the base's next-token distributions on a few prompts.

use std::sync::Arc;

use engine::{EffectError, Engine, PreparedAdapter, SubmitError};

use crate::error::ApiError;
use crate::inference::patience::PAUSE;

/// The mean Kullback-Leibler divergence of the adapter's next-token distribution from the base's, in nats.
///
/// # Errors
/// `NoEffect` when it is exactly 0, `NonFiniteOutput` when a logit is not a number, and the engine's errors.
pub(super) async fn effect(
    engine: &Engine,
    name: &str,
    weights: &Arc<PreparedAdapter>,
) -> Result<f64, ApiError> {
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
    judge(name, measured)
}

fn judge(name: &str, measured: f64) -> Result<f64, ApiError> {
    let name = name.to_owned();
    if !measured.is_finite() {
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
        assert!(matches!(judge("tone", 0.0), Err(ApiError::NoEffect { .. })));
        assert!(matches!(
            judge("tone", f64::NAN),
            Err(ApiError::NonFiniteOutput { .. })
        ));
        assert!(matches!(
            judge("tone", f64::INFINITY),
            Err(ApiError::NonFiniteOutput { .. })
        ));
        assert!(matches!(judge("tone", 1e-12), Ok(kl) if kl == 1e-12));
    }
}
