//! How far an adapter moves the model: the probe every adapter passes before it is served.

use std::sync::Arc;

use crate::adapter::PreparedAdapter;
use crate::engine::Engine;
use crate::error::{EngineError, SubmitError};
use crate::request::{LogitsRequest, Priority};
use crate::sampling::log_sum_exp;

/// What an effect probe feeds to base and adapter: plain text, a question, code, and the form of the tasks' prompts.
const PROBES: [&str; 4] = [
    "The weather in the mountains can change",
    "Question: What do bees make?\nAnswer:",
    "fn add(a: u32, b: u32) -> u32 {\n    a",
    "### Input:\nThe kettle broke after two days.\n### Sentiment:",
];

/// `[probes][vocabulary]`.
pub(crate) type ProbeLogits = Vec<Vec<f32>>;

/// Why an adapter's effect could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The engine did not take the probe.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The engine did not finish the probe.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Engine {
    /// How far an adapter moves the next-token distribution: the mean Kullback-Leibler divergence from the base over a
    /// few fixed prompts, nats. Exactly 0 for an adapter that changes no logit, not a number for one whose logits overflow.
    pub async fn effect(&self, adapter: Arc<PreparedAdapter>) -> Result<f64, EffectError> {
        let base = match self.base_probes().get() {
            Some(base) => base,
            None => {
                let answers = self.probe(None).await?;
                self.base_probes().get_or_init(|| answers)
            }
        };
        let answers = self.probe(Some(adapter)).await?;
        let pairs = answers.iter().zip(base);
        let total: f64 = pairs.map(|(answer, base)| divergence(answer, base)).sum();
        Ok(total / PROBES.len() as f64)
    }

    /// The logits behind each probe.
    async fn probe(
        &self,
        adapter: Option<Arc<PreparedAdapter>>,
    ) -> Result<ProbeLogits, EffectError> {
        let mut answers = Vec::with_capacity(PROBES.len());
        for probe in PROBES {
            let request = LogitsRequest {
                prompt: self.tokenizer().encode_prompt(probe),
                adapter: adapter.clone(),
                priority: Priority::Interactive,
            };
            let answer = self.logits(request)?;
            answers.push(answer.await.map_err(|_| EngineError::Stopped)??);
        }
        Ok(answers)
    }
}

/// KL(p ‖ q) in nats of the distributions with these logits.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    if p == q {
        return 0.0;
    }
    let (p_total, q_total) = (log_sum_exp(p), log_sum_exp(q));
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let (p, q) = (f64::from(p) - p_total, f64::from(q) - q_total);
        p.exp() * (p - q)
    });
    let sum: f64 = terms.sum();
    // Rounding can take the sum of a tiny divergence below zero; the adapter does change logits, so it is not zero.
    if sum.is_nan() {
        sum
    } else {
        sum.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_the_formula_and_tells_nothing_from_overflow() {
        // p = (3/4, 1/4), q = (1/2, 1/2).
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let got = divergence(&[3f32.ln(), 0.0], &[0.0, 0.0]);
        assert!((got - expected).abs() < 1e-6, "{got}");
        assert_eq!(divergence(&[1.5, 2.0], &[1.5, 2.0]), 0.0);
        assert!(divergence(&[f32::NAN, 0.0], &[0.0, 0.0]).is_nan());
        assert!(!divergence(&[f32::INFINITY, 0.0], &[0.0, 0.0]).is_finite());
    }
}
