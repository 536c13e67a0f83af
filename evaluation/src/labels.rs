//! Choosing a label by log-likelihood: the labels' continuations are scored at the end of the prompt, which is computed once.

use std::sync::Arc;
use std::time::Instant;

use engine::{Engine, EngineError, PreparedAdapter, Priority, ScoreRequest, ScoreResult};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::EvaluationError;
use crate::patience;

/// Which of a label's tokens count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelScoring {
    /// All: the log-probability of the label is the sum over its tokens.
    #[default]
    Sum,
    /// The first one only, as in Yang et al. (NAACL 2024). Labels with the same first token are the same to it.
    FirstToken,
}

/// Scores a closed set of labels.
pub struct LabelScorer {
    engine: Engine,
    adapter: Option<Arc<PreparedAdapter>>,
    labels: Vec<Vec<u32>>,
    priority: Priority,
    deadline: Option<Instant>,
}

/// The labels' scores for one prompt.
#[derive(Debug, Clone)]
pub struct LabelScores {
    /// Log-probability of each label over the tokens that count, nats.
    pub logprobs: Vec<f64>,
    /// Free energy at the end of the prompt.
    pub energy: f32,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: usize,
    /// Mean hidden state of the input's part of the prompt, `[hidden]`, when it was asked for.
    pub mean_hidden: Option<Vec<f32>>,
}

impl LabelScorer {
    /// A scorer of these labels; `Background` waits for room in the queue, `Interactive` is refused when it is full.
    pub fn new(
        engine: &Engine,
        adapter: Option<Arc<PreparedAdapter>>,
        (labels, scoring): (&[String], LabelScoring),
        priority: Priority,
    ) -> Self {
        let tokenizer = engine.tokenizer();
        let encode = |label: &String| {
            let mut tokens = tokenizer.encode_continuation(label);
            if scoring == LabelScoring::FirstToken {
                tokens.truncate(1);
            }
            tokens
        };
        Self {
            engine: engine.clone(),
            adapter,
            labels: labels.iter().map(encode).collect(),
            priority,
            deadline: None,
        }
    }

    /// The same scorer, whose scores are worth nothing after `deadline`.
    pub fn until(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }

    /// Tokens of all labels together, which are read behind each prompt.
    pub fn label_tokens(&self) -> usize {
        self.labels.iter().map(Vec::len).sum()
    }

    /// Scores the labels after one prompt.
    ///
    /// # Errors
    /// The engine's.
    pub async fn score(&self, prompt: Vec<u32>) -> Result<LabelScores, EvaluationError> {
        self.score_pooled(prompt, None).await
    }

    /// Like [`LabelScorer::score`], with the mean hidden state of the prompt's tokens from a position on.
    ///
    /// # Errors
    /// The engine's.
    pub async fn score_pooled(
        &self,
        prompt: Vec<u32>,
        pooled_from: Option<usize>,
    ) -> Result<LabelScores, EvaluationError> {
        let request = ScoreRequest {
            prompt,
            continuations: self.labels.clone(),
            adapter: self.adapter.clone(),
            pooled_from,
            priority: self.priority,
            deadline: self.deadline,
        };
        let result = match self.priority {
            Priority::Background => patience::score(&self.engine, request).await?,
            Priority::Interactive => self
                .engine
                .score(request)?
                .await
                .map_err(|_| EngineError::Stopped)??,
        };
        Ok(LabelScores::of(result))
    }
}

impl LabelScores {
    fn of(result: ScoreResult) -> Self {
        Self {
            logprobs: result
                .continuations
                .iter()
                .map(|continuation| continuation.logprob)
                .collect(),
            energy: result.energy,
            cached_tokens: result.cached_tokens,
            mean_hidden: result.mean_hidden,
        }
    }

    /// Probabilities over the labels: the softmax of their log-probabilities. With `neutral`, the scores for a content-free
    /// input, each label's own pull is divided out first (Zhao et al. 2021, *Calibrate Before Use*, with a diagonal W = 1/p_cf).
    pub fn probabilities(&self, neutral: Option<&Self>) -> Vec<f64> {
        softmax(&relative_to(neutral, self))
    }
}

/// The labels' log-probabilities, less what each gets for a content-free input.
pub(crate) fn relative_to(neutral: Option<&LabelScores>, scores: &LabelScores) -> Vec<f64> {
    let Some(neutral) = neutral else {
        return scores.logprobs.clone();
    };
    let pairs = scores.logprobs.iter().zip(&neutral.logprobs);
    pairs.map(|(own, pull)| own - pull).collect()
}

/// The position of the largest value; the first of equals.
pub fn argmax(values: &[f64]) -> usize {
    values
        .iter()
        .enumerate()
        .fold((0, f64::NEG_INFINITY), |best, (index, &value)| {
            if value > best.1 { (index, value) } else { best }
        })
        .0
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(logprobs: &[f64]) -> LabelScores {
        LabelScores {
            logprobs: logprobs.to_vec(),
            energy: -12.5,
            cached_tokens: 0,
            mean_hidden: None,
        }
    }

    #[test]
    fn probabilities_are_relative_to_the_labels() {
        // exp(-1) : exp(-1 - ln 3) = 3 : 1
        let probabilities = scores(&[-1.0, -1.0 - 3f64.ln()]).probabilities(None);
        assert!((probabilities[0] - 0.75).abs() < 1e-12, "{probabilities:?}");
        assert!((probabilities[1] - 0.25).abs() < 1e-12, "{probabilities:?}");
    }

    #[test]
    fn calibration_divides_out_what_an_empty_input_gives() {
        let own = scores(&[-1.0, -2.0]);
        let neutral = scores(&[-0.5, -3.0]);
        // Without calibration the first label wins; relative to the empty input the second gained.
        assert_eq!(argmax(&own.probabilities(None)), 0);
        let calibrated = own.probabilities(Some(&neutral));
        assert_eq!(argmax(&calibrated), 1);
        let expected = 1.0 / (1.0 + (1.0f64 + 0.5).exp());
        assert!((calibrated[0] - expected).abs() < 1e-12, "{calibrated:?}");
    }

    #[test]
    fn equal_labels_go_to_the_first() {
        assert_eq!(argmax(&[-2.0, -1.0, -1.0]), 1);
    }
}
