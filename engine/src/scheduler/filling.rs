//! What goes into a step: every running answer's next token with the guesses that pay, then prompts and continuations
//! in the order of what their adapters have had.

use crate::batch::Wanted;
use crate::executor::Executor;
use crate::generation::GenerationLimits;
use crate::kernels::BLOCK_TOKENS;
use crate::request::Priority;
use crate::sequence::Task;

use super::Scheduler;
use super::plan::{Plan, Planned, Work};

/// Prompt rows that an adapter gets before it is asked again who has had the least.
const QUANTUM: usize = 16;

/// What interactive requests want of a step.
#[derive(Default)]
struct Users {
    /// Answers that are being written.
    streams: usize,
    /// Requests with prompts or continuations to compute.
    prompts: usize,
    /// Rows of these.
    rows: usize,
}

impl Scheduler {
    /// Chooses the rows of the next step.
    pub(super) fn fill(
        &mut self,
        plan: &mut Plan,
        executor: &mut Executor,
        limits: &GenerationLimits<'_>,
    ) {
        self.rank();
        let users = self.users();
        self.plan_decodes(&users, plan, limits);
        let room = self.room(&users, plan);
        self.plan_prompts(room, plan, executor);
    }

    /// What interactive requests want of the next step.
    fn users(&self) -> Users {
        let mut users = Users::default();
        for sequence in &self.running {
            match (sequence.priority, sequence.is_decoding()) {
                (Priority::Background, _) => {}
                (Priority::Interactive, true) => users.streams += 1,
                (Priority::Interactive, false) => {
                    users.prompts += 1;
                    users.rows += sequence.pending_rows();
                }
            }
        }
        users
    }

    /// Prompt rows of the next step. Users' prompts keep to what the streams beside them bear; background work gets nothing of a
    /// step that a user's prompt waits for, and alone it keeps steps short, so that whoever comes is soon served.
    fn room(&self, users: &Users, plan: &Plan) -> usize {
        let decodes = plan.decode_rows();
        let room = self.config.step_tokens.saturating_sub(decodes).max(1);
        let most = match (users.streams, users.prompts) {
            (0, 0) => self.pace.background_rows(decodes),
            (0, _) => users.rows,
            (streams, prompts) => {
                let own = self.decode_rows_of_users(plan);
                let most = (self.pace).prompt_rows_beside(decodes, (own, streams), prompts);
                match prompts {
                    0 => most,
                    _ => most.min(users.rows),
                }
            }
        };
        room.min(most.max(1))
    }

    fn decode_rows_of_users(&self, plan: &Plan) -> usize {
        let entries = plan.entries.iter();
        let own = entries
            .filter(|planned| self.running[planned.sequence].priority == Priority::Interactive);
        own.map(|planned| planned.tokens.len()).sum()
    }

    fn plan_decodes(&mut self, users: &Users, plan: &mut Plan, limits: &GenerationLimits<'_>) {
        let running = self.running.iter();
        let decodes = running.filter(|sequence| sequence.is_decoding()).count();
        let price = self.pace.price_of_guess(decodes);
        let mut spare = self.config.step_tokens.saturating_sub(decodes);
        let mut background = match (users.streams, users.prompts) {
            (0, 0) => usize::MAX,
            (_, 0) => self.pace.background_decodes_beside(users.streams),
            _ => 0,
        };
        for index in 0..self.running.len() {
            let sequence = &mut self.running[index];
            if !sequence.is_decoding() || sequence.evicted {
                continue;
            }
            if sequence.priority == Priority::Background {
                if background == 0 {
                    continue;
                }
                background -= 1;
            }
            plan.guesses.clear();
            let most = sequence.most_guesses(limits.max_model_len);
            let most = most.min(self.config.draft_tokens).min(spare);
            if most > 0 {
                let tokens = &sequence.tokens;
                let guesses = &mut plan.guesses;
                sequence.drafter.propose(tokens, price, most, guesses);
            }
            let planned = self.plan_tokens(index, 1, Work::Decode, plan);
            spare -= planned.saturating_sub(1);
        }
    }

    /// Shares `room` rows among the sequences with prompts or continuations to compute.
    fn plan_prompts(&mut self, mut room: usize, plan: &mut Plan, executor: &mut Executor) {
        for sequence in &mut self.running {
            (sequence.granted, sequence.tried) = (0, false);
        }
        // A sequence that finds no blocks leaves its rows to the others.
        while self.grant(room) {
            for index in 0..self.running.len() {
                let sequence = &mut self.running[index];
                let granted = std::mem::take(&mut sequence.granted);
                if granted == 0 || sequence.evicted {
                    continue;
                }
                sequence.tried = true;
                let planned = if sequence.computed < sequence.tokens.len() {
                    self.plan_tokens(index, granted, Work::Prompt, plan)
                } else {
                    self.plan_branches(index, granted, plan, executor)
                };
                room -= planned;
            }
            self.tenants.clear_grants();
        }
    }

    /// Promises `room` rows, a quantum at a time, to whoever is next; returns whether anybody wanted any.
    fn grant(&mut self, mut room: usize) -> bool {
        let mut granted = false;
        while room > 0 {
            let Some(index) = self.next_prompt() else {
                break;
            };
            let sequence = &self.running[index];
            if sequence.granted == 0 && sequence.computed < sequence.tokens.len() {
                self.reuse_prefix(index);
            }
            let sequence = &mut self.running[index];
            let rows = (sequence.pending_rows() - sequence.granted)
                .min(QUANTUM)
                .min(room);
            sequence.granted += rows;
            self.tenants.grant(sequence.tenant, rows as u64);
            room -= rows;
            granted = true;
        }
        granted
    }

    /// The running sequence whose prompt is next: interactive before background, then by what its adapter has had,
    /// then by age.
    fn next_prompt(&self) -> Option<usize> {
        let running = self.running.iter().enumerate();
        let candidates = running.filter(|(_, sequence)| {
            !sequence.tried
                && !sequence.evicted
                && !sequence.is_decoding()
                && sequence.pending_rows() > sequence.granted
        });
        let next = candidates.min_by_key(|&(index, sequence)| {
            let (tenant, priority) = (sequence.tenant, sequence.priority);
            (priority, self.tenants.service(tenant, priority), index)
        });
        next.map(|(index, _)| index)
    }

    /// Plans up to `room` of a sequence's tokens and the plan's guesses behind them, if blocks for them can be had;
    /// returns how many rows that is.
    fn plan_tokens(&mut self, index: usize, room: usize, work: Work, plan: &mut Plan) -> usize {
        let start = self.running[index].computed;
        let end = self.running[index].tokens.len().min(start + room);
        while self.running[index].table.len() < end.div_ceil(BLOCK_TOKENS) {
            match self.allocate(index, plan) {
                Some(block) => self.running[index].table.push(block),
                None => return 0,
            }
        }
        let sequence = &mut self.running[index];
        if sequence.queue_seconds.is_none() {
            sequence.queue_seconds = Some(sequence.submitted.elapsed().as_secs_f64());
        }
        let wanted = sequence.wanted(end);
        let first = plan.tokens.len();
        plan.tokens.extend_from_slice(&sequence.tokens[start..end]);
        let mut planned = Planned {
            sequence: index,
            tenant: sequence.tenant,
            work,
            tokens: first..plan.tokens.len(),
            start,
            table: 0..0,
            wanted,
            hidden_from: sequence.hidden_from(),
            adapter: sequence.adapter.clone(),
        };
        if work == Work::Decode && !plan.guesses.is_empty() {
            self.add_guesses(index, end, plan);
            planned.tokens.end = plan.tokens.len();
            planned.wanted = Wanted::Every;
        }
        planned.table = plan.add_table(&self.running[index].table, &[]);
        let rows = planned.tokens.len();
        plan.entries.push(planned);
        rows
    }

    /// Appends the plan's guesses to its tokens, as many as fit blocks that nobody has to give up.
    fn add_guesses(&mut self, index: usize, end: usize, plan: &mut Plan) {
        let table = &mut self.running[index].table;
        let wanted = (end + plan.guesses.len()).div_ceil(BLOCK_TOKENS);
        while table.len() < wanted {
            match self.blocks.allocate() {
                Some(block) => table.push(block),
                None => break,
            }
        }
        let fitting = (table.len() * BLOCK_TOKENS - end).min(plan.guesses.len());
        plan.tokens.extend_from_slice(&plan.guesses[..fitting]);
    }

    /// Plans up to `room` tokens of the continuations that are scored behind a computed prompt, as many as blocks can
    /// be had for; returns how many rows that is.
    fn plan_branches(
        &mut self,
        index: usize,
        room: usize,
        plan: &mut Plan,
        executor: &mut Executor,
    ) -> usize {
        let mut rows = 0;
        let mut place = 0;
        while rows < room {
            let Some(&continuation) = self.running[index].pending_branches().get(place) else {
                break;
            };
            let planned = self.plan_branch((index, continuation), room - rows, plan, executor);
            if planned == 0 {
                break;
            }
            rows += planned;
            place += 1;
        }
        rows
    }

    fn plan_branch(
        &mut self,
        (index, continuation): (usize, usize),
        room: usize,
        plan: &mut Plan,
        executor: &mut Executor,
    ) -> usize {
        let branch = self.running[index].open_branch(continuation);
        let sequence = &self.running[index];
        let prompt_length = sequence.prompt_length;
        let shared = prompt_length / BLOCK_TOKENS;
        let start = sequence.branches[branch].computed;
        let Task::Score(scoring) = &sequence.task else {
            return 0;
        };
        let end = (scoring.continuations[continuation].len() - 1).min(start + room);
        let own = (prompt_length + end).div_ceil(BLOCK_TOKENS) - shared;
        while self.running[index].branches[branch].blocks.len() < own {
            let Some(block) = self.allocate(index, plan) else {
                return 0;
            };
            let sequence = &mut self.running[index];
            let blocks = &mut sequence.branches[branch].blocks;
            if blocks.is_empty() && !prompt_length.is_multiple_of(BLOCK_TOKENS) {
                executor.copy_block(sequence.table[shared], block);
            }
            blocks.push(block);
        }
        let sequence = &self.running[index];
        let Task::Score(scoring) = &sequence.task else {
            return 0;
        };
        let first = plan.tokens.len();
        let tokens = &scoring.continuations[continuation][start..end];
        plan.tokens.extend_from_slice(tokens);
        let blocks = &sequence.branches[branch].blocks;
        let table = plan.add_table(&sequence.table[..shared], blocks);
        plan.entries.push(Planned {
            sequence: index,
            tenant: sequence.tenant,
            work: Work::Branch(continuation),
            tokens: first..first + end - start,
            start: prompt_length + start,
            table,
            wanted: Wanted::Every,
            hidden_from: usize::MAX,
            adapter: sequence.adapter.clone(),
        });
        end - start
    }
}
