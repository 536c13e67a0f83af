//! One cell of one model: every example through the engine, a bounded number at a time, and the score of what came back.

use std::sync::Arc;

use engine::{
    Engine, EngineError, GenerateEvent, GenerateRequest, PreparedAdapter, Priority, Sampling,
    Tokenizer,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};
use tasks::{Catalog, Cell, Example, Kind, Outputs, Task, score_cell};
use tokio::sync::Semaphore;

use crate::error::EvaluationError;
use crate::evaluator::IN_FLIGHT;
use crate::labels::{LabelScorer, argmax, relative_to};
use crate::measurement::{Measurement, Prediction};
use crate::patience::when_there_is_room;
use crate::plan::{EvaluationPlan, ModelVersion, Scoring, dataset_key};
use crate::prompt::TaskPrompt;

/// A cell's examples and what is put to a model of each.
pub(crate) struct PreparedCell {
    task: Task,
    scoring: Scoring,
    /// Seed of the intervals.
    seed: u64,
    examples: Vec<Example>,
    /// Token ids of the examples' prompts.
    prompts: Vec<Vec<u32>>,
    /// The prompt of a content-free input, for calibration.
    content_free: Option<Vec<u32>>,
    truncated: usize,
    digest: Vec<u8>,
}

/// What answers.
pub(crate) struct Answering<'a> {
    pub(crate) engine: &'a Engine,
    /// The adapter, `None` for the base.
    pub(crate) weights: Option<Arc<PreparedAdapter>>,
    /// Places in the engine that all cells under way share.
    pub(crate) slots: &'a Semaphore,
    /// Hears of every answer.
    pub(crate) answered: &'a (dyn Fn() + Sync),
}

impl PreparedCell {
    /// Reads a cell's examples and makes their prompts.
    ///
    /// # Errors
    /// When the data cannot be used, or is not what it was when the plan was made.
    pub(crate) fn new(
        plan: &EvaluationPlan,
        cell: &Cell,
        catalog: &Catalog,
        engine: &Engine,
    ) -> Result<Self, EvaluationError> {
        let digest = catalog.digest(cell.task, &cell.dataset)?;
        if (plan.dataset(cell)).is_some_and(|planned| planned.digest != digest) {
            return Err(EvaluationError::DataChanged {
                dataset: dataset_key(cell),
            });
        }
        let examples = catalog.test(cell.task, &cell.dataset)?;
        let demonstrations = catalog.demonstrations(cell.task, &cell.dataset, cell.shots)?;
        let prompts = catalog.prompts();
        let template = TaskPrompt::new(prompts, cell.prompt, cell.task, &demonstrations)?;
        let tokenizer = engine.tokenizer();
        let mut prepared = Self {
            task: cell.task,
            scoring: plan.scoring,
            seed: plan.request.seed,
            examples: plan.request.limited(examples),
            prompts: Vec::new(),
            content_free: None,
            truncated: 0,
            digest: Vec::new(),
        };
        let room = (engine.max_model_len()).saturating_sub(longest_answer(cell.task, tokenizer));
        for index in 0..prepared.examples.len() {
            let prompt = template.encode(&prepared.examples[index].fields, tokenizer)?;
            prepared.truncated += usize::from(prompt.len() > room);
            prepared.prompts.push(last(prompt, room));
        }
        if plan.scoring.calibrate && cell.task.kind() == Kind::Classification {
            let prompt = template.encode_content_free(tokenizer)?;
            prepared.content_free = Some(last(prompt, room));
        }
        prepared.digest = prepared.content_digest();
        Ok(prepared)
    }

    /// How many examples there are.
    pub(crate) fn examples(&self) -> usize {
        self.examples.len()
    }

    /// The name of a model's measurement in this cell: SHA-256 of all that decides it, 32 hex digits.
    pub(crate) fn key(&self, model: &ModelVersion) -> String {
        let mut hasher = Sha256::new();
        hasher.update(model.version.as_deref().unwrap_or_default());
        hasher.update(&self.digest);
        let digest = hasher.finalize();
        digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Of what a model is asked, what it should answer, and how that is judged.
    fn content_digest(&self) -> Vec<u8> {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.task.id().as_bytes());
        part(&self.seed.to_le_bytes());
        part(format!("{:?}", self.scoring).as_bytes());
        for prompt in self.prompts.iter().chain(&self.content_free) {
            let bytes: Vec<u8> = prompt.iter().flat_map(|id| id.to_le_bytes()).collect();
            part(&bytes);
        }
        for example in &self.examples {
            part(example.output.as_bytes());
        }
        hasher.finalize().to_vec()
    }

    /// The model's answers to all examples.
    ///
    /// # Errors
    /// When the engine goes away.
    pub(crate) async fn answer(
        &self,
        answering: &Answering<'_>,
    ) -> Result<Vec<Prediction>, EvaluationError> {
        match self.task.kind() {
            Kind::Classification => self.choose_labels(answering).await,
            Kind::Generation => self.write_texts(answering).await,
        }
    }

    /// What the answers are worth.
    ///
    /// # Errors
    /// When answers and examples do not fit, which no engine causes.
    pub(crate) fn score(
        &self,
        predictions: Vec<Prediction>,
    ) -> Result<Measurement, EvaluationError> {
        let outputs = outputs(self.task, &predictions);
        let result = score_cell(self.task, &self.examples, &outputs, self.seed)?;
        Ok(Measurement {
            result,
            truncated: self.truncated,
            golds: (self.examples.iter())
                .map(|example| example.output.clone())
                .collect(),
            predictions,
        })
    }

    async fn choose_labels(
        &self,
        answering: &Answering<'_>,
    ) -> Result<Vec<Prediction>, EvaluationError> {
        let labels: Vec<String> = self.task.labels().iter().map(ToString::to_string).collect();
        let labels = (labels.as_slice(), self.scoring.labels);
        let adapter = answering.weights.clone();
        let scorer = &LabelScorer::new(answering.engine, adapter, labels, Priority::Background);
        let neutral = match &self.content_free {
            Some(prompt) => Some(scorer.score(prompt.clone()).await?),
            None => None,
        };
        let neutral = neutral.as_ref();
        let chosen = self.prompts.iter().cloned().map(|prompt| async move {
            let _slot = answering.slots.acquire().await;
            let scores = scorer.score(prompt).await?;
            (answering.answered)();
            Ok::<_, EvaluationError>(Prediction::Label {
                label: argmax(&relative_to(neutral, &scores)),
                logprobs: scores.logprobs,
            })
        });
        Self::collect(chosen).await
    }

    async fn write_texts(
        &self,
        answering: &Answering<'_>,
    ) -> Result<Vec<Prediction>, EvaluationError> {
        let max_tokens = self.task.max_new_tokens();
        let texts = self.prompts.iter().cloned().map(|prompt| async move {
            let _slot = answering.slots.acquire().await;
            let request = greedy(prompt, answering.weights.clone(), max_tokens);
            let text = generate(answering.engine, request).await?;
            (answering.answered)();
            Ok::<_, EvaluationError>(Prediction::Text { text })
        });
        Self::collect(texts).await
    }

    /// All answers in order. More futures than slots would only wait.
    async fn collect(
        answers: impl Iterator<Item = impl Future<Output = Result<Prediction, EvaluationError>>>,
    ) -> Result<Vec<Prediction>, EvaluationError> {
        stream::iter(answers)
            .buffered(IN_FLIGHT)
            .try_collect()
            .await
    }
}

/// The tokens of a task's longest answer.
fn longest_answer(task: Task, tokenizer: &Tokenizer) -> usize {
    match task.kind() {
        Kind::Generation => task.max_new_tokens(),
        Kind::Classification => {
            let labels = task.labels().iter();
            let lengths = labels.map(|label| tokenizer.encode_continuation(label).len());
            lengths.max().unwrap_or(0)
        }
    }
}

/// The last `room` tokens. The end of a prompt holds the question; what is lost is the beginning of the context.
fn last(mut prompt: Vec<u32>, room: usize) -> Vec<u32> {
    if prompt.len() > room {
        prompt.drain(..prompt.len() - room);
    }
    prompt
}

fn outputs(task: Task, predictions: &[Prediction]) -> Outputs {
    match task.kind() {
        Kind::Classification => {
            let labels = predictions
                .iter()
                .filter_map(|prediction| match prediction {
                    Prediction::Label { label, .. } => Some(*label),
                    Prediction::Text { .. } => None,
                });
            Outputs::Labels(labels.collect())
        }
        Kind::Generation => {
            let texts = predictions
                .iter()
                .filter_map(|prediction| match prediction {
                    Prediction::Text { text } => Some(text.clone()),
                    Prediction::Label { .. } => None,
                });
            Outputs::Texts(texts.collect())
        }
    }
}

fn greedy(
    prompt: Vec<u32>,
    adapter: Option<Arc<PreparedAdapter>>,
    max_tokens: usize,
) -> GenerateRequest {
    GenerateRequest {
        prompt,
        adapter,
        sampling: Sampling::default(),
        max_tokens,
        min_tokens: 0,
        // What follows a blank line is cut anyway.
        stop: vec!["\n\n".to_owned()],
        ignore_eos: false,
        logprobs: None,
        prompt_logprobs: None,
        priority: Priority::Background,
        deadline: None,
    }
}

async fn generate(engine: &Engine, request: GenerateRequest) -> Result<String, EvaluationError> {
    let mut events = when_there_is_room(|| engine.generate(request.clone())).await?;
    let mut answer = String::new();
    while let Some(event) = events.recv().await {
        match event {
            GenerateEvent::Started { .. } => {}
            GenerateEvent::Token { text, .. } => answer.push_str(&text),
            GenerateEvent::Finished { text, .. } => return Ok(answer + &text),
            GenerateEvent::Failed(error) => return Err(error.into()),
        }
    }
    Err(EngineError::Stopped.into())
}
