//! Two models on the same prompt: what each says, where they part, and how far apart their next-token distributions are.

use std::time::Duration;

use actix_web::web::Data;
use engine::{Engine, EngineError, LogitsRequest, Priority};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::generation::Finished;
use super::target::Target;
use crate::error::ApiError;
use crate::state::State;
use evaluation::patience::when_there_is_room;

/// Positions in the engine at the same time, so that one request leaves room in the queue.
const IN_FLIGHT: usize = 16;
/// How long a position waits for room in the queue before the request is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far two answers are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disagreement {
    /// Part of the positions, of the longer answer, at which the tokens differ; 0 for equal answers.
    pub share: f64,
    /// The first such position.
    pub first: Option<usize>,
}

impl Disagreement {
    /// Compares the tokens of two answers, position by position.
    pub fn of(one: &[u32], other: &[u32]) -> Self {
        let longer = one.len().max(other.len());
        let differs = |&position: &usize| one.get(position) != other.get(position);
        let number = (0..longer).filter(differs).count();
        Self {
            share: match longer {
                0 => 0.0,
                _ => number as f64 / longer as f64,
            },
            first: (0..longer).find(differs),
        }
    }
}

/// The Kullback-Leibler divergence of the second model's next-token distribution from the first's, in nats, behind the prompt and
/// behind each token of the first one's answer but the last, both models reading the same tokens.
///
/// # Errors
/// The engine's.
pub async fn divergences(
    state: &Data<State>,
    prompt: &[u32],
    answer: &Finished,
    (first, second): (&Target, &Target),
) -> Result<Vec<f64>, ApiError> {
    let tokens: Vec<u32> = answer.tokens.iter().map(|(token, _)| *token).collect();
    let positions = 0..tokens.len().max(1);
    let behind = positions.map(|position| {
        let read: Vec<u32> = prompt.iter().chain(&tokens[..position]).copied().collect();
        async move {
            let one = logits(&state.engine, read.clone(), first).await?;
            let other = logits(&state.engine, read, second).await?;
            Ok::<_, ApiError>(engine::divergence(&one, &other))
        }
    });
    stream::iter(behind).buffered(IN_FLIGHT).try_collect().await
}

/// The logits behind some tokens. What the other positions have in common comes out of the prefix cache.
async fn logits(engine: &Engine, prompt: Vec<u32>, target: &Target) -> Result<Vec<f32>, ApiError> {
    let request = LogitsRequest {
        prompt,
        adapter: target.weights(),
        priority: Priority::Interactive,
        deadline: target.deadline(),
    };
    let waited = when_there_is_room(|| engine.logits(request.clone()));
    let reply = match timeout(PATIENCE, waited).await {
        Ok(taken) => taken?,
        // A queue that others keep full refuses this request as it does theirs.
        Err(_) => engine.logits(request)?,
    };
    Ok(reply.await.map_err(|_| EngineError::Stopped)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_position_by_position() {
        let equal = Disagreement::of(&[1, 2, 3], &[1, 2, 3]);
        assert_eq!((equal.share, equal.first), (0.0, None));
        let parted = Disagreement::of(&[1, 2, 3, 4], &[1, 5, 3]);
        assert_eq!((parted.share, parted.first), (0.5, Some(1)));
        assert_eq!(Disagreement::of(&[], &[7]).share, 1.0);
        assert_eq!(Disagreement::of(&[], &[]).share, 0.0);
    }
}
