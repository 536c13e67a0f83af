//! What the engine tells about itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::kernels::BLOCK_TOKENS;
use crate::scheduler::Scheduler;

/// What the engine is doing, as of its last step.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// Requests being worked on.
    pub running: usize,
    /// Requests waiting, those among them that gave way to others.
    pub waiting: usize,
    /// Cache blocks in use by running requests.
    pub kv_blocks_used: usize,
    /// Cache blocks in all.
    pub kv_blocks_total: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Prompt tokens taken from the prefix cache so far.
    pub prefix_hit_tokens: u64,
    /// Prompt tokens looked up in the prefix cache so far.
    pub prefix_query_tokens: u64,
    /// Steps so far.
    pub steps: u64,
    /// Rows of all steps so far.
    pub step_rows: u64,
    /// Tokens guessed so far by prompt lookup.
    pub draft_tokens: u64,
    /// Guessed tokens so far that were right.
    pub accepted_tokens: u64,
    /// Panics so far; each cost no more than the requests it was for.
    pub panics: u64,
    /// Running requests by adapter version; the base model is not listed.
    pub running_by_version: Vec<(String, usize)>,
    /// Waiting requests by adapter version; the base model is not listed.
    pub waiting_by_version: Vec<(String, usize)>,
}

/// Where the engine's thread leaves its numbers and others read them: no lock in a step, except when requests came or
/// went.
#[derive(Default)]
pub(crate) struct Board {
    kv_blocks: usize,
    /// Submitted and not yet running. Counted where requests are taken so that the bound holds without asking the
    /// thread.
    waiting: AtomicUsize,
    paused: AtomicUsize,
    running: AtomicUsize,
    kv_blocks_used: AtomicUsize,
    prefix_hit_tokens: AtomicU64,
    prefix_query_tokens: AtomicU64,
    steps: AtomicU64,
    step_rows: AtomicU64,
    draft_tokens: AtomicU64,
    accepted_tokens: AtomicU64,
    panics: AtomicU64,
    /// Running and waiting requests by adapter version.
    census: Mutex<[Vec<(String, usize)>; 2]>,
}

impl Board {
    pub(crate) fn new(kv_blocks: usize) -> Self {
        Self {
            kv_blocks,
            ..Self::default()
        }
    }

    /// Takes a place in the queue, or returns how many are taken when that is `limit`.
    pub(crate) fn take_place(&self, limit: usize) -> Result<(), usize> {
        let place = |waiting| (waiting < limit).then_some(waiting + 1);
        let taken = (self.waiting).fetch_update(Ordering::AcqRel, Ordering::Acquire, place);
        taken.map(|_| ())
    }

    /// Shows how many requests run now and gives the places in the queue back that they left, in this order: nobody may see a request
    /// neither wait nor run.
    pub(crate) fn admitted(&self, running: usize, places: usize) {
        self.running.store(running, Ordering::Relaxed);
        self.free_places(places);
    }

    /// Gives places in the queue back.
    pub(crate) fn free_places(&self, places: usize) {
        self.waiting.fetch_sub(places, Ordering::AcqRel);
    }

    /// Shows the state between two steps.
    pub(crate) fn publish(&self, scheduler: &mut Scheduler) {
        let blocks = scheduler.blocks();
        let used = blocks.total() - blocks.available();
        let totals = scheduler.totals();
        self.running.store(scheduler.running(), Ordering::Relaxed);
        self.kv_blocks_used.store(used, Ordering::Relaxed);
        let counters = [
            (&self.prefix_hit_tokens, totals.prefix_hit_tokens),
            (&self.prefix_query_tokens, totals.prefix_query_tokens),
            (&self.steps, totals.steps),
            (&self.step_rows, totals.step_rows),
            (&self.draft_tokens, totals.draft_tokens),
            (&self.accepted_tokens, totals.accepted_tokens),
            (&self.panics, totals.panics),
        ];
        for (counter, total) in counters {
            counter.store(total, Ordering::Relaxed);
        }
        if scheduler.tenants().take_changed() {
            self.paused.store(scheduler.paused(), Ordering::Relaxed);
            let census = scheduler.tenants().census();
            *self.census.lock().unwrap_or_else(PoisonError::into_inner) = census;
        }
    }

    pub(crate) fn read(&self) -> Statistics {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        // Before the running ones: whoever has left the queue by now is counted among those.
        let waiting = self.waiting.load(Ordering::Acquire);
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let census = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        let [running_by_version, waiting_by_version] = census.clone();
        Statistics {
            running: count(&self.running),
            waiting: waiting + count(&self.paused),
            kv_blocks_used: count(&self.kv_blocks_used),
            kv_blocks_total: self.kv_blocks,
            block_size: BLOCK_TOKENS,
            prefix_hit_tokens: total(&self.prefix_hit_tokens),
            prefix_query_tokens: total(&self.prefix_query_tokens),
            steps: total(&self.steps),
            step_rows: total(&self.step_rows),
            draft_tokens: total(&self.draft_tokens),
            accepted_tokens: total(&self.accepted_tokens),
            panics: total(&self.panics),
            running_by_version,
            waiting_by_version,
        }
    }
}
