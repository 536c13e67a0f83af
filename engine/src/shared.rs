//! What the handles of an engine and its thread share, and whether a request is taken.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use adapters::{BaseModel, Version};

use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::effect::ProbeLogits;
use crate::engine::EngineConfig;
use crate::error::SubmitError;
use crate::generation::GenerationLimits;
use crate::kernels::Resolution;
use crate::scheduler::Scheduler;
use crate::statistics::Board;
use crate::tokenizer::Tokenizer;
use crate::workload::{Rows, Workload};

/// How many times what a request is expected to take it must have: a forecast is a mean, and an answer that comes too late was computed
/// for nothing.
const HEADROOM: f64 = 1.2;

/// One engine's own.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) model: ModelConfig,
    pub(crate) base: BaseModel,
    pub(crate) kernels: String,
    /// How closely adapters are kept.
    pub(crate) resolution: Resolution,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) chat_template: Option<Arc<ChatTemplate>>,
    pub(crate) draining: AtomicBool,
    pub(crate) board: Board,
    pub(crate) workload: Arc<Workload>,
    /// What the base answers to the effect probes, once one was asked for.
    pub(crate) base_probes: OnceLock<ProbeLogits>,
}

impl Shared {
    /// Most tokens of a request, prompt and answer together.
    pub(crate) fn max_model_len(&self) -> usize {
        self.model.context_length.min(self.config.kv_tokens)
    }

    /// Shows what the engine does and what rows take, between two steps.
    pub(crate) fn publish(&self, scheduler: &mut Scheduler) {
        self.board.publish(scheduler);
        if let Some(prices) = scheduler.prices() {
            self.workload.publish(prices);
        }
    }

    /// Refuses a request whose answer would be complete too late, or that brings more than may be outstanding.
    pub(crate) fn check_load(
        &self,
        version: Option<&Version>,
        own: Rows,
        deadline: Option<Instant>,
    ) -> Result<(), SubmitError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(SubmitError::Expired);
        }
        let forecast = self.workload.forecast(version, own);
        // Alone, an answer that comes late comes no sooner another time, and the forecast may be wrong.
        if !forecast.busy {
            return Ok(());
        }
        let limit = self.config.max_queue_tokens as u64;
        if forecast.rows > limit {
            let surplus = (forecast.rows - limit) as f64 / forecast.rows as f64;
            return Err(SubmitError::TooMuchWork {
                tokens: forecast.rows,
                limit,
                retry_after: whole_seconds(surplus * forecast.seconds.unwrap_or_default()),
            });
        }
        match (left, forecast.seconds) {
            (Some(left), Some(seconds)) if HEADROOM * seconds > left.as_secs_f64() => {
                Err(SubmitError::TooLate {
                    needed: Duration::from_secs_f64(seconds),
                    left,
                    retry_after: whole_seconds(HEADROOM * seconds - left.as_secs_f64()),
                })
            }
            _ => Ok(()),
        }
    }

    /// Until somebody is expected to have left the queue.
    pub(crate) fn until_a_place(&self) -> Duration {
        let forecast = self.workload.forecast(None, Rows::default());
        whole_seconds(forecast.seconds_to_place.unwrap_or_default())
    }

    /// What bounds every generation.
    pub(crate) fn limits(&self) -> GenerationLimits<'_> {
        GenerationLimits {
            tokenizer: &self.tokenizer,
            max_model_len: self.max_model_len(),
        }
    }
}

/// Seconds as a duration that a client can be told: whole, and at least one.
fn whole_seconds(seconds: f64) -> Duration {
    Duration::from_secs(seconds.ceil().clamp(1.0, 3600.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_whole_seconds() {
        let told =
            [0.0, 0.4, 1.0, 1.2, f64::INFINITY].map(|seconds| whole_seconds(seconds).as_secs());
        assert_eq!(told, [1, 1, 1, 2, 3600]);
    }
}
