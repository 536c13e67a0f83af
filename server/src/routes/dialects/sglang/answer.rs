//! SGLang's answers, whole and streamed: the text with its `meta_info`.

use actix_web::web::Data;
use engine::{FinishReason, TokenLogprob};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::SglangError;
use super::generate::Item;
use crate::error::ApiError;
use crate::inference::generation::{Finished, Running};
use crate::inference::logprobs::finite;
use crate::inference::stream::{Dialect, Part, json};
use crate::routes::dialects::ending::Ending;
use crate::state::State;

/// An answer, or in a stream as much of it as there is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SglangGeneration {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub output_ids: Vec<u32>,
    /// About it.
    pub meta_info: MetaInfo,
    /// Position in the batch, in a stream of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// About an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetaInfo {
    /// The request's id.
    pub id: String,
    /// Null while it goes on.
    pub finish_reason: Option<SglangFinish>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens whose prefix was cached.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// The version of the adapter that answered, or the base model's digest.
    pub weight_version: String,
    /// With `return_logprob`.
    #[serde(flatten)]
    pub logprobs: Option<SglangLogprobs>,
}

/// Why an answer ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SglangFinish {
    /// No more tokens were allowed.
    Length {
        /// This many.
        length: usize,
    },
    /// The model or a stop string ended it.
    Stop {
        /// The token or the text.
        matched: Matched,
    },
}

/// What ended an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Matched {
    /// A token.
    Token(u32),
    /// A text.
    Text(String),
}

/// Log-probabilities, each as `[value, token id, text or null]`.
#[derive(Debug, Serialize, ToSchema)]
pub struct SglangLogprobs {
    /// Of the prompt, from the position that was asked for; the first token has none.
    #[schema(value_type = Vec<Vec<serde_json::Value>>)]
    pub input_token_logprobs: Vec<Spelled>,
    /// Of the answer.
    #[schema(value_type = Vec<Vec<serde_json::Value>>)]
    pub output_token_logprobs: Vec<Spelled>,
    /// Alternatives at the prompt's positions.
    #[schema(value_type = Vec<Option<Vec<Vec<serde_json::Value>>>>)]
    pub input_top_logprobs: Vec<Option<Vec<Spelled>>>,
    /// Alternatives at the answer's positions.
    #[schema(value_type = Vec<Vec<Vec<serde_json::Value>>>)]
    pub output_top_logprobs: Vec<Vec<Spelled>>,
}

type Spelled = (Option<f32>, u32, Option<String>);

/// What is known of the answers while they are made.
pub struct Answer {
    state: Data<State>,
    items: Vec<Item>,
    choices: Vec<Choice>,
    texts_in_logprobs: bool,
    numbered: bool,
}

/// One answer so far.
#[derive(Default)]
struct Choice {
    item: usize,
    id: String,
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    prompt_logprobs: Option<Vec<TokenLogprob>>,
    cached_tokens: usize,
}

impl Answer {
    /// Answers of which nothing has come yet.
    pub fn new(
        state: &Data<State>,
        items: Vec<Item>,
        running: &[Running],
        texts_in_logprobs: bool,
    ) -> Self {
        let choice = |running: &Running| Choice {
            item: running.prompt,
            id: match &items[running.prompt].id {
                Some(id) => id.clone(),
                None => Uuid::new_v4().simple().to_string(),
            },
            ..Choice::default()
        };
        Self {
            state: state.clone(),
            choices: running.iter().map(choice).collect(),
            items,
            texts_in_logprobs,
            numbered: false,
        }
    }

    /// The same, with or without the position in each part of a stream.
    pub fn numbered(self, numbered: bool) -> Self {
        Self { numbered, ..self }
    }

    /// The answers that the engine finished.
    pub fn whole(mut self, finished: Vec<Finished>) -> Vec<SglangGeneration> {
        let mut generations = Vec::with_capacity(finished.len());
        for own in finished {
            let choice = &mut self.choices[own.index];
            choice.text = own.text;
            choice.cached_tokens = own.cached_tokens;
            choice.prompt_logprobs = own.prompt_logprobs;
            for (token, logprob) in own.tokens {
                choice.tokens.push(token);
                choice.logprobs.extend(logprob);
            }
            generations.push(self.generation(own.index, Some(own.reason)));
        }
        generations
    }

    fn generation(&self, index: usize, reason: Option<FinishReason>) -> SglangGeneration {
        let choice = &self.choices[index];
        let item = &self.items[choice.item];
        let version = item.target.reference().map(|adapter| adapter.version);
        SglangGeneration {
            text: choice.text.clone(),
            output_ids: choice.tokens.clone(),
            meta_info: MetaInfo {
                id: choice.id.clone(),
                finish_reason: reason.map(|reason| self.finish(choice, reason)),
                prompt_tokens: item.prompt.tokens.len(),
                cached_tokens: choice.cached_tokens,
                completion_tokens: choice.tokens.len(),
                weight_version: version.unwrap_or_else(|| self.state.engine.base().digest.clone()),
                logprobs: item
                    .generation
                    .logprobs
                    .map(|top| self.logprobs(choice, top)),
            },
            index: self.numbered.then_some(index),
        }
    }

    fn finish(&self, choice: &Choice, reason: FinishReason) -> SglangFinish {
        let generation = &self.items[choice.item].generation;
        let tokenizer = self.state.engine.tokenizer();
        match Ending::of(reason, &choice.tokens, generation, tokenizer) {
            Ending::Length => SglangFinish::Length {
                length: choice.tokens.len(),
            },
            Ending::EndOfTurn(token) => SglangFinish::Stop {
                matched: Matched::Token(token),
            },
            Ending::StopString(text) => SglangFinish::Stop {
                matched: Matched::Text(text),
            },
        }
    }

    fn logprobs(&self, choice: &Choice, top: usize) -> SglangLogprobs {
        let item = &self.items[choice.item];
        let own = |logprob: &TokenLogprob| self.spelled(Some(logprob.logprob), logprob.token);
        let others = |logprob: &TokenLogprob| -> Vec<Spelled> {
            let top = logprob.top.iter();
            top.map(|&(token, value)| self.spelled(Some(value), token))
                .collect()
        };
        let (mut input, mut input_top) = (Vec::new(), Vec::new());
        if let (Some(logprobs), Some(&first)) =
            (&choice.prompt_logprobs, item.prompt.tokens.first())
        {
            input.push(self.spelled(None, first));
            input.extend(logprobs.iter().map(own));
            input_top.push(None);
            input_top.extend(logprobs.iter().map(|logprob| Some(others(logprob))));
        }
        let from = item.logprobs_from.min(input.len());
        let with_top = top > 0;
        SglangLogprobs {
            input_token_logprobs: input.split_off(from),
            output_token_logprobs: choice.logprobs.iter().map(own).collect(),
            input_top_logprobs: match with_top {
                true => input_top.split_off(from),
                false => Vec::new(),
            },
            output_top_logprobs: match with_top {
                true => choice.logprobs.iter().map(others).collect(),
                false => Vec::new(),
            },
        }
    }

    fn spelled(&self, logprob: Option<f32>, token: u32) -> Spelled {
        let bytes = || self.state.engine.tokenizer().token_bytes(token);
        let text = || String::from_utf8_lossy(bytes()).into_owned();
        (
            logprob.map(finite),
            token,
            self.texts_in_logprobs.then(text),
        )
    }
}

impl Dialect for Answer {
    fn part(&mut self, part: Part) -> String {
        let choice = &mut self.choices[part.index];
        choice.text.push_str(&part.text);
        choice.tokens.extend(part.token);
        choice.logprobs.extend(part.logprob);
        json(&self.generation(part.index, part.finish))
    }

    fn started(&mut self, index: usize, cached_tokens: usize) {
        self.choices[index].cached_tokens = cached_tokens;
    }

    fn failure(&self, error: ApiError) -> String {
        json(&SglangError::from(error).body())
    }
}
