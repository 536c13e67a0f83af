//! The scheduler and the executor driven step by step on the test's own thread, with a clock that is made up.

use tokio::sync::oneshot;

use super::*;
use crate::executor::Executor;
use crate::generation::{Generation, GenerationLimits};
use crate::pooling::Pooling;
use crate::scheduler::Scheduler;
use crate::scoring::Scoring;
use crate::sequence::{Sequence, Task};
use crate::{EngineError, ScoreRequest, ScoreResult, Tokenizer};

/// Seconds of a step on a machine that needs 4 ms for the weights, 1 ms for a decode row and 0.5 ms for a prompt row.
pub(super) fn seconds(decodes: usize, prompts: usize) -> f64 {
    (4.0 + decodes as f64 + 0.5 * prompts as f64) * 1e-3
}

/// A model in a folder that lives as long as it.
pub(super) struct Driven {
    pub(super) executor: Executor,
    pub(super) scheduler: Scheduler,
    pub(super) base: BaseModel,
    config: EngineConfig,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    _directory: tempfile::TempDir,
}

/// A request as the tests write it down.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Generate(GenerateRequest),
    Score(ScoreRequest),
    Logits(LogitsRequest),
}

/// Where an answer will arrive.
pub(super) enum Awaited {
    Generate(UnboundedReceiver<GenerateEvent>),
    Score(oneshot::Receiver<Result<ScoreResult, EngineError>>),
    Logits(oneshot::Receiver<Result<Vec<f32>, EngineError>>),
}

/// What was answered; how much of it came from the cache is left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answered {
    Generate(Answer),
    Score(ScoreResult),
    Logits(Vec<f32>),
}

impl Driven {
    pub(super) fn new(config: EngineConfig, kernels: KernelChoice, threads: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = TinyModel::write(directory.path(), 7);
        let options = LoadOptions {
            threads,
            ..options(kernels, false)
        };
        let model = Model::load(&path, &options).expect("the tiny model loads");
        let context = model.config().context_length.min(config.kv_tokens);
        Self {
            scheduler: fresh(&config),
            base: model.base().clone(),
            tokenizer: Arc::clone(model.tokenizer()),
            executor: Executor::new(model, config.kv_blocks(), context).expect("a CPU has room"),
            context,
            config,
            _directory: directory,
        }
    }

    /// Forgets everything that was computed.
    pub(super) fn forget(&mut self) {
        self.scheduler = fresh(&self.config);
    }

    pub(super) fn ask(&mut self, asked: Asked) -> Awaited {
        match asked {
            Asked::Generate(request) => Awaited::Generate(self.generate(request)),
            Asked::Score(request) => {
                let (reply, receiver) = oneshot::channel();
                let hidden = self.base.shape(Projection::Query).inputs;
                let pooling = request.pooled_from;
                let pooling = pooling.map(|from| Pooling::new(from, hidden));
                let task = Task::Score(Scoring::new(request.continuations, pooling, reply));
                self.enqueue(request.prompt, request.adapter, request.priority, task);
                Awaited::Score(receiver)
            }
            Asked::Logits(request) => {
                let (reply, receiver) = oneshot::channel();
                let task = Task::Logits(Some(reply));
                self.enqueue(request.prompt, request.adapter, request.priority, task);
                Awaited::Logits(receiver)
            }
        }
    }

    pub(super) fn generate(
        &mut self,
        request: GenerateRequest,
    ) -> UnboundedReceiver<GenerateEvent> {
        let (events, receiver) = tokio::sync::mpsc::unbounded_channel();
        let (prompt, adapter) = (request.prompt.clone(), request.adapter.clone());
        let priority = request.priority;
        let generation = Generation::new(request, events, &self.tokenizer);
        let task = Task::Generate(Box::new(generation));
        self.enqueue(prompt, adapter, priority, task);
        receiver
    }

    fn enqueue(
        &mut self,
        prompt: Vec<u32>,
        adapter: Option<Arc<PreparedAdapter>>,
        priority: Priority,
        task: Task,
    ) {
        let sequence = Sequence::new(prompt, adapter, priority, task);
        self.scheduler.enqueue(sequence);
    }

    /// One step; returns its rows.
    pub(super) fn step(&mut self) -> usize {
        let limits = GenerationLimits {
            tokenizer: &self.tokenizer,
            max_model_len: self.context,
        };
        self.scheduler.admit();
        self.scheduler.step(&mut self.executor, &limits)
    }

    /// Steps until nothing is left to do; a schedule that gets nowhere fails the test.
    pub(super) fn finish(&mut self) {
        let mut steps = 0;
        while !self.scheduler.is_idle() {
            self.step();
            steps += 1;
            assert!(steps < 20_000, "the requests never end");
        }
        let blocks = self.scheduler.blocks();
        assert_eq!(blocks.available(), blocks.total(), "blocks were lost");
    }

    /// The answer of a request that has the engine to itself.
    pub(super) fn alone(&mut self, asked: Asked) -> Answered {
        self.forget();
        let awaited = self.ask(asked);
        self.finish();
        awaited.answer()
    }
}

impl Awaited {
    /// The answer of a request that is finished.
    pub(super) fn answer(self) -> Answered {
        match self {
            Self::Generate(events) => Answered::Generate(Answer {
                cached_tokens: 0,
                ..collect(events)
            }),
            Self::Score(mut reply) => {
                let result = reply.try_recv().expect("an answer").expect("a result");
                Answered::Score(ScoreResult {
                    cached_tokens: 0,
                    ..result
                })
            }
            Self::Logits(mut reply) => {
                Answered::Logits(reply.try_recv().expect("an answer").expect("logits"))
            }
        }
    }
}

fn fresh(config: &EngineConfig) -> Scheduler {
    let clock = |_, decodes, prompts| seconds(decodes, prompts);
    Scheduler::new(config.clone()).with_clock(clock)
}
