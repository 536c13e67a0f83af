//! Who may run: slots and blocks for waiting requests.
//!
//! Interactive requests come strictly before background ones and may take their places. Within a priority the adapter
//! with the fewest running requests is next, then the one that has had the least. An adapter with nothing running may
//! take a place from one with several, so that a crowd on one adapter never keeps another out.

use std::time::Instant;

use crate::error::EngineError;
use crate::kernels::BLOCK_TOKENS;
use crate::request::Priority;
use crate::sequence::Sequence;

use super::Scheduler;

impl Scheduler {
    /// Lets go of requests that nobody wants any more, takes waiting ones in while there is room, and returns how many
    /// have left the queue since they were submitted.
    pub(crate) fn admit(&mut self) -> usize {
        let left = self.drop_given_up(Instant::now());
        match self.isolate_suspect() {
            true => left,
            false => left + self.take_in(),
        }
    }

    fn drop_given_up(&mut self, now: Instant) -> usize {
        let mut left = 0;
        for class in 0..self.waiting.len() {
            let mut place = 0;
            while let Some(sequence) = self.waiting[class].get(place) {
                if !sequence.is_given_up(now) {
                    place += 1;
                    continue;
                }
                if let Some(sequence) = self.waiting[class].remove(place) {
                    self.tenants.withdraw(sequence.tenant, sequence.priority);
                    left += usize::from(sequence.queued);
                    give_up(sequence, now);
                }
            }
        }
        let mut index = self.running.len();
        while index > 0 {
            index -= 1;
            if self.running[index].is_given_up(now) {
                let mut sequence = self.running.remove(index);
                sequence.release(&mut self.blocks);
                self.tenants.leave(sequence.tenant, sequence.priority);
                give_up(sequence, now);
            }
        }
        left
    }

    fn take_in(&mut self) -> usize {
        let mut left = 0;
        for priority in [Priority::Interactive, Priority::Background] {
            while let Some(place) = self.next_waiting(priority) {
                let Some(place) = self.make_room(priority, place) else {
                    // Nothing smaller or less urgent overtakes, or the large would never run.
                    return left;
                };
                let Some(mut sequence) = self.waiting[priority as usize].remove(place) else {
                    break;
                };
                if std::mem::take(&mut sequence.queued) {
                    left += 1;
                    if self.config.prefix_cache && sequence.reusable_prefix() > 0 {
                        self.totals.prefix_query_tokens += sequence.prompt_length as u64;
                    }
                }
                self.tenants.admit(sequence.tenant, priority);
                self.running.push(sequence);
            }
        }
        left
    }

    /// The place in the queue of whoever is next.
    fn next_waiting(&self, priority: Priority) -> Option<usize> {
        let queue = self.waiting[priority as usize].iter().enumerate();
        let key = |&(place, sequence): &(usize, &Sequence)| {
            let tenant = sequence.tenant;
            let running = self.tenants.running(tenant, priority);
            (running, self.tenants.service(tenant, priority), place)
        };
        queue.min_by_key(key).map(|(place, _)| place)
    }

    /// Finds a slot and blocks for a waiting request, from others that give way where they must; returns its place in
    /// the queue, which those that gave way may have moved.
    fn make_room(&mut self, priority: Priority, mut place: usize) -> Option<usize> {
        let candidate = &self.waiting[priority as usize][place];
        let (needed, tenant) = (self.blocks_needed(candidate), candidate.tenant);
        let most = self.unpromised() + self.blocks_of_victims(priority, tenant);
        if needed > most && !self.running.is_empty() {
            return None;
        }
        loop {
            let slot = self.running.len() < self.config.max_running;
            if slot && (self.running.is_empty() || needed <= self.unpromised()) {
                return Some(place);
            }
            let victim = self.admission_victim(priority, tenant)?;
            place += usize::from(self.running[victim].priority == priority);
            self.pause(victim);
        }
    }

    /// Blocks a waiting request takes: for its tokens, and one to go on with.
    fn blocks_needed(&self, sequence: &Sequence) -> usize {
        let all = sequence.tokens.len().div_ceil(BLOCK_TOKENS) + 1;
        if all <= self.unpromised() || !self.config.prefix_cache {
            return all;
        }
        // Blocks that others use anyway cost nothing.
        let root = sequence.root();
        all - self
            .blocks
            .shared_prefix(root, &sequence.tokens[..sequence.reusable_prefix()])
    }

    /// Free blocks that no running sequence will need for the tokens it has.
    fn unpromised(&self) -> usize {
        let promised = self.running.iter().map(|sequence| {
            let needed = sequence.tokens.len() / BLOCK_TOKENS + 1;
            needed.saturating_sub(sequence.table.len())
        });
        let promised = promised.sum();
        self.blocks.available().saturating_sub(promised)
    }
}

/// Tells whoever still listens that the time is over.
fn give_up(sequence: Sequence, now: Instant) {
    if sequence.is_late(now) {
        sequence.fail(EngineError::DeadlineExceeded);
    }
}
