//! The domain profile of an adapter: what its training inputs look like to the model that carries it, measured by the
//! engine that serves.
//!
//! Belongs here: which prompts are measured, and the way through the engine. Does not belong here: what a profile is
//! (`adapters`).

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use adapters::{Adapter, DomainProfile};
use engine::{Engine, EngineConfig, EngineError, Model, Priority, ScoreRequest};
use indicatif::{ProgressBar, ProgressStyle};

use crate::engine_arguments::EngineArguments;
use crate::error::TrainerError;
use crate::examples::{ExampleTokenizer, TokenizedExample};
use crate::opened::unusable_model;

/// Training inputs that are measured unless there are fewer.
pub(crate) const MOST_MEASURED: usize = 512;
/// Prompts in the engine at a time.
const IN_FLIGHT: usize = 32;

/// Prompts to measure, demonstrations in front of each.
pub(crate) struct MeasuredPrompts {
    /// Of context and input.
    pub(crate) ids: Vec<Vec<u32>>,
    /// Of the context alone.
    context: Vec<u32>,
}

impl MeasuredPrompts {
    /// The first `most` examples, in the order of their file, held-out ones among them: they are of the same data.
    pub(crate) fn first(
        most: usize,
        tokenizer: &ExampleTokenizer<'_>,
        examples: &[TokenizedExample],
    ) -> Self {
        let first = examples.iter().take(most);
        Self {
            ids: first.map(|example| example.prompt.clone()).collect(),
            context: tokenizer.tokenizer.encode_prompt(&tokenizer.context),
        }
    }
}

/// An engine with room for the prompts.
pub(crate) fn start(
    model: &Path,
    arguments: &EngineArguments,
    prompts: &MeasuredPrompts,
) -> Result<Engine, TrainerError> {
    let unusable = |error| unusable_model(model, error);
    let defaults = EngineConfig::default();
    let longest = prompts.ids.iter().map(Vec::len).max().unwrap_or_default();
    let config = EngineConfig {
        kv_tokens: defaults.kv_tokens.max(longest),
        ..defaults
    };
    let model = Model::load(model, &arguments.options()).map_err(unusable)?;
    Engine::start(model, config).map_err(unusable)
}

/// Measures the adapter's profile, with a progress bar.
pub(crate) fn measure(
    engine: &Engine,
    adapter: &Adapter,
    prompts: &MeasuredPrompts,
) -> Result<DomainProfile, TrainerError> {
    let weights = Arc::new(engine.prepare(adapter));
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} · domain profile · {eta}")
        .expect("the template is a constant and valid");
    let bar = ProgressBar::new(prompts.ids.len() as u64).with_style(style);
    let mut states = Vec::with_capacity(prompts.ids.len());
    let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
    let mut prompts_left = prompts.ids.iter();
    loop {
        while waiting.len() < IN_FLIGHT
            && let Some(ids) = prompts_left.next()
        {
            waiting.push_back(engine.score(ScoreRequest {
                prompt: ids.clone(),
                continuations: Vec::new(),
                adapter: Some(Arc::clone(&weights)),
                pooled_from: Some(engine::own_part(&prompts.context, ids)),
                priority: Priority::Interactive,
                deadline: None,
            })?);
        }
        let Some(reply) = waiting.pop_front() else {
            break;
        };
        let result = reply.blocking_recv().map_err(|_| EngineError::Stopped)??;
        states.push(result.mean_hidden.ok_or(EngineError::Stopped)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(DomainProfile::measure(&states)?)
}
