//! Whether an adapter does anything, and anything sensible: how far it moves the base's next-token distributions on a few prompts.

use std::sync::Arc;

use engine::{Effect, EffectError, Engine, PreparedAdapter, SubmitError};
use evaluation::patience::PAUSE;

use crate::error::{ApiError, Degeneration};

/// An adapter that leaves less than this part of what the base's distributions say has made them uniform.
const SAYS_NOTHING: f64 = 0.01;

/// The mean Kullback-Leibler divergence of the adapter's next-token distribution from the base's, in nats.
///
/// # Errors
/// `NoEffect` when it is exactly 0, `Degenerate` when a logit is not a number or the distributions are uniform, and the
/// engine's errors.
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

fn judge(name: &str, measured: Effect) -> Result<f64, ApiError> {
    let name = name.to_owned();
    if !measured.divergence.is_finite() {
        let what = Degeneration::NotFinite;
        return Err(ApiError::Degenerate { name, what });
    }
    if measured.divergence == 0.0 {
        return Err(ApiError::NoEffect { name });
    }
    if measured.information < SAYS_NOTHING * measured.base_information {
        let what = Degeneration::Uniform;
        return Err(ApiError::Degenerate { name, what });
    }
    Ok(measured.divergence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(divergence: f64) -> Effect {
        Effect {
            divergence,
            information: 5.0,
            base_information: 6.0,
        }
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        assert!(matches!(
            judge("tone", moved(0.0)),
            Err(ApiError::NoEffect { .. })
        ));
        for nonsense in [f64::NAN, f64::INFINITY] {
            assert!(matches!(
                judge("tone", moved(nonsense)),
                Err(ApiError::Degenerate {
                    what: Degeneration::NotFinite,
                    ..
                })
            ));
        }
        assert!(matches!(judge("tone", moved(1e-12)), Ok(kl) if kl == 1e-12));
    }

    #[test]
    fn an_output_as_good_as_uniform_is_refused() {
        let flat = Effect {
            information: 0.05,
            ..moved(6.0)
        };
        assert!(matches!(
            judge("tone", flat),
            Err(ApiError::Degenerate {
                what: Degeneration::Uniform,
                ..
            })
        ));
    }
}
