//! After a panic: which sequence was it, and how the others go on.
//!
//! A panic while one sequence's logits are used is that sequence's. One in the computation of a step over several may be anybody's:
//! they are suspected and computed again, one at a time, until each has passed the place where it was. Whoever panics alone is
//! to blame. A sequence keeps its tokens, and rows do not depend on their company, so the others' answers stay the same.

use crate::error::EngineError;
use crate::kv::BlockPool;
use crate::sequence::{Sequence, Task};

use super::Scheduler;
use super::plan::Plan;
use super::tenants::Tenants;

/// Panics of steps with others after which a sequence that never panicked alone is given up.
const MOST_PANICKED_STEPS: usize = 3;

impl Scheduler {
    /// Puts everything back to where a step can begin, after a turn that panicked anywhere; returns whether a sequence is to blame or
    /// suspected. Nothing that the turn may have left half done is kept: blocks, tenants and plans are made anew.
    pub(crate) fn recover(&mut self) -> bool {
        self.totals.panics += 1;
        self.blocks = BlockPool::new(self.config.kv_blocks());
        self.tenants = Tenants::anew();
        self.plan = Plan::default();
        let mut sequences = std::mem::take(&mut self.running);
        let company = sequences.iter().filter(|sequence| sequence.in_step).count();
        for sequence in &mut sequences {
            sequence.begin_anew();
            if std::mem::take(&mut sequence.in_step) {
                sequence.suspect(company);
            }
        }
        let [interactive, background] = std::mem::take(&mut self.waiting);
        sequences.extend(interactive);
        sequences.extend(background);
        for sequence in sequences {
            match (&sequence.failure, sequence.done) {
                (Some(failure), _) => {
                    let failure = failure.clone();
                    sequence.fail(failure);
                }
                (None, true) => {}
                (None, false) => self.enqueue(sequence),
            }
        }
        company > 0
    }

    /// Whether a suspected sequence runs or is next: it has the engine to itself, and the others wait.
    pub(super) fn isolate_suspect(&mut self) -> bool {
        let suspected = |sequence: &Sequence| sequence.suspected_until.is_some();
        if self.totals.panics == 0 {
            return false;
        }
        if self.running.iter().any(suspected) {
            return true;
        }
        let queues = self.waiting.iter().enumerate();
        let next =
            queues.filter_map(|(class, queue)| Some((class, queue.iter().position(suspected)?)));
        let Some((class, place)) = next.min_by_key(|&(class, _)| class) else {
            return false;
        };
        let Some(sequence) = self.waiting[class].remove(place) else {
            return false;
        };
        while !self.running.is_empty() {
            self.pause(self.running.len() - 1);
        }
        self.tenants.admit(sequence.tenant, sequence.priority);
        self.running.push(sequence);
        true
    }
}

impl Sequence {
    /// Forgets its blocks, which are nobody's any more; it is to be computed from its beginning.
    fn begin_anew(&mut self) {
        self.table.clear();
        self.branches.clear();
        self.computed = 0;
        self.remembered = 0;
        self.parent = self.root();
        self.evicted = false;
        self.resumed = true;
    }

    /// Notes that a step over so many sequences, this one among them, panicked.
    fn suspect(&mut self, company: usize) {
        self.panicked_steps += 1;
        if company == 1 || self.panicked_steps > MOST_PANICKED_STEPS {
            self.failure = Some(EngineError::Panicked);
        }
        self.suspected_until = Some(self.tokens.len());
    }

    /// Clears it of suspicion once it is past the place where it was. What is scored has no such place before its end.
    pub(super) fn clear_suspicion(&mut self) {
        let generates = matches!(self.task, Task::Generate(_));
        let passed = |until: usize| self.done || generates && self.computed >= until;
        if self.suspected_until.is_some_and(passed) {
            self.suspected_until = None;
        }
    }
}
