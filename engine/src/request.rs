//! What callers send to the engine's thread and what comes back.

use std::sync::Arc;
use std::time::Instant;

use crate::adapter::PreparedAdapter;
use crate::error::EngineError;
use crate::sampling::Sampling;

/// Who goes first when there is more work than one step can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// A user is waiting.
    #[default]
    Interactive,
    /// Evaluations and probes: served when no interactive request wants the place.
    Background,
}

/// A request to continue a prompt token by token.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Prompt token ids; at least one.
    pub prompt: Vec<u32>,
    /// The adapter version to run with, or `None` for the base model.
    pub adapter: Option<Arc<PreparedAdapter>>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Most tokens to generate; 0 computes the prompt only.
    pub max_tokens: usize,
    /// No end-of-turn token before this many tokens.
    pub min_tokens: usize,
    /// Texts that end the generation; they are not part of the answer.
    pub stop: Vec<String>,
    /// Go on past end-of-turn tokens.
    pub ignore_eos: bool,
    /// Report the log-probability of each generated token with this many alternatives.
    pub logprobs: Option<usize>,
    /// Report the log-probability of each prompt token with this many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// Who goes first under load.
    pub priority: Priority,
    /// When an answer is worth nothing any more: the request is refused when it could not be complete by then, and given up when it is not.
    pub deadline: Option<Instant>,
}

/// A token with its log-probability in nats under the model's own distribution, before penalties and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The likeliest tokens, best first; a token listed here has the very same float as in `logprob`.
    pub top: Vec<(u32, f32)>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-turn token or a stop string.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

/// What happens to a generation, in order: one `Started`, any number of `Token`, then `Finished` or `Failed`.
#[derive(Debug, Clone)]
pub enum GenerateEvent {
    /// The prompt has been computed.
    Started {
        /// Prompt tokens whose keys and values came from the prefix cache.
        cached_tokens: usize,
        /// Seconds between submission and the first step that worked on the request.
        queue_seconds: f64,
        /// Log-probabilities of prompt positions 1.. (position 0 has none), when asked for.
        prompt_logprobs: Option<Vec<TokenLogprob>>,
    },
    /// One more token.
    Token {
        /// The token.
        token: u32,
        /// Text that became final with it; empty while a character or a possible stop string is incomplete.
        text: String,
        /// Its log-probability, when asked for.
        logprob: Option<TokenLogprob>,
    },
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Text that was held back until now.
        text: String,
    },
    /// The request cannot be finished.
    Failed(EngineError),
}

/// A request for the log-likelihood of given continuations of one prompt; the prompt is computed once.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// Prompt token ids; at least one.
    pub prompt: Vec<u32>,
    /// Token ids of each continuation; an empty one scores 0.
    pub continuations: Vec<Vec<u32>>,
    /// The adapter version to run with, or `None` for the base model.
    pub adapter: Option<Arc<PreparedAdapter>>,
    /// Ask for the mean hidden state of the prompt's tokens from this position on. They are then computed even where
    /// the prefix cache has them, since it keeps no hidden states.
    pub pooled_from: Option<usize>,
    /// Who goes first under load.
    pub priority: Priority,
    /// When an answer is worth nothing any more: the request is refused when it could not be complete by then, and given up when it is not.
    pub deadline: Option<Instant>,
}

/// A request for the logits that follow a prompt.
#[derive(Debug, Clone)]
pub struct LogitsRequest {
    /// Prompt token ids; at least one.
    pub prompt: Vec<u32>,
    /// The adapter version to run with, or `None` for the base model.
    pub adapter: Option<Arc<PreparedAdapter>>,
    /// Who goes first under load.
    pub priority: Priority,
    /// When an answer is worth nothing any more: the request is refused when it could not be complete by then, and given up when it is not.
    pub deadline: Option<Instant>,
}

/// The log-likelihood of one continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct ContinuationScore {
    /// Sum of the token log-probabilities, nats.
    pub logprob: f64,
    /// Log-probability of each token, nats.
    pub token_logprobs: Vec<f32>,
    /// Whether greedy decoding would have produced exactly these tokens.
    pub is_greedy: bool,
}

/// The answer to a [`ScoreRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreResult {
    /// Prompt tokens whose keys and values came from the prefix cache.
    pub cached_tokens: usize,
    /// One score per continuation, in the request's order.
    pub continuations: Vec<ContinuationScore>,
    /// Free energy of the next-token distribution at the end of the prompt, `-logsumexp(logits)`
    /// (Liu et al. 2020, *Energy-based Out-of-distribution Detection*); higher means further from what the model knows.
    pub energy: f32,
    /// Mean of the last layer's hidden states, after the output norm and before the head, over the prompt tokens from
    /// `pooled_from` on, `[hidden]`; when asked for.
    pub mean_hidden: Option<Vec<f32>>,
}
