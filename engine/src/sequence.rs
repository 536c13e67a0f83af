//! One request inside the engine: its tokens, its blocks, and what is done with its logits.

mod outputs;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::adapter::PreparedAdapter;
use crate::batch::Wanted;
use crate::error::EngineError;
use crate::generation::Generation;
use crate::kernels::BLOCK_TOKENS;
use crate::kv::{BlockPool, Parent};
use crate::pooling::Pooling;
use crate::request::Priority;
use crate::scheduler::Drafter;
use crate::scoring::Scoring;
use crate::workload::Ticket;

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
    /// When it is given up.
    pub(crate) deadline: Option<Instant>,
    /// Its part of the workload, when users wait for it.
    pub(crate) ticket: Option<Ticket>,
    /// Seconds in the queue; set by the first step that works on the sequence.
    pub(crate) queue_seconds: Option<f64>,
    /// Prompt tokens taken from the prefix cache.
    pub(crate) cached_tokens: usize,
    /// Continuations under way.
    pub(crate) branches: Vec<Branch>,
    pub(crate) drafter: Drafter,
    /// Set when a step of the sequence could not be computed.
    pub(crate) failure: Option<EngineError>,
    /// The scheduler's number for the adapter version.
    pub(crate) tenant: usize,
    /// Who gives way to whom within a step: the larger to the smaller.
    pub(crate) rank: (Priority, usize, usize),
    /// Rows promised within a step.
    pub(crate) granted: usize,
    /// Whether the step has had its try at the sequence's prompt.
    pub(crate) tried: bool,
    /// Whether it never ran and so takes a place in the queue.
    pub(crate) queued: bool,
    /// Whether it lost its blocks while the step was planned.
    pub(crate) evicted: bool,
    /// Whether it ever gave way.
    pub(crate) resumed: bool,
    /// Whether its answer is complete.
    pub(crate) done: bool,
    /// Whether the step at hand computes it.
    pub(crate) in_step: bool,
    /// Steps with others that panicked while they computed it.
    pub(crate) panicked_steps: usize,
    /// Set while it runs alone because it may be what made a step panic: how many tokens it had then.
    pub(crate) suspected_until: Option<usize>,
    pub(crate) task: Task,
}

/// A continuation being scored behind its prompt.
pub(crate) struct Branch {
    pub(crate) continuation: usize,
    /// Blocks behind the prompt's full ones; the first may hold a copy of the prompt's rest.
    pub(crate) blocks: Vec<u32>,
    /// Leading tokens whose keys and values are in the cache.
    pub(crate) computed: usize,
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
            computed: 0,
            table: Vec::with_capacity(prompt.capacity() / BLOCK_TOKENS + 2),
            tokens: prompt,
            remembered: 0,
            parent: Parent::Root(None),
            adapter,
            priority,
            submitted: Instant::now(),
            deadline: None,
            ticket: None,
            queue_seconds: None,
            cached_tokens: 0,
            branches: Vec::new(),
            drafter: Drafter::default(),
            failure: None,
            tenant: 0,
            rank: (priority, 0, 0),
            granted: 0,
            tried: false,
            queued: true,
            evicted: false,
            resumed: false,
            done: false,
            in_step: false,
            panicked_steps: 0,
            suspected_until: None,
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

    /// Whether nobody wants the answer at `now` any more: whoever asked has gone away, or the time is over.
    pub(crate) fn is_given_up(&self, now: Instant) -> bool {
        self.is_cancelled() || self.is_late(now)
    }

    /// Whether its time is over.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether whoever asked has gone away.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate(generation) => generation.is_cancelled(),
            Task::Score(scoring) => scoring.is_cancelled(),
            Task::Logits(reply) => reply.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }

    /// How many leading tokens may be taken from the cache: none when the logits of every prompt token are wanted,
    /// else all whose hidden state is not, and never the last, whose logits are what the sequence is for.
    pub(crate) fn reusable_prefix(&self) -> usize {
        let most = self.tokens.len() - 1;
        match &self.task {
            Task::Generate(_) if self.wants_every_logit() => 0,
            Task::Score(scoring) => {
                let pooled = scoring.pooling.as_ref().map(Pooling::next);
                pooled.map_or(most, |next| next.min(most))
            }
            Task::Generate(_) | Task::Logits(_) => most,
        }
    }

    fn wants_every_logit(&self) -> bool {
        matches!(&self.task, Task::Generate(generation) if generation.wants_prompt_logprobs())
    }

    /// The first position of the tokens whose hidden state is wanted, `usize::MAX` where none is.
    pub(crate) fn hidden_from(&self) -> usize {
        match &self.task {
            Task::Score(Scoring {
                pooling: Some(pooling),
                ..
            }) => pooling.next(),
            _ => usize::MAX,
        }
    }

    /// Which logits a chunk that ends before token `end` needs.
    pub(crate) fn wanted(&self, end: usize) -> Wanted {
        if self.wants_every_logit() && self.computed < self.prompt_length {
            Wanted::Every
        } else if end == self.tokens.len() {
            Wanted::Last
        } else {
            Wanted::Nothing
        }
    }

    /// Whether all that is missing is the token after the last one of an answer.
    pub(crate) fn is_decoding(&self) -> bool {
        self.computed >= self.prompt_length && self.computed + 1 == self.tokens.len()
    }

    /// Whether the sequence ends with `token` at `position`.
    pub(crate) fn ends_with(&self, token: u32, position: usize) -> bool {
        self.tokens.len() == position + 1 && self.tokens[position] == token
    }

    /// Tokens of the request itself: its prompt, and continuations.
    pub(crate) fn known_rows(&self) -> usize {
        match &self.task {
            Task::Score(scoring) => {
                let continuations = scoring.continuations.iter();
                self.prompt_length
                    + continuations
                        .map(|tokens| tokens.len().saturating_sub(1))
                        .sum::<usize>()
            }
            Task::Generate(_) | Task::Logits(_) => self.prompt_length,
        }
    }

    /// Rows still to be computed: tokens, or once there are none, continuations.
    pub(crate) fn pending_rows(&self) -> usize {
        if self.computed < self.tokens.len() {
            return self.tokens.len() - self.computed;
        }
        let Task::Score(scoring) = &self.task else {
            return 0;
        };
        let pending = scoring.pending.iter();
        let rows: usize = pending
            .map(|&continuation| scoring.continuations[continuation].len() - 1)
            .sum();
        rows - self
            .branches
            .iter()
            .map(|branch| branch.computed)
            .sum::<usize>()
    }

    /// Most tokens that may be guessed behind the last one, in a context of `max_model_len`.
    pub(crate) fn most_guesses(&self, max_model_len: usize) -> usize {
        match &self.task {
            Task::Generate(generation) if !generation.wants_prompt_logprobs() => {
                let room = max_model_len.saturating_sub(self.tokens.len() + 1);
                generation.tokens_left().saturating_sub(1).min(room)
            }
            _ => 0,
        }
    }

    /// Gives all blocks back; the sequence is to be computed from its beginning.
    pub(crate) fn release(&mut self, blocks: &mut BlockPool) {
        blocks.release(&std::mem::take(&mut self.table));
        for branch in self.branches.drain(..) {
            blocks.release(&branch.blocks);
        }
        self.computed = 0;
        self.remembered = 0;
        self.parent = self.root();
    }

    /// The place of a continuation's branch, a new one if there is none.
    pub(crate) fn open_branch(&mut self, continuation: usize) -> usize {
        let same = |branch: &Branch| branch.continuation == continuation;
        self.branches.iter().position(same).unwrap_or_else(|| {
            self.branches.push(Branch {
                continuation,
                blocks: Vec::new(),
                computed: 0,
            });
            self.branches.len() - 1
        })
    }

    /// Books `rows` computed tokens of a branch; when they were the last, its blocks are given back.
    pub(crate) fn advance_branch(
        &mut self,
        continuation: usize,
        rows: usize,
        blocks: &mut BlockPool,
    ) {
        let place = self.open_branch(continuation);
        self.branches[place].computed += rows;
        if !self.pending_branches().contains(&continuation) {
            blocks.release(&self.branches.remove(place).blocks);
        }
    }

    /// The continuations that wait for their branch to be computed.
    pub(crate) fn pending_branches(&self) -> &[usize] {
        match &self.task {
            Task::Score(scoring) => &scoring.pending,
            Task::Generate(_) | Task::Logits(_) => &[],
        }
    }
}
