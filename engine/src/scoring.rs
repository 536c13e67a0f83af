//! Continuations of one prompt being scored.

use tokio::sync::oneshot;

use crate::error::EngineError;
use crate::pooling::Pooling;
use crate::request::{ContinuationScore, ScoreResult};
use crate::sampling::{LogSoftmax, argmax};

/// A score request with its state.
pub(crate) struct Scoring {
    pub(crate) continuations: Vec<Vec<u32>>,
    /// Continuations not yet computed; empty until the prompt is.
    pub(crate) pending: Vec<usize>,
    scores: Vec<ContinuationScore>,
    /// The free energy at the end of the prompt, once it is computed.
    energy: Option<f32>,
    /// The mean hidden state, when it was asked for.
    pub(crate) pooling: Option<Pooling>,
    reply: Option<oneshot::Sender<Result<ScoreResult, EngineError>>>,
}

impl Scoring {
    pub(crate) fn new(
        continuations: Vec<Vec<u32>>,
        pooling: Option<Pooling>,
        reply: oneshot::Sender<Result<ScoreResult, EngineError>>,
    ) -> Self {
        let scores = continuations
            .iter()
            .map(|_| ContinuationScore {
                logprob: 0.0,
                token_logprobs: Vec::new(),
                is_greedy: true,
            })
            .collect();
        Self {
            continuations,
            pending: Vec::new(),
            scores,
            energy: None,
            pooling,
            reply: Some(reply),
        }
    }

    /// Whether the client has gone away.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Tells the client that there will be no scores.
    pub(crate) fn fail(self, error: EngineError) {
        // A closed channel is a client that hung up.
        let _ = self.reply.map(|reply| reply.send(Err(error)));
    }

    /// Takes the logits at the end of the prompt: the first token of every continuation.
    pub(crate) fn take_first(&mut self, logits: &[f32]) {
        if self.energy.is_some() {
            // The prompt was computed again after a preemption; its scores are there already.
            return;
        }
        let distribution = LogSoftmax::new(logits);
        let best = argmax(logits);
        self.energy = Some(-distribution.log_sum_exp() as f32);
        for (continuation, score) in self.continuations.iter().zip(&mut self.scores) {
            if let Some(&token) = continuation.first() {
                add_token(score, &distribution, best, token);
            }
        }
        let longer = self.continuations.iter().enumerate();
        self.pending = longer
            .filter(|(_, continuation)| continuation.len() > 1)
            .map(|(index, _)| index)
            .collect();
    }

    /// Takes the logits after token `row` of a continuation, once.
    pub(crate) fn take_next(&mut self, continuation: usize, row: usize, logits: &[f32]) {
        if self.scores[continuation].token_logprobs.len() != row + 1 {
            // Computed again after the request gave way.
            return;
        }
        let token = self.continuations[continuation][row + 1];
        let distribution = LogSoftmax::new(logits);
        add_token(
            &mut self.scores[continuation],
            &distribution,
            argmax(logits),
            token,
        );
    }

    pub(crate) fn finish(&mut self, cached_tokens: usize) {
        if let Some(reply) = self.reply.take() {
            // A closed channel is a client that hung up.
            let _ = reply.send(Ok(ScoreResult {
                cached_tokens,
                continuations: std::mem::take(&mut self.scores),
                energy: self.energy.unwrap_or_default(),
                mean_hidden: self.pooling.as_ref().map(Pooling::mean),
            }));
        }
    }
}

fn add_token(score: &mut ContinuationScore, distribution: &LogSoftmax<'_>, best: u32, token: u32) {
    let logprob = distribution.of(token);
    score.logprob += f64::from(logprob);
    score.token_logprobs.push(logprob);
    score.is_greedy &= best == token;
}
