//! What the engine tells about itself.

use std::collections::BTreeMap;

use crate::kernels::BLOCK_TOKENS;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;

/// What the engine is doing, as of its last step.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// Requests being worked on.
    pub running: usize,
    /// Requests waiting.
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
    /// Running requests by adapter version; the base model is not listed.
    pub running_by_version: Vec<(String, usize)>,
    /// Waiting requests by adapter version; the base model is not listed.
    pub waiting_by_version: Vec<(String, usize)>,
}

impl Statistics {
    /// The state after a step of `rows` rows, counted on from `self`; `waiting` is left to whoever counts submissions.
    pub(crate) fn after_step(&self, scheduler: &Scheduler, rows: usize) -> Self {
        let blocks = scheduler.blocks();
        let (prefix_hit_tokens, prefix_query_tokens) = scheduler.prefix_tokens();
        Self {
            running: scheduler.running().len(),
            waiting: 0,
            kv_blocks_used: blocks.total() - blocks.available(),
            kv_blocks_total: blocks.total(),
            block_size: BLOCK_TOKENS,
            prefix_hit_tokens,
            prefix_query_tokens,
            steps: self.steps + u64::from(rows > 0),
            step_rows: self.step_rows + rows as u64,
            running_by_version: by_version(scheduler.running().iter()),
            waiting_by_version: by_version(scheduler.waiting()),
        }
    }
}

fn by_version<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for adapter in sequences.filter_map(|sequence| sequence.adapter.as_ref()) {
        *counts.entry(adapter.version().as_str()).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(version, count)| (version.to_owned(), count))
        .collect()
}
