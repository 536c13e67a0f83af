//! One request inside the engine: its tokens, its blocks, and what is done with its logits.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::adapter::PreparedAdapter;
use crate::error::EngineError;
use crate::kv::Parent;
use crate::request::{
    ContinuationScore, FinishReason, GenerateEvent, GenerateRequest, Priority, ScoreResult,
    TokenLogprob,
};
use crate::sampling::{LogSoftmax, Sampler, argmax};
use crate::step::Wanted;
use crate::text::TextAssembler;
use crate::tokenizer::Tokenizer;

/// A request with its state.
pub(crate) struct Sequence {
    /// Prompt, then what was generated.
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_length: usize,
    /// Leading tokens whose keys and values are in the cache.
    pub(crate) computed: usize,
    pub(crate) table: Vec<u32>,
    /// Leading blocks of the table that are remembered by their content.
    pub(crate) remembered: usize,
    /// What the first block that is not remembered stands behind.
    pub(crate) parent: Parent,
    pub(crate) adapter: Option<Arc<PreparedAdapter>>,
    pub(crate) priority: Priority,
    pub(crate) submitted: Instant,
    /// Seconds in the queue; set by the first step that works on the sequence.
    pub(crate) queue_seconds: Option<f64>,
    /// Tokens taken from the prefix cache before the first step.
    pub(crate) cached_tokens: usize,
    pub(crate) task: Task,
}

/// What a sequence is computed for.
pub(crate) enum Task {
    Generate(Box<Generation>),
    Score(Scoring),
    Logits(Option<oneshot::Sender<Result<Vec<f32>, EngineError>>>),
}

/// Whether a sequence goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Continue,
    Done,
}

pub(crate) struct Generation {
    request: GenerateRequest,
    events: mpsc::UnboundedSender<GenerateEvent>,
    sampler: Sampler,
    assembler: TextAssembler,
    prompt_logprobs: Vec<TokenLogprob>,
    generated: usize,
    started: bool,
}

pub(crate) struct Scoring {
    pub(crate) continuations: Vec<Vec<u32>>,
    /// Continuations not yet computed; empty until the prompt is.
    pub(crate) pending: Vec<usize>,
    scores: Vec<ContinuationScore>,
    /// The free energy at the end of the prompt, once it is computed.
    energy: Option<f32>,
    reply: Option<oneshot::Sender<Result<ScoreResult, EngineError>>>,
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
            generated: 0,
            started: false,
        }
    }

    fn send(&self, event: GenerateEvent) {
        // A closed channel is a client that hung up; the next step drops the sequence.
        let _ = self.events.send(event);
    }
}

impl Scoring {
    pub(crate) fn new(
        continuations: Vec<Vec<u32>>,
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
            reply: Some(reply),
        }
    }

    /// Takes the logits at the end of the prompt: the first token of every continuation.
    fn take_first(&mut self, logits: &[f32]) {
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

    /// Takes the logits after token `row` of a continuation.
    pub(crate) fn take_next(&mut self, continuation: usize, row: usize, logits: &[f32]) {
        let token = self.continuations[continuation][row + 1];
        let distribution = LogSoftmax::new(logits);
        add_token(
            &mut self.scores[continuation],
            &distribution,
            argmax(logits),
            token,
        );
    }

    fn finish(&mut self, cached_tokens: usize) {
        if let Some(reply) = self.reply.take() {
            // A closed channel is a client that hung up.
            let _ = reply.send(Ok(ScoreResult {
                cached_tokens,
                continuations: std::mem::take(&mut self.scores),
                energy: self.energy.unwrap_or_default(),
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

impl Sequence {
    /// A sequence that waits for its first step.
    pub(crate) fn new(
        prompt: Vec<u32>,
        adapter: Option<Arc<PreparedAdapter>>,
        priority: Priority,
        task: Task,
    ) -> Self {
        let mut sequence = Self {
            prompt_length: prompt.len(),
            tokens: prompt,
            computed: 0,
            table: Vec::new(),
            remembered: 0,
            parent: Parent::Root(None),
            adapter,
            priority,
            submitted: Instant::now(),
            queue_seconds: None,
            cached_tokens: 0,
            task,
        };
        sequence.parent = sequence.root();
        sequence
    }

    /// What the sequence's first block stands behind.
    pub(crate) fn root(&self) -> Parent {
        Parent::Root(
            self.adapter
                .as_ref()
                .map(|adapter| adapter.version().clone()),
        )
    }

    /// Tells whoever asked that the sequence will not be finished.
    pub(crate) fn fail(self, error: EngineError) {
        // A closed channel is a client that hung up.
        match self.task {
            Task::Generate(generation) => generation.send(GenerateEvent::Failed(error)),
            Task::Score(scoring) => {
                let _ = scoring.reply.map(|reply| reply.send(Err(error)));
            }
            Task::Logits(reply) => {
                let _ = reply.map(|reply| reply.send(Err(error)));
            }
        }
    }

    /// Whether whoever asked has gone away.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => generation.events.is_closed(),
            Task::Score(scoring) => scoring
                .reply
                .as_ref()
                .is_none_or(oneshot::Sender::is_closed),
            Task::Logits(reply) => reply.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }

    /// Whether a prefix may be taken from the cache: not when the logits of every prompt token are wanted.
    pub(crate) fn may_reuse_prefix(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => generation.request.prompt_logprobs.is_none(),
            Task::Score(_) | Task::Logits(_) => true,
        }
    }

    /// Which logits a chunk that ends before token `end` needs.
    pub(crate) fn wanted(&self, end: usize) -> Wanted {
        if !self.may_reuse_prefix() && self.computed < self.prompt_length {
            Wanted::Every
        } else if end == self.tokens.len() {
            Wanted::Last
        } else {
            Wanted::Nothing
        }
    }

    /// The continuations that wait for their branch to be computed.
    pub(crate) fn pending_branches(&self) -> &[usize] {
        match &self.task {
            Task::Score(scoring) => &scoring.pending,
            Task::Generate(_) | Task::Logits(_) => &[],
        }
    }

    /// Takes the logits after the token at `position`.
    pub(crate) fn take_logits(
        &mut self,
        position: usize,
        logits: &mut [f32],
        limits: &GenerationLimits<'_>,
    ) -> Progress {
        let at_end = position + 1 == self.tokens.len();
        let Self {
            tokens,
            prompt_length,
            queue_seconds,
            cached_tokens,
            task,
            ..
        } = self;
        match task {
            Task::Generate(generation) => {
                generation.record_prompt(position, &tokens[..*prompt_length], logits);
                if !at_end {
                    return Progress::Continue;
                }
                generation.start(*cached_tokens, queue_seconds.unwrap_or_default());
                generation.advance(tokens, logits, limits)
            }
            Task::Score(scoring) => {
                scoring.take_first(logits);
                if scoring.pending.is_empty() {
                    scoring.finish(*cached_tokens);
                    return Progress::Done;
                }
                Progress::Continue
            }
            Task::Logits(reply) => {
                if let Some(reply) = reply.take() {
                    // A closed channel is a client that hung up.
                    let _ = reply.send(Ok(logits.to_vec()));
                }
                Progress::Done
            }
        }
    }

    /// Marks a continuation's branch as computed.
    pub(crate) fn finish_branch(&mut self, continuation: usize) -> Progress {
        let Task::Score(scoring) = &mut self.task else {
            return Progress::Done;
        };
        scoring.pending.retain(|&pending| pending != continuation);
        if scoring.pending.is_empty() {
            scoring.finish(self.cached_tokens);
            return Progress::Done;
        }
        Progress::Continue
    }
}

/// What bounds every generation.
pub(crate) struct GenerationLimits<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// Most tokens of a sequence, prompt included.
    pub(crate) max_model_len: usize,
}

impl Generation {
    /// Keeps the log-probability of the prompt token after `position`, once.
    fn record_prompt(&mut self, position: usize, prompt: &[u32], logits: &[f32]) {
        let Some(count) = self.request.prompt_logprobs else {
            return;
        };
        if position == self.prompt_logprobs.len() && position + 1 < prompt.len() {
            let token = prompt[position + 1];
            self.prompt_logprobs.push(logprob(logits, token, count));
        }
    }

    fn start(&mut self, cached_tokens: usize, queue_seconds: f64) {
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

    fn advance(
        &mut self,
        tokens: &mut Vec<u32>,
        logits: &mut [f32],
        limits: &GenerationLimits<'_>,
    ) -> Progress {
        if self.request.max_tokens == 0 {
            return self.finish(FinishReason::Length);
        }
        let raw = self.request.logprobs.map(|_| logits.to_vec());
        let token = self.sampler.sample(logits);
        let logprob = raw
            .zip(self.request.logprobs)
            .map(|(raw, count)| logprob(&raw, token, count));
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
