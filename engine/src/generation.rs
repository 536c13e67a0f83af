//! A prompt being continued token by token.

use tokio::sync::mpsc;

use crate::error::EngineError;
use crate::request::{FinishReason, GenerateEvent, GenerateRequest, TokenLogprob};
use crate::sampling::{LogSoftmax, Sampler};
use crate::sequence::Progress;
use crate::text::TextAssembler;
use crate::tokenizer::Tokenizer;

/// A generation request with its state.
pub(crate) struct Generation {
    request: GenerateRequest,
    events: mpsc::UnboundedSender<GenerateEvent>,
    sampler: Sampler,
    assembler: TextAssembler,
    prompt_logprobs: Vec<TokenLogprob>,
    /// The model's own logits, where the sampler changes its copy.
    raw_logits: Vec<f32>,
    generated: usize,
    started: bool,
}

/// What bounds every generation.
pub(crate) struct GenerationLimits<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// Most tokens of a sequence, prompt included.
    pub(crate) max_model_len: usize,
}

impl Generation {
    pub(crate) fn new(
        request: GenerateRequest,
        events: mpsc::UnboundedSender<GenerateEvent>,
        tokenizer: &Tokenizer,
    ) -> Self {
        let sampler = Sampler::new(&request.sampling, &request.prompt)
            .with_min_tokens(request.min_tokens, tokenizer.end_of_turn());
        Self {
            sampler,
            assembler: TextAssembler::new(request.stop.clone()),
            request,
            events,
            prompt_logprobs: Vec::new(),
            raw_logits: Vec::new(),
            generated: 0,
            started: false,
        }
    }

    /// Whether the client has gone away.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the log-probability of every prompt token is wanted.
    pub(crate) fn wants_prompt_logprobs(&self) -> bool {
        self.request.prompt_logprobs.is_some()
    }

    /// Most tokens that may still be generated.
    pub(crate) fn tokens_left(&self) -> usize {
        self.request.max_tokens - self.generated
    }

    /// Tells the client that there will be no end.
    pub(crate) fn fail(&self, error: EngineError) {
        self.send(GenerateEvent::Failed(error));
    }

    fn send(&self, event: GenerateEvent) {
        // A closed channel is a client that hung up; the next step drops the sequence.
        let _ = self.events.send(event);
    }

    /// Keeps the log-probability of the prompt token after `position`, once.
    pub(crate) fn record_prompt(&mut self, position: usize, prompt: &[u32], logits: &[f32]) {
        let Some(count) = self.request.prompt_logprobs else {
            return;
        };
        if position == self.prompt_logprobs.len() && position + 1 < prompt.len() {
            let token = prompt[position + 1];
            self.prompt_logprobs.push(logprob(logits, token, count));
        }
    }

    pub(crate) fn start(&mut self, cached_tokens: usize, queue_seconds: f64) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let wanted = self.request.prompt_logprobs.is_some();
        self.send(GenerateEvent::Started {
            cached_tokens,
            queue_seconds,
            prompt_logprobs: wanted.then(|| self.prompt_logprobs.clone()),
        });
    }

    pub(crate) fn advance(
        &mut self,
        tokens: &mut Vec<u32>,
        logits: &mut [f32],
        limits: &GenerationLimits<'_>,
    ) -> Progress {
        if self.request.max_tokens == 0 {
            return self.finish(FinishReason::Length);
        }
        let (token, logprob) = self.choose(logits);
        tokens.push(token);
        self.generated += 1;

        let tokenizer = limits.tokenizer;
        let ends_turn = !self.request.ignore_eos && tokenizer.end_of_turn().contains(&token);
        let piece = self
            .assembler
            .push(tokenizer.token_bytes(token), tokenizer.is_special(token));
        self.send(GenerateEvent::Token {
            token,
            text: piece.text,
            logprob,
        });
        if ends_turn || piece.stopped {
            self.finish(FinishReason::Stop)
        } else if self.generated == self.request.max_tokens || tokens.len() >= limits.max_model_len
        {
            self.finish(FinishReason::Length)
        } else {
            Progress::Continue
        }
    }

    /// The next token, with its log-probability when asked for.
    fn choose(&mut self, logits: &mut [f32]) -> (u32, Option<TokenLogprob>) {
        let Some(count) = self.request.logprobs else {
            return (self.sampler.sample(logits), None);
        };
        if !self.sampler.changes_logits() {
            let token = self.sampler.sample(logits);
            return (token, Some(logprob(logits, token, count)));
        }
        self.raw_logits.clear();
        self.raw_logits.extend_from_slice(logits);
        let token = self.sampler.sample(logits);
        (token, Some(logprob(&self.raw_logits, token, count)))
    }

    fn finish(&mut self, reason: FinishReason) -> Progress {
        let text = self.assembler.finish();
        self.send(GenerateEvent::Finished { reason, text });
        Progress::Done
    }
}

fn logprob(logits: &[f32], token: u32, count: usize) -> TokenLogprob {
    let distribution = LogSoftmax::new(logits);
    TokenLogprob {
        token,
        logprob: distribution.of(token),
        top: distribution.top(count),
    }
}
