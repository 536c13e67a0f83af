//! Which sequences run, and which of their tokens go into the next step.
//!
//! Decodes go first, then prompts fill the rest of the step in chunks; interactive requests before background ones.
//! When the cache is full, the youngest sequence gives its blocks back and is computed again later: rows don't depend
//! on how they are chunked, so its answer stays the same.

use std::collections::VecDeque;

use crate::batch::{Segment, Wanted};
use crate::engine::EngineConfig;
use crate::generation::GenerationLimits;
use crate::kernels::BLOCK_TOKENS;
use crate::kv::BlockPool;
use crate::sequence::{Progress, Sequence, Task};
use crate::step::Executor;

/// Prompt rows in a step that also has decodes: enough to keep the weights busy, few enough not to stall streams.
const PROMPT_ROWS_BESIDE_DECODES: usize = 64;

/// The sequences of the engine and the blocks they share.
pub(crate) struct Scheduler {
    config: EngineConfig,
    blocks: BlockPool,
    /// Interactive requests, then background ones; each in order of arrival.
    waiting: [VecDeque<Sequence>; 2],
    /// Oldest first.
    running: Vec<Sequence>,
    /// Sequences (indices into `running`) that lost their blocks while the current step was planned.
    preempted: Vec<usize>,
    prefix_hit_tokens: u64,
    prefix_query_tokens: u64,
}

/// Consecutive tokens of a running sequence that go into a step.
struct Planned {
    /// Index into `running`.
    sequence: usize,
    /// Set when the tokens are a continuation that is scored behind the sequence's prompt.
    branch: Option<usize>,
    tokens: Vec<u32>,
    start: usize,
    table: Vec<u32>,
    wanted: Wanted,
}

impl Scheduler {
    pub(crate) fn new(config: EngineConfig) -> Self {
        Self {
            blocks: BlockPool::new(config.kv_blocks()),
            config,
            waiting: [VecDeque::new(), VecDeque::new()],
            running: Vec::new(),
            preempted: Vec::new(),
            prefix_hit_tokens: 0,
            prefix_query_tokens: 0,
        }
    }

    pub(crate) fn enqueue(&mut self, sequence: Sequence) {
        self.waiting[sequence.priority as usize].push_back(sequence);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.iter().all(VecDeque::is_empty)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.iter().flatten()
    }

    pub(crate) fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub(crate) fn blocks(&self) -> &BlockPool {
        &self.blocks
    }

    /// Tokens taken from the prefix cache, and tokens looked up in it.
    pub(crate) fn prefix_tokens(&self) -> (u64, u64) {
        (self.prefix_hit_tokens, self.prefix_query_tokens)
    }

    /// Runs one step over whatever is ready and returns its number of rows.
    pub(crate) fn step(&mut self, executor: &mut Executor, limits: &GenerationLimits<'_>) -> usize {
        let mut plan = self.plan(executor);
        // Rows of one adapter stand together, so that its deltas are computed in one go.
        plan.sort_by(|a, b| self.version_of(a).cmp(&self.version_of(b)));
        let rows = plan.iter().map(|planned| planned.tokens.len()).sum();
        if rows == 0 {
            return 0;
        }
        let done = self.compute(&plan, executor, limits);
        self.settle(plan, &done);
        rows
    }

    fn version_of(&self, planned: &Planned) -> Option<&str> {
        let adapter = self.running[planned.sequence].adapter.as_ref()?;
        Some(adapter.version().as_str())
    }

    /// Lets go of requests whose clients have gone, takes waiting ones in while there is room, and returns how many no
    /// longer wait.
    pub(crate) fn admit(&mut self) -> usize {
        let before = self.waiting().count();
        self.drop_cancelled();
        self.take_in();
        before - self.waiting().count()
    }

    fn drop_cancelled(&mut self) {
        for queue in &mut self.waiting {
            queue.retain(|sequence| !sequence.is_cancelled());
        }
        let blocks = &mut self.blocks;
        self.running.retain_mut(|sequence| {
            let cancelled = sequence.is_cancelled();
            if cancelled {
                blocks.release(&std::mem::take(&mut sequence.table));
            }
            !cancelled
        });
    }

    fn take_in(&mut self) {
        for queue in &mut self.waiting {
            while self.running.len() < self.config.max_running {
                let Some(next) = queue.front() else { break };
                let needed = next.tokens.len().div_ceil(BLOCK_TOKENS) + 1;
                if needed > self.blocks.available() && !self.running.is_empty() {
                    return;
                }
                self.running.extend(queue.pop_front());
            }
        }
    }

    fn plan(&mut self, executor: &mut Executor) -> Vec<Planned> {
        let mut plan: Vec<Planned> = Vec::new();
        self.preempted.clear();
        let is_decode = |sequence: &Sequence| {
            sequence.computed >= sequence.prompt_length
                && sequence.computed + 1 == sequence.tokens.len()
        };
        let decodes = self.in_order(is_decode);
        let prompts = self.in_order(|sequence| !is_decode(sequence));
        for index in decodes {
            self.plan_tokens(index, 1, &mut plan);
        }
        let mut room = self.config.step_tokens;
        if !plan.is_empty() {
            room = room.min(PROMPT_ROWS_BESIDE_DECODES);
        }
        for index in prompts {
            if room == 0 {
                break;
            }
            let planned = if self.preempted.contains(&index) {
                0
            } else if self.running[index].computed < self.running[index].tokens.len() {
                self.reuse_prefix(index);
                self.plan_tokens(index, room, &mut plan)
            } else {
                self.plan_branches(index, executor, &mut plan)
            };
            room = room.saturating_sub(planned);
        }
        plan
    }

    /// Running sequences that match, interactive ones first, older ones first.
    fn in_order(&self, matches: impl Fn(&Sequence) -> bool) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..self.running.len())
            .filter(|&index| matches(&self.running[index]))
            .collect();
        indices.sort_by_key(|&index| self.running[index].priority);
        indices
    }

    /// Takes over remembered blocks at a sequence's block boundary.
    fn reuse_prefix(&mut self, index: usize) {
        let sequence = &mut self.running[index];
        let first_look = sequence.queue_seconds.is_none();
        if first_look {
            self.prefix_query_tokens += sequence.prompt_length as u64;
        }
        if !sequence.may_reuse_prefix() || sequence.computed != sequence.remembered * BLOCK_TOKENS {
            return;
        }
        // The last token is always computed: its logits are what the sequence is for.
        let rest = &sequence.tokens[sequence.computed..sequence.tokens.len() - 1];
        let (taken, parent) = self.blocks.take_prefix(sequence.parent.clone(), rest);
        if taken.is_empty() {
            return;
        }
        let surplus = sequence.table.split_off(sequence.remembered);
        self.blocks.release(&surplus);
        let tokens = taken.len() * BLOCK_TOKENS;
        sequence.remembered += taken.len();
        sequence.computed += tokens;
        sequence.parent = parent;
        sequence.table.extend(taken);
        let within_prompt = sequence.computed.min(sequence.prompt_length);
        sequence.cached_tokens = (sequence.cached_tokens + tokens).min(within_prompt);
        self.prefix_hit_tokens += tokens as u64;
    }

    /// Plans up to `room` of a sequence's tokens, if blocks for them can be had; returns how many.
    fn plan_tokens(&mut self, index: usize, room: usize, plan: &mut Vec<Planned>) -> usize {
        if self.preempted.contains(&index) {
            return 0;
        }
        let start = self.running[index].computed;
        let end = self.running[index].tokens.len().min(start + room);
        while self.running[index].table.len() < end.div_ceil(BLOCK_TOKENS) {
            match self.allocate(index, plan) {
                Some(block) => self.running[index].table.push(block),
                None => return 0,
            }
        }
        let sequence = &mut self.running[index];
        let queue_seconds = sequence.submitted.elapsed().as_secs_f64();
        sequence.queue_seconds.get_or_insert(queue_seconds);
        plan.push(Planned {
            sequence: index,
            branch: None,
            tokens: sequence.tokens[start..end].to_vec(),
            start,
            table: sequence.table.clone(),
            wanted: sequence.wanted(end),
        });
        end - start
    }

    /// Plans the continuations that are scored behind a computed prompt, as many as blocks can be had for; returns how
    /// many tokens that are.
    fn plan_branches(
        &mut self,
        index: usize,
        executor: &mut Executor,
        plan: &mut Vec<Planned>,
    ) -> usize {
        let mut planned = 0;
        let prompt_length = self.running[index].prompt_length;
        let shared = prompt_length / BLOCK_TOKENS;
        for continuation in self.running[index].pending_branches().to_vec() {
            let Task::Score(scoring) = &self.running[index].task else {
                break;
            };
            let tokens = &scoring.continuations[continuation];
            let tokens = tokens[..tokens.len() - 1].to_vec();
            let own = (prompt_length + tokens.len()).div_ceil(BLOCK_TOKENS) - shared;
            let mut blocks = Vec::with_capacity(own);
            while blocks.len() < own {
                match self.allocate(index, plan) {
                    Some(block) => blocks.push(block),
                    None => break,
                }
            }
            if blocks.len() < own {
                self.blocks.release(&blocks);
                break;
            }
            let sequence = &self.running[index];
            if !prompt_length.is_multiple_of(BLOCK_TOKENS) {
                executor.copy_block(sequence.table[shared], blocks[0]);
            }
            let table = [&sequence.table[..shared], &blocks].concat();
            for &block in &table[..shared] {
                self.blocks.share(block);
            }
            planned += tokens.len();
            plan.push(Planned {
                sequence: index,
                branch: Some(continuation),
                tokens,
                start: prompt_length,
                table,
                wanted: Wanted::Every,
            });
        }
        planned
    }

    /// A block for a running sequence; takes blocks from younger sequences of its priority or below if need be.
    fn allocate(&mut self, index: usize, plan: &mut Vec<Planned>) -> Option<u32> {
        loop {
            if let Some(block) = self.blocks.allocate() {
                return Some(block);
            }
            let victim = (0..self.running.len())
                .filter(|&other| other != index && !self.running[other].table.is_empty())
                .filter(|&other| {
                    let (own, other_priority) =
                        (self.running[index].priority, self.running[other].priority);
                    (other_priority, other) > (own, index)
                })
                .max_by_key(|&other| (self.running[other].priority, other))?;
            self.preempt(victim, plan);
        }
    }

    /// Gives a sequence's blocks back; it keeps its tokens and is computed again when there is room.
    fn preempt(&mut self, index: usize, plan: &mut Vec<Planned>) {
        self.preempted.push(index);
        for branch in plan.extract_if(.., |planned| planned.sequence == index) {
            if branch.branch.is_some() {
                self.blocks.release(&branch.table);
            }
        }
        let sequence = &mut self.running[index];
        let table = std::mem::take(&mut sequence.table);
        sequence.computed = 0;
        sequence.remembered = 0;
        sequence.parent = sequence.root();
        self.blocks.release(&table);
    }

    /// Runs the plan; returns the sequences that are done.
    fn compute(
        &mut self,
        plan: &[Planned],
        executor: &mut Executor,
        limits: &GenerationLimits<'_>,
    ) -> Vec<usize> {
        let adapters: Vec<_> = plan
            .iter()
            .map(|planned| self.running[planned.sequence].adapter.clone())
            .collect();
        let segments: Vec<Segment<'_>> = plan
            .iter()
            .zip(&adapters)
            .map(|(planned, adapter)| Segment {
                tokens: &planned.tokens,
                start: planned.start,
                table: &planned.table,
                adapter: adapter.as_deref(),
                wanted: planned.wanted,
            })
            .collect();
        let mut done = Vec::new();
        let running = &mut self.running;
        executor.run(&segments, |segment, row, logits| {
            let planned = &plan[segment];
            let sequence = &mut running[planned.sequence];
            let progress = match (planned.branch, &mut sequence.task) {
                (Some(continuation), Task::Score(scoring)) => {
                    scoring.take_next(continuation, row, logits);
                    if row + 1 < planned.tokens.len() {
                        return;
                    }
                    sequence.finish_branch(continuation)
                }
                _ => sequence.take_logits(planned.start + row, logits, limits),
            };
            if progress == Progress::Done {
                done.push(planned.sequence);
            }
        });
        done
    }

    /// Books what was computed and lets finished sequences go.
    fn settle(&mut self, plan: Vec<Planned>, done: &[usize]) {
        for planned in plan {
            if planned.branch.is_some() {
                self.blocks.release(&planned.table);
                continue;
            }
            let sequence = &mut self.running[planned.sequence];
            sequence.computed = planned.start + planned.tokens.len();
            while (sequence.remembered + 1) * BLOCK_TOKENS <= sequence.computed {
                let at = sequence.remembered;
                let tokens = &sequence.tokens[at * BLOCK_TOKENS..(at + 1) * BLOCK_TOKENS];
                let parent = sequence.parent.clone();
                sequence.parent = self.blocks.remember(parent, tokens, sequence.table[at]);
                sequence.remembered += 1;
            }
        }
        let mut index = 0;
        let blocks = &mut self.blocks;
        self.running.retain(|sequence| {
            let finished = done.contains(&index);
            if finished {
                blocks.release(&sequence.table);
            }
            index += 1;
            !finished
        });
    }

    /// Everything that is not finished, on the way out.
    pub(crate) fn into_unfinished(self) -> impl Iterator<Item = Sequence> {
        self.running
            .into_iter()
            .chain(self.waiting.into_iter().flatten())
    }
}
