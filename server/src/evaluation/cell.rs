//! One cell of one model: every example through the engine, a bounded number at a time, and the score of what came back.

use std::sync::Arc;

use engine::{
    Engine, EngineError, GenerateEvent, GenerateRequest, PreparedAdapter, Priority, Sampling,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};
use tasks::{Catalog, Cell, CellResult, Example, Kind, Outputs, PlanRequest, Task, score_cell};

use super::Watched;
use crate::error::ApiError;
use crate::inference::classification::{LabelScorer, TaskPrompt, argmax};
use crate::inference::patience::when_there_is_room;

/// Examples in the engine at the same time.
const IN_FLIGHT: usize = 32;

/// What measuring needs.
pub(super) struct Measuring<'a> {
    pub(super) engine: &'a Engine,
    pub(super) catalog: &'a Catalog,
    pub(super) request: &'a PlanRequest,
    pub(super) watched: &'a Watched,
}

/// A measured cell.
#[derive(Debug, Clone)]
pub(super) struct Measurement {
    pub(super) result: CellResult,
    /// Examples whose prompt had to be cut at its beginning.
    pub(super) truncated: usize,
}

/// SHA-256 of all that decides a measurement of the base.
pub(super) type Digest = [u8; 32];

/// A cell's examples and what is put to a model of each.
pub(super) struct PreparedCell {
    task: Task,
    examples: Vec<Example>,
    prompts: CellPrompts,
}

/// The prompts of a cell's examples.
struct CellPrompts {
    tokens: Vec<Vec<u32>>,
    truncated: usize,
}

impl PreparedCell {
    /// Of what a model is asked, what it should answer, and the seed of the intervals.
    ///
    /// # Errors
    /// None that is known: lists of numbers and strings can be written as JSON.
    pub(super) fn digest(&self, seed: u64) -> Result<Digest, ApiError> {
        let golds: Vec<&str> = self
            .examples
            .iter()
            .map(|one| one.output.as_str())
            .collect();
        let asked = (self.task.id(), &self.prompts.tokens, golds, seed);
        let written = serde_json::to_vec(&asked).map_err(ApiError::internal)?;
        Ok(Sha256::digest(written).into())
    }
}

impl Measuring<'_> {
    /// Reads a cell's examples and makes their prompts.
    ///
    /// # Errors
    /// When the data cannot be used.
    pub(super) fn prepare(&self, cell: &Cell) -> Result<PreparedCell, ApiError> {
        let examples = self.catalog.test(cell.task, &cell.dataset)?;
        let examples = self.request.limited(examples);
        Ok(PreparedCell {
            task: cell.task,
            prompts: self.prompts(cell, &examples)?,
            examples,
        })
    }

    /// Measures one model in one cell.
    ///
    /// # Errors
    /// When the engine goes away.
    pub(super) async fn measure(
        &self,
        cell: &PreparedCell,
        weights: Option<Arc<PreparedAdapter>>,
    ) -> Result<Measurement, ApiError> {
        let outputs = match cell.task.kind() {
            Kind::Classification => self.labels(cell, weights).await?,
            Kind::Generation => self.texts(cell, weights).await?,
        };
        let result = score_cell(cell.task, &cell.examples, &outputs, self.request.seed)
            .map_err(ApiError::internal)?;
        Ok(Measurement {
            result,
            truncated: cell.prompts.truncated,
        })
    }

    fn prompts(&self, cell: &Cell, examples: &[Example]) -> Result<CellPrompts, ApiError> {
        let demonstrations = self
            .catalog
            .demonstrations(cell.task, &cell.dataset, cell.shots)?;
        let template = TaskPrompt::new(
            self.catalog.prompts(),
            cell.prompt,
            cell.task,
            &demonstrations,
        )?;
        let tokenizer = self.engine.tokenizer();
        let answer = match cell.task.kind() {
            Kind::Generation => cell.task.max_new_tokens(),
            Kind::Classification => cell
                .task
                .labels()
                .iter()
                .map(|label| tokenizer.encode_continuation(label).len())
                .max()
                .unwrap_or(0),
        };
        let room = self.engine.max_model_len().saturating_sub(answer);
        let mut prompts = CellPrompts {
            tokens: Vec::with_capacity(examples.len()),
            truncated: 0,
        };
        for example in examples {
            let mut tokens = template.encode(&example.fields, tokenizer)?;
            if tokens.len() > room {
                // The end holds the question; what is lost is the beginning of the context.
                tokens.drain(..tokens.len() - room);
                prompts.truncated += 1;
            }
            prompts.tokens.push(tokens);
        }
        Ok(prompts)
    }

    async fn labels(
        &self,
        cell: &PreparedCell,
        weights: Option<Arc<PreparedAdapter>>,
    ) -> Result<Outputs, ApiError> {
        let labels: Vec<String> = cell.task.labels().iter().map(ToString::to_string).collect();
        let scorer = &LabelScorer::new(self.engine, weights, &labels, Priority::Background);
        let prompts = cell.prompts.tokens.iter().cloned();
        let chosen = prompts.map(|prompt| async move {
            let scores = scorer.score(prompt).await?;
            self.examples_done(1);
            Ok::<_, ApiError>(argmax(&scores.logprobs))
        });
        let chosen = stream::iter(chosen).buffered(IN_FLIGHT);
        Ok(Outputs::Labels(chosen.try_collect().await?))
    }

    async fn texts(
        &self,
        cell: &PreparedCell,
        weights: Option<Arc<PreparedAdapter>>,
    ) -> Result<Outputs, ApiError> {
        let max_tokens = cell.task.max_new_tokens();
        let weights = &weights;
        let prompts = cell.prompts.tokens.iter().cloned();
        let texts = prompts.map(|prompt| async move {
            let request = greedy(prompt, weights.clone(), max_tokens);
            let text = generate(self.engine, request).await?;
            self.examples_done(1);
            Ok::<_, ApiError>(text)
        });
        let texts = stream::iter(texts).buffered(IN_FLIGHT);
        Ok(Outputs::Texts(texts.try_collect().await?))
    }

    /// Counts examples that are answered.
    pub(super) fn examples_done(&self, count: usize) {
        self.watched
            .change(|record| record.progress.examples_done += count);
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
    }
}

async fn generate(engine: &Engine, request: GenerateRequest) -> Result<String, ApiError> {
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
