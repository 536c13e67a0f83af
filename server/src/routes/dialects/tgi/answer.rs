//! Answers of text-generation-inference and LoRAX, whole and streamed.

use actix_web::web::Data;
use engine::{FinishReason, TokenLogprob};
use serde::Serialize;
use utoipa::ToSchema;

use super::TgiError;
use super::parameters::TgiParameters;
use crate::error::ApiError;
use crate::inference::generation::Finished;
use crate::inference::logprobs::finite;
use crate::inference::parameters::Generation;
use crate::inference::prompts::EncodedPrompt;
use crate::inference::stream::{Dialect, Part, json};
use crate::inference::target::Target;
use crate::routes::dialects::ending::Ending;
use crate::state::State;

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiGeneration {
    /// The text, with the prompt in front if that was asked for.
    pub generated_text: String,
    /// When asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<TgiDetails>,
}

/// About an answer's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiDetails {
    /// `length`, `eos_token` or `stop_sequence`.
    pub finish_reason: &'static str,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub generated_tokens: usize,
    /// The seed, when tokens were drawn.
    pub seed: Option<u64>,
    /// The prompt's tokens, when asked for.
    pub prefill: Vec<TgiPromptToken>,
    /// The answer's tokens.
    pub tokens: Vec<TgiToken>,
    /// The likeliest tokens at each position, when asked for.
    pub top_tokens: Vec<Vec<TgiToken>>,
}

/// About a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiStreamDetails {
    /// `length`, `eos_token` or `stop_sequence`.
    pub finish_reason: &'static str,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The same by its older name.
    pub input_length: usize,
    /// Tokens of the answer.
    pub generated_tokens: usize,
    /// The seed, when tokens were drawn.
    pub seed: Option<u64>,
}

/// One event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiStreamEvent {
    /// Position in the answer, from 1.
    pub index: usize,
    /// The token.
    pub token: TgiToken,
    /// The likeliest tokens at its position.
    pub top_tokens: Vec<TgiToken>,
    /// The whole text, in the last event.
    pub generated_text: Option<String>,
    /// In the last event.
    pub details: Option<TgiStreamDetails>,
}

/// A token of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiToken {
    /// Its id.
    pub id: u32,
    /// Its text; in a stream what became final with it.
    pub text: String,
    /// Its log-probability, nats.
    pub logprob: f32,
    /// Whether it is a mark and not text.
    pub special: bool,
}

/// A token of a prompt.
#[derive(Debug, Serialize, ToSchema)]
pub struct TgiPromptToken {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Its log-probability, nats; null for the first.
    pub logprob: Option<f32>,
}

/// What is known of an answer while it is made.
pub struct Answer {
    state: Data<State>,
    /// Held to the end of the answer, so that the adapter counts as in use for as long.
    _target: Target,
    prompt: EncodedPrompt,
    parameters: TgiParameters,
    generation: Generation,
    /// Streamed so far.
    tokens: Vec<u32>,
    text: String,
}

impl Answer {
    /// An answer of which nothing has come yet.
    pub fn new(
        state: &Data<State>,
        target: Target,
        prompts: Vec<EncodedPrompt>,
        (parameters, generation): (TgiParameters, Generation),
    ) -> Self {
        let nothing = EncodedPrompt {
            tokens: Vec::new(),
            text: String::new(),
        };
        Self {
            state: state.clone(),
            _target: target,
            prompt: prompts.into_iter().next().unwrap_or(nothing),
            parameters,
            generation,
            tokens: Vec::new(),
            text: String::new(),
        }
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.tokens.len()
    }

    /// The answer that the engine finished.
    ///
    /// # Errors
    /// `Internal` when it finished none.
    pub fn whole(&self, finished: Vec<Finished>) -> Result<TgiGeneration, ApiError> {
        let finished = finished.into_iter().next();
        let finished = finished.ok_or_else(|| ApiError::internal(anyhow::anyhow!("no answer")))?;
        let details = self.parameters.wants_details();
        Ok(TgiGeneration {
            details: details.then(|| self.details(&finished)),
            generated_text: self.full_text(&finished.text),
        })
    }

    fn details(&self, finished: &Finished) -> TgiDetails {
        let logprobs = || (finished.tokens.iter()).filter_map(|(_, logprob)| logprob.as_ref());
        let tokens: Vec<u32> = finished.tokens.iter().map(|&(token, _)| token).collect();
        TgiDetails {
            finish_reason: self.reason(finished.reason, &tokens),
            prompt_tokens: self.prompt_tokens(),
            generated_tokens: tokens.len(),
            seed: self.seed(),
            prefill: self.prefill(finished.prompt_logprobs.as_deref()),
            tokens: logprobs()
                .map(|own| self.token(own.token, own.logprob))
                .collect(),
            top_tokens: match self.generation.logprobs {
                Some(0) | None => Vec::new(),
                Some(_) => logprobs().map(|own| self.top(own)).collect(),
            },
        }
    }

    fn prefill(&self, logprobs: Option<&[TokenLogprob]>) -> Vec<TgiPromptToken> {
        let Some(logprobs) = logprobs else {
            return Vec::new();
        };
        let values = logprobs.iter().map(|own| Some(finite(own.logprob)));
        let values = std::iter::once(None).chain(values);
        let tokens = self.prompt.tokens.iter().zip(values);
        tokens
            .map(|(&id, logprob)| TgiPromptToken {
                id,
                text: self.spelled(id),
                logprob,
            })
            .collect()
    }

    fn top(&self, logprob: &TokenLogprob) -> Vec<TgiToken> {
        let top = logprob.top.iter();
        top.map(|&(id, value)| self.token(id, value)).collect()
    }

    fn token(&self, id: u32, logprob: f32) -> TgiToken {
        TgiToken {
            id,
            text: self.spelled(id),
            logprob: finite(logprob),
            special: self.state.engine.tokenizer().is_special(id),
        }
    }

    fn spelled(&self, id: u32) -> String {
        String::from_utf8_lossy(self.state.engine.tokenizer().token_bytes(id)).into_owned()
    }

    fn full_text(&self, text: &str) -> String {
        match self.parameters.return_full_text {
            Some(true) => format!("{}{text}", self.prompt.text),
            Some(false) | None => text.to_owned(),
        }
    }

    fn seed(&self) -> Option<u64> {
        let sampling = &self.generation.sampling;
        (!sampling.is_greedy()).then_some(sampling.seed)
    }

    fn reason(&self, reason: FinishReason, tokens: &[u32]) -> &'static str {
        let tokenizer = self.state.engine.tokenizer();
        match Ending::of(reason, tokens, &self.generation, tokenizer) {
            Ending::Length => "length",
            Ending::EndOfTurn(_) => "eos_token",
            Ending::StopString(_) => "stop_sequence",
        }
    }
}

impl Dialect for Answer {
    fn part(&mut self, part: Part) -> String {
        self.tokens.extend(part.token);
        self.text.push_str(&part.text);
        let id = self.tokens.last().copied().unwrap_or_default();
        let own = part.logprob.as_ref();
        let mut token = self.token(id, own.map_or(0.0, |own| own.logprob));
        // A mark's own name is no text; what was held back until the end is.
        if !token.special || !part.text.is_empty() {
            token.text = part.text;
            token.special = false;
        }
        let top = own.filter(|_| self.generation.logprobs != Some(0));
        json(&TgiStreamEvent {
            index: self.tokens.len(),
            token,
            top_tokens: top.map(|own| self.top(own)).unwrap_or_default(),
            generated_text: part.finish.map(|_| self.full_text(&self.text)),
            details: part.finish.map(|reason| TgiStreamDetails {
                finish_reason: self.reason(reason, &self.tokens),
                prompt_tokens: self.prompt_tokens(),
                input_length: self.prompt_tokens(),
                generated_tokens: self.tokens.len(),
                seed: self.seed(),
            }),
        })
    }

    fn failure(&self, error: ApiError) -> String {
        json(&TgiError::from(error).body())
    }

    /// The last token's event carries the text. A token that ends an answer is a mark, or has lost some of its text to a stop
    /// string; one whose text is all there is not the last, and need not wait.
    fn waits(&self, part: &Part) -> bool {
        let tokenizer = self.state.engine.tokenizer();
        part.token.is_some_and(|token| {
            tokenizer.end_of_turn().contains(&token)
                || tokenizer.token_bytes(token) != part.text.as_bytes()
        })
    }

    fn says_done(&self) -> bool {
        false
    }
}
