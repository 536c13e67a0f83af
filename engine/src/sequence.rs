//! One request inside the engine: its tokens, its blocks, and what is done with its logits.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::adapter::PreparedAdapter;
use crate::batch::Wanted;
use crate::error::EngineError;
use crate::generation::{Generation, GenerationLimits};
use crate::kv::Parent;
use crate::request::Priority;
use crate::scoring::Scoring;

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
        match self.task {
            Task::Generate(generation) => generation.fail(error),
            Task::Score(scoring) => scoring.fail(error),
            Task::Logits(reply) => {
                // A closed channel is a client that hung up.
                let _ = reply.map(|reply| reply.send(Err(error)));
            }
        }
    }

    /// Whether whoever asked has gone away.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => generation.is_cancelled(),
            Task::Score(scoring) => scoring.is_cancelled(),
            Task::Logits(reply) => reply.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }

    /// Whether a prefix may be taken from the cache: not when the logits of every prompt token are wanted.
    pub(crate) fn may_reuse_prefix(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => !generation.wants_prompt_logprobs(),
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
