//! Who gives way when slots or blocks run out. Nothing is lost: a sequence keeps its tokens and is computed again.

use crate::kernels::BLOCK_TOKENS;
use crate::request::Priority;

use super::Scheduler;
use super::plan::Plan;

impl Scheduler {
    /// Ranks the running sequences: interactive before background, then by how many older ones the same adapter has,
    /// then by age. Within a step a sequence takes blocks only from those ranked below it, so the first always gets
    /// on, and a crowd on one adapter gives way before another adapter's only request does.
    pub(super) fn rank(&mut self) {
        self.tenants.count_anew();
        for (index, sequence) in self.running.iter_mut().enumerate() {
            let position = self.tenants.count(sequence.tenant, sequence.priority);
            sequence.rank = (sequence.priority, position, index);
        }
    }

    /// A block for a running sequence, taken from one ranked below it if need be.
    pub(super) fn allocate(&mut self, index: usize, plan: &mut Plan) -> Option<u32> {
        loop {
            if let Some(block) = self.blocks.allocate() {
                return Some(block);
            }
            let own = self.running[index].rank;
            let others = self.running.iter().enumerate();
            let (victim, _) = others
                .filter(|(_, other)| other.rank > own && !other.table.is_empty())
                .max_by_key(|(_, other)| other.rank)?;
            plan.entries.retain(|entry| entry.sequence != victim);
            self.running[victim].evicted = true;
            self.running[victim].release(&mut self.blocks);
        }
    }

    /// Takes a running sequence's blocks and puts it in front of the queue.
    pub(super) fn pause(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        sequence.release(&mut self.blocks);
        sequence.evicted = false;
        sequence.resumed = true;
        self.tenants.pause(sequence.tenant, sequence.priority);
        self.waiting[sequence.priority as usize].push_front(sequence);
    }

    /// The running sequence that should give its place to a waiting one of that priority and tenant, if any should.
    pub(super) fn admission_victim(&self, priority: Priority, tenant: usize) -> Option<usize> {
        let running = self.running.iter().enumerate();
        let victims = running.filter(|&(index, _)| self.gives_way(index, priority, tenant));
        victims
            .max_by_key(|&(index, sequence)| {
                let crowd = self.tenants.running(sequence.tenant, sequence.priority);
                (sequence.priority, crowd, index)
            })
            .map(|(index, _)| index)
    }

    /// Most blocks that could be had from those who give way.
    pub(super) fn blocks_of_victims(&self, priority: Priority, tenant: usize) -> usize {
        let victims = (0..self.running.len()).filter(|&i| self.gives_way(i, priority, tenant));
        let blocks = victims.map(|index| {
            let sequence = &self.running[index];
            let promised = sequence.tokens.len() / BLOCK_TOKENS + 1;
            promised.max(sequence.table.len())
        });
        blocks.sum()
    }

    /// Whether a running sequence gives way: a background one to an interactive one; one of several of its adapter to
    /// the first of another.
    fn gives_way(&self, index: usize, priority: Priority, tenant: usize) -> bool {
        let sequence = &self.running[index];
        let crowd = self.tenants.running(sequence.tenant, priority);
        sequence.priority > priority
            || sequence.priority == priority
                && crowd >= 2
                && self.tenants.running(tenant, priority) == 0
    }
}
