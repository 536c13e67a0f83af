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

/// What an adapter does to the next-token distribution, means over a few fixed prompts, nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// The Kullback-Leibler divergence from the base's. Exactly 0 for an adapter that changes no logit, not a number for one
    /// whose logits overflow.
    pub divergence: f64,
    /// How much the distribution says: its divergence from the uniform one, which is 0 for a uniform one.
    pub information: f64,
    /// How much the base's says.
    pub base_information: f64,
}

impl Engine {
    /// Measures what an adapter does.
    ///
    /// # Errors
    /// When the engine did not answer the probes.
    pub async fn effect(&self, adapter: Arc<PreparedAdapter>) -> Result<Effect, EffectError> {
        let base = match self.base_probes().get() {
            Some(base) => base,
            None => {
                let answers = self.probe(None).await?;
                self.base_probes().get_or_init(|| answers)
            }
        };
        let answers = self.probe(Some(adapter)).await?;
        let pairs = answers.iter().zip(base);
        let mean = |total: f64| total / PROBES.len() as f64;
        let uniform = vec![0.0; self.config().vocabulary];
        let information =
            |answers: &ProbeLogits| answers.iter().map(|own| divergence(own, &uniform)).sum();
        Ok(Effect {
            divergence: mean(pairs.map(|(answer, base)| divergence(answer, base)).sum()),
            information: mean(information(&answers)),
            base_information: mean(information(base)),
        })
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
                deadline: None,
            };
            let answer = self.logits(request)?;
            answers.push(answer.await.map_err(|_| EngineError::Stopped)??);
        }
        Ok(answers)
    }
}

/// KL(p ‖ q) in nats of the distributions with these logits, both of the same length. Exactly 0 for equal ones, and above for any
/// others; not a number when a logit is none.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
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
