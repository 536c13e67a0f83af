//! What becomes of the rows that were computed for a sequence.

use super::{Progress, Sequence, Task};
use crate::batch::Output;
use crate::generation::GenerationLimits;
use crate::scheduler::Work;
use crate::scoring::Scoring;
use crate::workload::Rows;

impl Sequence {
    /// Takes what was computed for a token at its position, as part of that work.
    pub(crate) fn take_output(
        &mut self,
        work: Work,
        (token, position): (u32, usize),
        output: Output<'_>,
        limits: &GenerationLimits<'_>,
    ) {
        let logits = match output {
            Output::Logits(logits) => logits,
            Output::Hidden(hidden) => return self.take_hidden(position, hidden),
        };
        if work == Work::Decode && (self.done || !self.ends_with(token, position)) {
            // Behind a wrong guess, or behind the end, a row says nothing.
            return;
        }
        let progress = match (work, &mut self.task) {
            (Work::Branch(continuation), Task::Score(scoring)) => {
                let at = position - self.prompt_length;
                scoring.take_next(continuation, at, logits);
                if at + 2 < scoring.continuations[continuation].len() {
                    return;
                }
                self.finish_branch(continuation)
            }
            _ => self.take_logits(position, logits, limits),
        };
        self.done |= progress == Progress::Done;
    }

    /// Books computed rows with the workload.
    pub(crate) fn spend(&mut self, work: Work, rows: usize) {
        if let Some(ticket) = &mut self.ticket {
            let rows = rows as u64;
            ticket.spend(match work {
                Work::Prompt | Work::Branch(_) => Rows {
                    prompt: rows,
                    answer: 0,
                },
                Work::Decode => Rows {
                    prompt: 0,
                    answer: rows,
                },
            });
        }
    }

    /// Takes the hidden state of the token at `position`, `[hidden]`.
    fn take_hidden(&mut self, position: usize, hidden: &[f32]) {
        if let Task::Score(Scoring {
            pooling: Some(pooling),
            ..
        }) = &mut self.task
        {
            pooling.add(position, hidden);
        }
    }

    /// Takes the logits after the token at `position`.
    fn take_logits(
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
    fn finish_branch(&mut self, continuation: usize) -> Progress {
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
