//! The handle to the engine and the thread behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc as thread_channel};
use std::thread::JoinHandle;

use adapters::{Adapter, BaseModel};
use tokio::sync::{mpsc, oneshot, watch};

use crate::adapter::PreparedAdapter;
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::effect::ProbeLogits;
use crate::error::{EngineError, LoadError, SubmitError};
use crate::executor::Executor;
use crate::faults::FaultHook;
use crate::generation::Generation;
use crate::kernels::BLOCK_TOKENS;
use crate::model::Model;
use crate::pooling::Pooling;
use crate::request::{
    GenerateEvent, GenerateRequest, LogitsRequest, Priority, ScoreRequest, ScoreResult,
};
use crate::scoring::Scoring;
use crate::sequence::{Sequence, Task};
use crate::shared::Shared;
use crate::statistics::{Board, Statistics};
use crate::thread;
use crate::tokenizer::Tokenizer;
use crate::workload::{Rows, Workload};

/// How much the engine takes on.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Most requests that wait; one more is refused.
    pub max_queue: usize,
    /// Tokens that users' requests may be expected to need in all; one more is refused unless it is the only one.
    pub max_queue_tokens: usize,
    /// Most requests that are worked on at a time.
    pub max_running: usize,
    /// Tokens whose keys and values fit the cache.
    pub kv_tokens: usize,
    /// Most rows of a step; longer prompts are computed in chunks.
    pub step_tokens: usize,
    /// Whether prompts take over keys and values that earlier requests of the same adapter version computed.
    pub prefix_cache: bool,
    /// Most tokens of an answer that are guessed at a time by looking them up in what stands before them; 0 guesses
    /// none. Guesses change the time an answer takes and nothing else.
    pub draft_tokens: usize,
    /// Called by the engine's thread before what it does, so that a test can make it fail.
    pub fault_hook: Option<FaultHook>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_queue: 1024,
            max_queue_tokens: 1 << 20,
            max_running: 64,
            kv_tokens: 8192,
            step_tokens: 256,
            prefix_cache: true,
            draft_tokens: 8,
            fault_hook: None,
        }
    }
}

impl EngineConfig {
    /// Blocks of the cache: one more than the tokens need, for the copied last block of a scored continuation.
    pub(crate) fn kv_blocks(&self) -> usize {
        self.kv_tokens.div_ceil(BLOCK_TOKENS).max(1) + 1
    }

    /// Whether a request of that many tokens can ever run.
    fn fits(&self, tokens: usize) -> bool {
        // A scored continuation copies the prompt's last block.
        tokens.div_ceil(BLOCK_TOKENS) < self.kv_blocks()
    }
}

/// A handle to the engine; clones share it. The thread stops when the last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    // Dropped before the joiner, so that the thread sees its channel close.
    submissions: thread_channel::Sender<Sequence>,
    ended: watch::Receiver<()>,
    _thread: Arc<JoinOnDrop>,
}

struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic has been printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Starts the thread that owns the model.
    ///
    /// # Errors
    ///
    /// When a device has no room for the cache.
    pub fn start(model: Model, config: EngineConfig) -> Result<Self, LoadError> {
        let shared = Arc::new(Shared {
            model: model.config().clone(),
            base: model.base().clone(),
            kernels: model.kernels(),
            resolution: model.resolution(),
            tokenizer: Arc::clone(model.tokenizer()),
            chat_template: model.chat_template().cloned(),
            draining: AtomicBool::new(false),
            board: Board::new(config.kv_blocks()),
            workload: Arc::new(Workload::new(config.max_running)),
            base_probes: OnceLock::new(),
            config,
        });
        let (blocks, positions) = (shared.config.kv_blocks(), shared.max_model_len());
        let device = model.kernels();
        let executor =
            Executor::new(model, blocks, positions).map_err(|error| LoadError::Device {
                device,
                reason: error.to_string(),
            })?;
        let (submissions, inbox) = thread_channel::channel();
        let worker = Arc::clone(&shared);
        let (alive, ended) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                // Dropped with the thread, however it ends, and after the inbox: who hears of the end can submit nothing any more.
                let _alive = alive;
                let inbox = inbox;
                thread::run(executor, &worker, &inbox);
            })
            .expect("the operating system can start one more thread");
        Ok(Self {
            shared,
            submissions,
            ended,
            _thread: Arc::new(JoinOnDrop(Some(thread))),
        })
    }

    /// What adapters are validated against.
    pub fn base(&self) -> &BaseModel {
        &self.shared.base
    }

    /// The model's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.shared.model
    }

    pub(crate) fn base_probes(&self) -> &OnceLock<ProbeLogits> {
        &self.shared.base_probes
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&Arc<ChatTemplate>> {
        self.shared.chat_template.as_ref()
    }

    /// Most tokens of a request, prompt and answer together.
    pub fn max_model_len(&self) -> usize {
        self.shared.max_model_len()
    }

    /// What computes: the name of the kernel set, or of candle's device.
    pub fn kernels(&self) -> &str {
        &self.shared.kernels
    }

    /// Packs an adapter that was validated against [`Engine::base`]; runs on the caller's thread.
    pub fn prepare(&self, adapter: &Adapter) -> PreparedAdapter {
        PreparedAdapter::new(adapter, &self.shared.base, self.shared.resolution)
    }

    /// Takes a generation; dropping the receiver cancels it within a step.
    pub fn generate(
        &self,
        request: GenerateRequest,
    ) -> Result<mpsc::UnboundedReceiver<GenerateEvent>, SubmitError> {
        self.check_tokens(&request.prompt, usize::from(request.max_tokens > 0))?;
        self.check_vocabulary(&request.prompt)?;
        let (events, receiver) = mpsc::unbounded_channel();
        let room = self.max_model_len() - request.prompt.len();
        // Room for the whole answer, so that no token of it waits for memory.
        let mut prompt = Vec::with_capacity(request.prompt.len() + request.max_tokens.min(room));
        prompt.extend_from_slice(&request.prompt);
        let (adapter, priority) = (request.adapter.clone(), request.priority);
        let (deadline, answer) = (request.deadline, request.max_tokens.min(room));
        let generation = Generation::new(request, events, &self.shared.tokenizer);
        let task = Task::Generate(Box::new(generation));
        let mut sequence = Sequence::new(prompt, adapter, priority, task);
        sequence.deadline = deadline;
        self.submit(sequence, answer)?;
        Ok(receiver)
    }

    /// Takes continuations to score; dropping the receiver cancels the request within a step.
    pub fn score(
        &self,
        request: ScoreRequest,
    ) -> Result<oneshot::Receiver<Result<ScoreResult, EngineError>>, SubmitError> {
        let longest = request.continuations.iter().map(Vec::len).max();
        self.check_tokens(&request.prompt, longest.unwrap_or(0))?;
        self.check_vocabulary(&request.prompt)?;
        for continuation in &request.continuations {
            self.check_vocabulary(continuation)?;
        }
        let tokens = request.prompt.len();
        let pooling = match request.pooled_from {
            Some(from) if from >= tokens => {
                return Err(SubmitError::NothingToPool { from, tokens });
            }
            from => from.map(|from| Pooling::new(from, self.shared.model.hidden)),
        };
        let (reply, receiver) = oneshot::channel();
        let task = Task::Score(Scoring::new(request.continuations, pooling, reply));
        let mut sequence = Sequence::new(request.prompt, request.adapter, request.priority, task);
        sequence.deadline = request.deadline;
        self.submit(sequence, 0)?;
        Ok(receiver)
    }

    /// Takes a prompt whose next-token logits, `[vocabulary]`, are wanted.
    pub fn logits(
        &self,
        request: LogitsRequest,
    ) -> Result<oneshot::Receiver<Result<Vec<f32>, EngineError>>, SubmitError> {
        self.check_tokens(&request.prompt, 0)?;
        self.check_vocabulary(&request.prompt)?;
        let (reply, receiver) = oneshot::channel();
        let task = Task::Logits(Some(reply));
        let mut sequence = Sequence::new(request.prompt, request.adapter, request.priority, task);
        sequence.deadline = request.deadline;
        self.submit(sequence, 0)?;
        Ok(receiver)
    }

    /// What the engine is doing.
    pub fn statistics(&self) -> Statistics {
        self.shared.board.read()
    }

    /// Whether the engine's thread has ended, which it does by itself only when it cannot be trusted any more.
    pub fn has_ended(&self) -> bool {
        self.ended.has_changed().is_err()
    }

    /// Waits until [`Engine::has_ended`].
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: a change is the sender's end.
        async move { while ended.changed().await.is_ok() {} }
    }

    /// Refuses new requests from now on; those taken are finished.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    fn check_tokens(&self, prompt: &[u32], more: usize) -> Result<(), SubmitError> {
        if prompt.is_empty() {
            return Err(SubmitError::PromptEmpty);
        }
        let (tokens, limit) = (prompt.len() + more, self.max_model_len());
        if tokens > limit || !self.shared.config.fits(tokens) {
            return Err(SubmitError::TooLong { tokens, limit });
        }
        Ok(())
    }

    fn check_vocabulary(&self, tokens: &[u32]) -> Result<(), SubmitError> {
        let vocabulary = self.shared.model.vocabulary;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(SubmitError::TokenOutOfRange { token, vocabulary }),
            None => Ok(()),
        }
    }

    fn submit(&self, mut sequence: Sequence, answer: usize) -> Result<(), SubmitError> {
        let shared = &self.shared;
        if shared.draining.load(Ordering::Acquire) {
            return Err(SubmitError::Draining);
        }
        if sequence.priority == Priority::Interactive {
            let declared = Rows {
                prompt: sequence.known_rows() as u64,
                answer: answer as u64,
            };
            let version = sequence.adapter.as_ref().map(|adapter| adapter.version());
            shared.check_load(version, declared, sequence.deadline)?;
            sequence.ticket = Some(shared.workload.enter(version, declared));
        }
        let limit = shared.config.max_queue;
        let place = shared.board.take_place(limit);
        place.map_err(|waiting| SubmitError::QueueFull {
            waiting,
            limit,
            retry_after: shared.until_a_place(),
        })?;
        self.submissions.send(sequence).map_err(|_| {
            shared.board.free_places(1);
            SubmitError::Stopped
        })
    }
}
