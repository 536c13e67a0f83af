//! Taking over blocks that an earlier sequence of the same adapter version computed.

use crate::kernels::BLOCK_TOKENS;

use super::Scheduler;

impl Scheduler {
    /// Takes over remembered blocks at a sequence's block boundary.
    pub(super) fn reuse_prefix(&mut self, index: usize) {
        let sequence = &mut self.running[index];
        let at_boundary = sequence.computed == sequence.remembered * BLOCK_TOKENS;
        let reusable = sequence.reusable_prefix();
        if !self.config.prefix_cache || reusable <= sequence.computed || !at_boundary {
            return;
        }
        let rest = &sequence.tokens[sequence.computed..reusable];
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
        if !sequence.resumed {
            // What a sequence finds again after it gave way is its own work.
            sequence.cached_tokens += tokens;
            if let Some(ticket) = &mut sequence.ticket {
                ticket.spare(tokens);
            }
            self.totals.prefix_hit_tokens += tokens as u64;
        }
    }
}
