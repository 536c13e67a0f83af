//! One cell of one model: every example through the engine, a bounded number at a time, and the score of what came back.

use std::sync::Arc;

use engine::{
    Engine, EngineError, GenerateEvent, GenerateRequest, PreparedAdapter, Priority, Sampling,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tasks::{Catalog, Cell, CellResult, Example, Kind, Outputs, PlanRequest, score_cell};

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

/// The prompts of a cell's examples.
struct CellPrompts {
    tokens: Vec<Vec<u32>>,
    truncated: usize,
}

impl Measuring<'_> {
    /// Measures one model in one cell.
    ///
    /// # Errors
    /// When the data cannot be used or the engine goes away.
    pub(super) async fn measure(
        &self,
        cell: &Cell,
        weights: Option<Arc<PreparedAdapter>>,
    ) -> Result<Measurement, ApiError> {
        let examples = self.catalog.test(cell.task, &cell.dataset)?;
        let examples = self.request.limited(examples);
        let prompts = self.prompts(cell, &examples)?;
        let truncated = prompts.truncated;
        let outputs = match cell.task.kind() {
            Kind::Classification => self.labels(cell, prompts.tokens, weights).await?,
            Kind::Generation => self.texts(cell, prompts.tokens, weights).await?,
        };
        let result = score_cell(cell.task, &examples, &outputs, self.request.seed)
            .map_err(ApiError::internal)?;
        Ok(Measurement { result, truncated })
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
        cell: &Cell,
        prompts: Vec<Vec<u32>>,
        weights: Option<Arc<PreparedAdapter>>,
    ) -> Result<Outputs, ApiError> {
        let labels: Vec<String> = cell.task.labels().iter().map(ToString::to_string).collect();
        let scorer = &LabelScorer::new(self.engine, weights, &labels, Priority::Background);
        let chosen = prompts.into_iter().map(|prompt| async move {
            let scores = scorer.score(prompt).await?;
            self.example_done();
            Ok::<_, ApiError>(argmax(&scores.logprobs))
        });
        let chosen = stream::iter(chosen).buffered(IN_FLIGHT);
        Ok(Outputs::Labels(chosen.try_collect().await?))
    }

    async fn texts(
        &self,
        cell: &Cell,
        prompts: Vec<Vec<u32>>,
        weights: Option<Arc<PreparedAdapter>>,
    ) -> Result<Outputs, ApiError> {
        let max_tokens = cell.task.max_new_tokens();
        let weights = &weights;
        let texts = prompts.into_iter().map(|prompt| async move {
            let request = greedy(prompt, weights.clone(), max_tokens);
            let text = generate(self.engine, request).await?;
            self.example_done();
            Ok::<_, ApiError>(text)
        });
        let texts = stream::iter(texts).buffered(IN_FLIGHT);
        Ok(Outputs::Texts(texts.try_collect().await?))
    }

    fn example_done(&self) {
        self.watched
            .change(|record| record.progress.examples_done += 1);
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
