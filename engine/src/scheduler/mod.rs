//! Which sequences run, and which of their tokens go into the next step.
//!
//! Decodes go first, each with the drafts that pay; prompts fill what is left in chunks, interactive requests before
//! background ones, adapters by what they have had. When the cache is full, the lowest-ranked sequence gives its blocks
//! back and is computed again later: rows don't depend on how they are chunked, so its answer stays the same.
//!
//! Here is the life of a step. Who may run is in `admission`, what goes into the step in `filling`, who gives way in
//! `preemption`, how much is enough in `pace`, who is next in `tenants`, guesses in `speculation`, and how things go on after a panic in `recovery`.

mod admission;
mod filling;
mod pace;
mod plan;
mod preemption;
mod prefix;
mod recovery;
mod speculation;
mod tenants;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::engine::EngineConfig;
use crate::error::EngineError;
use crate::executor::Executor;
use crate::faults::Fault;
use crate::generation::GenerationLimits;
use crate::kernels::BLOCK_TOKENS;
use crate::kv::BlockPool;
use crate::sequence::Sequence;

use self::pace::Pace;
pub(crate) use self::plan::Work;
use self::plan::{Plan, Planned};
pub(crate) use self::speculation::Drafter;
use self::tenants::Tenants;
use crate::workload::RowPrices;

/// The sequences of the engine and the blocks they share.
pub(crate) struct Scheduler {
    config: EngineConfig,
    blocks: BlockPool,
    /// Interactive requests, then background ones; each in order of arrival, those that gave way in front.
    waiting: [VecDeque<Sequence>; 2],
    /// In order of admission.
    running: Vec<Sequence>,
    tenants: Tenants,
    pace: Pace,
    clock: Clock,
    /// Kept between steps for its buffers.
    plan: Plan,
    totals: Totals,
}

/// Seconds of a step that started then and had so many decode and prompt rows.
type Clock = fn(Instant, usize, usize) -> f64;

/// What the scheduler has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) steps: u64,
    pub(crate) step_rows: u64,
    /// Prompt tokens taken from the prefix cache, and prompt tokens looked up in it.
    pub(crate) prefix_hit_tokens: u64,
    pub(crate) prefix_query_tokens: u64,
    /// Tokens guessed, and those of them that were right.
    pub(crate) draft_tokens: u64,
    pub(crate) accepted_tokens: u64,
    /// Panics in steps and in what was made of them.
    pub(crate) panics: u64,
}

impl Scheduler {
    pub(crate) fn new(config: EngineConfig) -> Self {
        Self {
            blocks: BlockPool::new(config.kv_blocks()),
            running: Vec::with_capacity(config.max_running),
            config,
            waiting: [VecDeque::new(), VecDeque::new()],
            tenants: Tenants::default(),
            pace: Pace::default(),
            clock: |started, _, _| started.elapsed().as_secs_f64(),
            plan: Plan::default(),
            totals: Totals::default(),
        }
    }

    /// The same scheduler with steps that take as long as the clock says.
    #[cfg(test)]
    pub(crate) fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes a request that waits for its turn.
    pub(crate) fn enqueue(&mut self, mut sequence: Sequence) {
        let version = sequence.adapter.as_ref().map(|adapter| adapter.version());
        sequence.tenant = self.tenants.arrive(version, sequence.priority);
        self.waiting[sequence.priority as usize].push_back(sequence);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.iter().all(VecDeque::is_empty)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that ran, gave way and wait to go on.
    pub(crate) fn paused(&self) -> usize {
        let waiting = self.waiting.iter().flatten();
        waiting.filter(|sequence| !sequence.queued).count()
    }

    pub(crate) fn tenants(&mut self) -> &mut Tenants {
        &mut self.tenants
    }

    pub(crate) fn blocks(&self) -> &BlockPool {
        &self.blocks
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// What rows take, once that is known.
    pub(crate) fn prices(&self) -> Option<RowPrices> {
        self.pace.prices()
    }

    /// Runs one step over whatever is ready and returns its number of rows.
    pub(crate) fn step(&mut self, executor: &mut Executor, limits: &GenerationLimits<'_>) -> usize {
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        self.fill(&mut plan, executor, limits);
        let rows = plan.rows();
        if rows > 0 {
            // Rows of one adapter stand together, so that its deltas are computed in one go.
            plan.entries.sort_unstable_by_key(Planned::place);
            let started = Instant::now();
            self.compute(&mut plan, executor, limits);
            let prompts = rows - plan.decode_rows();
            let seconds = (self.clock)(started, plan.decode_rows(), prompts);
            self.pace.observe(plan.decode_rows(), prompts, seconds);
            self.totals.steps += 1;
            self.totals.step_rows += rows as u64;
        }
        self.settle(&plan);
        self.retire();
        self.plan = plan;
        rows
    }

    fn compute(&mut self, plan: &mut Plan, executor: &mut Executor, limits: &GenerationLimits<'_>) {
        let mut segments = plan::recycled(std::mem::take(&mut plan.segments));
        segments.extend(plan.entries.iter().map(|planned| plan.segment(planned)));
        let running = &mut self.running;
        for planned in &plan.entries {
            running[planned.sequence].in_step = true;
        }
        let hook = self.config.fault_hook.as_ref();
        if let Some(hook) = hook {
            let tokens: Vec<&[u32]> = segments.iter().map(|segment| segment.tokens).collect();
            hook.call(Fault::Step(&tokens));
        }
        let panics = &mut self.totals.panics;
        let computed = executor.run(&segments, |segment, row, output| {
            let planned = &plan.entries[segment];
            let sequence = &mut running[planned.sequence];
            if sequence.failure.is_some() {
                return;
            }
            // A panic here leaves nothing half done but the sequence, which is given up.
            let used = catch_unwind(AssertUnwindSafe(|| {
                if let Some(hook) = hook {
                    hook.call(Fault::Answer(&sequence.tokens, planned.start + row));
                }
                let token = plan.tokens[planned.tokens.start + row];
                sequence.take_output(planned.work, (token, planned.start + row), output, limits);
            }));
            if used.is_err() {
                *panics += 1;
                sequence.failure = Some(EngineError::Panicked);
            }
        });
        plan.segments = plan::recycled(segments);
        if let Err(error) = computed {
            self.fail(plan, &error);
        }
    }

    /// Gives up the sequences of a step that a device could not compute.
    fn fail(&mut self, plan: &mut Plan, error: &candle_core::Error) {
        let failure = EngineError::Device {
            reason: error.to_string(),
        };
        for planned in plan.entries.drain(..) {
            let sequence = &mut self.running[planned.sequence];
            sequence.in_step = false;
            sequence.failure = Some(failure.clone());
        }
    }

    /// Books what was computed.
    fn settle(&mut self, plan: &Plan) {
        for planned in &plan.entries {
            let sequence = &mut self.running[planned.sequence];
            sequence.in_step = false;
            if sequence.failure.is_some() {
                continue;
            }
            let rows = planned.tokens.len();
            let end = planned.start + rows;
            sequence.spend(planned.work, rows);
            match planned.work {
                Work::Prompt => sequence.computed = end,
                Work::Decode => {
                    // The last token has just been sampled and has no keys and values yet.
                    sequence.computed = end.min(sequence.tokens.len() - 1);
                    let (drafted, accepted) = (rows - 1, sequence.computed - planned.start - 1);
                    if drafted > 0 {
                        self.totals.draft_tokens += drafted as u64;
                        self.totals.accepted_tokens += accepted as u64;
                        sequence.drafter.learn(drafted, accepted, sequence.done);
                    }
                }
                Work::Branch(continuation) => {
                    sequence.advance_branch(continuation, rows, &mut self.blocks);
                }
            }
            let charge = planned.work.charge() * rows as u64;
            self.tenants
                .charge(sequence.tenant, sequence.priority, charge);
            if self.config.prefix_cache {
                remember_blocks(sequence, &mut self.blocks);
            }
            sequence.clear_suspicion();
        }
    }

    /// Lets finished sequences go and puts those that gave way back in front of the queue.
    fn retire(&mut self) {
        let mut index = self.running.len();
        while index > 0 {
            index -= 1;
            let sequence = &mut self.running[index];
            if sequence.done || sequence.failure.is_some() {
                sequence.release(&mut self.blocks);
                let mut sequence = self.running.remove(index);
                self.tenants.leave(sequence.tenant, sequence.priority);
                match (sequence.failure.take(), &mut sequence.ticket) {
                    (Some(failure), _) => sequence.fail(failure),
                    (None, Some(ticket)) => ticket.complete(),
                    (None, None) => {}
                }
            } else if sequence.evicted {
                self.pause(index);
            }
        }
    }

    /// Everything that is not finished, on the way out.
    pub(crate) fn into_unfinished(self) -> impl Iterator<Item = Sequence> {
        self.running
            .into_iter()
            .chain(self.waiting.into_iter().flatten())
    }
}

/// Remembers a sequence's full computed blocks by their content.
fn remember_blocks(sequence: &mut Sequence, blocks: &mut BlockPool) {
    while (sequence.remembered + 1) * BLOCK_TOKENS <= sequence.computed {
        let at = sequence.remembered;
        let tokens = &sequence.tokens[at * BLOCK_TOKENS..(at + 1) * BLOCK_TOKENS];
        let parent = sequence.parent.clone();
        sequence.parent = blocks.remember(parent, tokens, sequence.table[at]);
        sequence.remembered += 1;
    }
}
