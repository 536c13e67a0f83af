//! SGLang's `sampling_params`, and the ways in which one value or a list of them stands for a batch.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::inference::parameters::{Generation, SamplingFields, Stop};
use crate::inference::unsupported::{Refused, is_empty, is_false, is_true, never, refuse, refused};

/// Most tokens unless the request says.
const DEFAULT_MAX_NEW_TOKENS: i64 = 128;

const REFUSED: &[Refused] = &[
    refused("stop_token_ids", is_empty, "use `stop`"),
    refused("stop_regex", is_empty, "use `stop`"),
    refused("json_schema", never, "there is no constrained decoding"),
    refused("regex", never, "there is no constrained decoding"),
    refused("ebnf", never, "there is no constrained decoding"),
    refused("structural_tag", never, "there is no constrained decoding"),
    refused(
        "skip_special_tokens",
        is_true,
        "special tokens are never part of the text",
    ),
    refused(
        "spaces_between_special_tokens",
        is_true,
        "special tokens are never part of the text",
    ),
    refused(
        "no_stop_trim",
        is_false,
        "append the stop string yourself; `finish_reason.matched` is it",
    ),
    refused("custom_params", is_empty, "leave it out"),
];

/// How to generate.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct SglangParameters {
    /// Most tokens, 128 unless given.
    pub max_new_tokens: Option<i64>,
    /// No end-of-turn token before this many tokens.
    pub min_new_tokens: Option<i64>,
    /// Softmax temperature, 0 to 2; 0 is greedy.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Only the likeliest tokens, this many; -1 for all.
    pub top_k: Option<i64>,
    /// Only tokens at least this fraction as likely as the likeliest.
    pub min_p: Option<f64>,
    /// Taken off each token per occurrence in the answer.
    pub frequency_penalty: Option<f64>,
    /// Taken off every token that has occurred in the answer.
    pub presence_penalty: Option<f64>,
    /// Divides the logits of tokens seen so far.
    pub repetition_penalty: Option<f64>,
    /// Texts that end the answer.
    pub stop: Option<Stop>,
    /// Go on past the end-of-turn token.
    pub ignore_eos: Option<bool>,
    /// Added to the logits of tokens.
    pub logit_bias: Option<std::collections::BTreeMap<String, f64>>,
    /// Answers per prompt.
    pub n: Option<i64>,
    /// The same seed, request and version give the same text.
    pub sampling_seed: Option<i64>,
}

/// One value for every prompt, or one for each.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// The same for all.
    One(T),
    /// One for each.
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
    /// The values of `count` prompts.
    ///
    /// # Errors
    /// `InvalidValue` for a list of another length.
    pub fn spread(self, count: usize, param: &str) -> Result<Vec<T>, ApiError> {
        match self {
            Self::One(value) => Ok(vec![value; count]),
            Self::Many(values) if values.len() == count => Ok(values),
            Self::Many(values) => Err(ApiError::invalid(
                param,
                format!(
                    "`{param}` has {} entries for a request of {count} prompts; send one for each, or one for all",
                    values.len()
                ),
            )),
        }
    }
}

/// Refuses parameters that are known and have no effect, in one object or a list of them.
///
/// # Errors
/// `NotSupported` naming the first such field.
pub fn refuse_parameters(parameters: &Value) -> Result<(), ApiError> {
    let objects: Vec<&Map<String, Value>> = match parameters {
        Value::Object(object) => vec![object],
        Value::Array(list) => list.iter().filter_map(Value::as_object).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    objects
        .into_iter()
        .try_for_each(|object| refuse(object, REFUSED))
}

impl SglangParameters {
    /// How to generate.
    ///
    /// # Errors
    /// `InvalidValue` naming the field that is out of its range.
    pub fn generation(&self, vocabulary: usize) -> Result<Generation, ApiError> {
        let fields = SamplingFields {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            n: self.n,
            stop: self.stop.clone(),
            seed: self.sampling_seed,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.clone(),
            ignore_eos: self.ignore_eos,
            min_tokens: self.min_new_tokens,
            ..SamplingFields::default()
        };
        let max_tokens = self.max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS);
        fields.check(Some(max_tokens), vocabulary)
    }
}
