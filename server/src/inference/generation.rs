//! Generations in flight: submitting them, reading their events with the metrics kept, and collecting whole answers.

use std::sync::Arc;
use std::time::Instant;

use actix_web::web::Data;
use adapters::Version;
use engine::{
    EngineError, FinishReason, GenerateEvent, GenerateRequest, PreparedAdapter, Priority,
    TokenLogprob,
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::parameters::Generation;
use super::prompts::EncodedPrompt;
use super::target::Target;
use crate::error::ApiError;
use crate::state::State;

/// One choice being generated. Dropping it cancels it.
pub struct Running {
    /// Position among the choices of the answer.
    pub index: usize,
    /// Position of its prompt among the prompts of the request.
    pub prompt: usize,
    /// Most tokens it can have; with the last of them comes the end.
    pub max_tokens: usize,
    events: UnboundedReceiver<GenerateEvent>,
    meter: Meter,
}

/// A finished choice.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Position among the choices of the answer.
    pub index: usize,
    /// Position of its prompt among the prompts of the request.
    pub prompt: usize,
    /// The answer.
    pub text: String,
    /// Tokens generated, with log-probabilities when asked for.
    pub tokens: Vec<(u32, Option<TokenLogprob>)>,
    /// Log-probabilities of prompt positions 1.., when asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: usize,
    /// Why it ended.
    pub reason: FinishReason,
}

/// Pays for every choice of every prompt and submits them.
///
/// # Errors
/// `Access` when the request's key may not use so many tokens, now or at all, and those of [`submit_paid`].
pub fn submit(
    state: &Data<State>,
    target: &Target,
    prompts: &[EncodedPrompt],
    generation: &Generation,
) -> Result<Vec<Running>, ApiError> {
    target.pay(cost(state, prompts, generation))?;
    submit_paid(state, target, prompts, generation)
}

/// Tokens that a request may cost: those of its prompts, and the most that each choice may have.
pub fn cost(state: &State, prompts: &[EncodedPrompt], generation: &Generation) -> usize {
    let of_prompt = |prompt: &EncodedPrompt| {
        let choice = most_tokens(state, prompt, generation);
        prompt.tokens.len() + generation.choices * choice
    };
    prompts.iter().map(of_prompt).sum()
}

/// Most tokens that a choice may have.
fn most_tokens(state: &State, prompt: &EncodedPrompt, generation: &Generation) -> usize {
    let room = state
        .engine
        .max_model_len()
        .saturating_sub(prompt.tokens.len());
    // A prompt that leaves no room at all is for the engine to refuse, not to be answered with nothing.
    generation.max_tokens.unwrap_or(usize::MAX).min(room.max(1))
}

/// Submits every choice of every prompt, whose tokens are paid for.
///
/// # Errors
/// The engine's refusal; choices already submitted are cancelled.
pub fn submit_paid(
    state: &Data<State>,
    target: &Target,
    prompts: &[EncodedPrompt],
    generation: &Generation,
) -> Result<Vec<Running>, ApiError> {
    target.sampled_with(generation.sampling.seed);
    let weights = target.weights();
    let mut running = Vec::with_capacity(prompts.len() * generation.choices);
    for (prompt, encoded) in prompts.iter().enumerate() {
        let max_tokens = most_tokens(state, encoded, generation);
        for choice in 0..generation.choices {
            let mut request = engine_request(encoded, generation, weights.clone());
            request.max_tokens = max_tokens;
            request.deadline = target.deadline();
            request.min_tokens = generation.min_tokens.min(max_tokens);
            request.sampling.seed = request.sampling.seed.wrapping_add(choice as u64);
            running.push(Running {
                index: prompt * generation.choices + choice,
                prompt,
                max_tokens,
                events: state.engine.generate(request)?,
                meter: Meter::new(state, target, encoded.tokens.len()),
            });
        }
    }
    Ok(running)
}

fn engine_request(
    prompt: &EncodedPrompt,
    generation: &Generation,
    adapter: Option<Arc<PreparedAdapter>>,
) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.tokens.clone(),
        adapter,
        sampling: generation.sampling.clone(),
        max_tokens: 0,
        min_tokens: 0,
        stop: generation.stop.clone(),
        ignore_eos: generation.ignore_eos,
        logprobs: generation.logprobs,
        prompt_logprobs: generation.logprobs.filter(|_| generation.echo),
        priority: Priority::Interactive,
        deadline: None,
    }
}

impl Running {
    /// The next event; `Failed` when the engine went away, `None` after the last.
    pub async fn next(&mut self) -> Option<GenerateEvent> {
        if self.meter.ended {
            return None;
        }
        let event = self
            .events
            .recv()
            .await
            .unwrap_or(GenerateEvent::Failed(EngineError::Stopped));
        self.meter.observe(&event);
        Some(event)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The engine's, when it could not finish.
    pub async fn collect(mut self) -> Result<Finished, ApiError> {
        let mut finished = Finished {
            index: self.index,
            prompt: self.prompt,
            text: String::new(),
            tokens: Vec::new(),
            prompt_logprobs: None,
            cached_tokens: 0,
            reason: FinishReason::Length,
        };
        while let Some(event) = self.next().await {
            match event {
                GenerateEvent::Started {
                    cached_tokens,
                    prompt_logprobs,
                    ..
                } => {
                    finished.cached_tokens = cached_tokens;
                    finished.prompt_logprobs = prompt_logprobs;
                }
                GenerateEvent::Token {
                    token,
                    text,
                    logprob,
                } => {
                    finished.text.push_str(&text);
                    finished.tokens.push((token, logprob));
                }
                GenerateEvent::Finished { reason, text } => {
                    finished.text.push_str(&text);
                    finished.reason = reason;
                }
                GenerateEvent::Failed(error) => return Err(error.into()),
            }
        }
        Ok(finished)
    }
}

/// Waits for every choice, in order.
///
/// # Errors
/// The first failure; the rest is cancelled.
pub async fn collect(running: Vec<Running>) -> Result<Vec<Finished>, ApiError> {
    futures_util::future::try_join_all(running.into_iter().map(Running::collect)).await
}

/// The word for why a choice ended.
pub fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Keeps the metrics of one choice.
struct Meter {
    state: Data<State>,
    adapter: String,
    version: Option<Version>,
    prompt_tokens: usize,
    submitted: Instant,
    last_token: Option<Instant>,
    ended: bool,
}

impl Meter {
    fn new(state: &Data<State>, target: &Target, prompt_tokens: usize) -> Self {
        Self {
            state: state.clone(),
            adapter: target.label().to_owned(),
            version: target.version().cloned(),
            prompt_tokens,
            submitted: Instant::now(),
            last_token: None,
            ended: false,
        }
    }

    fn observe(&mut self, event: &GenerateEvent) {
        let metrics = &self.state.metrics;
        // Looked up each time: once the adapter is unloaded, what it still generates must not bring its series back.
        let label = metrics.labels.label(&self.adapter);
        match event {
            GenerateEvent::Started { queue_seconds, .. } => {
                metrics.generation.queue_time.observe(*queue_seconds);
                metrics
                    .generation
                    .prompt_tokens
                    .with_label_values(&[&label])
                    .inc_by(self.prompt_tokens as u64);
            }
            GenerateEvent::Token { .. } => {
                let now = Instant::now();
                let (histogram, since) = match self.last_token {
                    Some(last) => (&metrics.generation.inter_token, last),
                    None => (&metrics.generation.time_to_first_token, self.submitted),
                };
                let seconds = now.duration_since(since).as_secs_f64();
                histogram.with_label_values(&[&label]).observe(seconds);
                if let (Some(version), None) = (&self.version, self.last_token) {
                    metrics.versions.first_token(&label, version, seconds);
                }
                metrics
                    .generation
                    .generation_tokens
                    .with_label_values(&[&label])
                    .inc();
                self.last_token = Some(now);
            }
            GenerateEvent::Finished { .. } | GenerateEvent::Failed(_) => self.ended = true,
        }
    }
}
