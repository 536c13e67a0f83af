//! The parameters of a generation as text-generation-inference and LoRAX name them, and what they mean here.

use std::collections::BTreeMap;

use engine::Tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::inference::parameters::{Generation, SamplingFields, Stop, alternatives};
use crate::inference::target::Selection;
use crate::inference::unsupported::{
    Refused, is_false, is_one, is_text_format, never, refuse, refused,
};

/// LoRAX's name for the base model.
const BASE_MODEL: &str = "__base_model__";

const REFUSED: &[Refused] = &[
    refused("best_of", is_one, "send the request several times"),
    refused("typical_p", is_one, "use `top_p` or `min_p`"),
    refused("watermark", is_false, "answers carry no watermark"),
    refused("grammar", never, "there is no constrained decoding"),
    refused(
        "response_format",
        is_text_format,
        "there is no constrained decoding",
    ),
    refused("schema", never, "there is no constrained decoding"),
    refused("return_k_alternatives", never, "use `top_n_tokens`"),
    refused(
        "apply_chat_template",
        is_false,
        "use /v1/chat/completions for conversations",
    ),
    refused(
        "adapter_source",
        is_anywhere,
        "load the adapter first; GET /v1/models lists what is loaded",
    ),
];

/// How to generate.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TgiParameters {
    /// The adapter; the base model unless given, and for `__base_model__`.
    pub adapter_id: Option<String>,
    /// Several adapters at once.
    pub merged_adapters: Option<MergedAdapters>,
    /// Most tokens; 100 unless given, as many as the context holds for null.
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: Option<u32>,
    /// Draw tokens; without it, and without a setting that only matters for drawing, the likeliest is taken.
    pub do_sample: Option<bool>,
    /// Softmax temperature, 0 to 2; 0 is greedy.
    pub temperature: Option<f64>,
    /// Only the likeliest tokens, this many.
    pub top_k: Option<u32>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// The same seed, request and version give the same text.
    pub seed: Option<u64>,
    /// Up to 16 texts that end the answer and are not part of it.
    pub stop: Option<Vec<String>>,
    /// Divides the logits of tokens seen so far.
    pub repetition_penalty: Option<f64>,
    /// Taken off each token per occurrence in the answer.
    pub frequency_penalty: Option<f64>,
    /// Answer with the prompt in front.
    pub return_full_text: Option<bool>,
    /// Tell about the tokens.
    pub details: Option<bool>,
    /// Tell about the prompt's tokens too.
    pub decoder_input_details: Option<bool>,
    /// Report this many likeliest tokens at each position.
    pub top_n_tokens: Option<u32>,
    /// Only the last tokens of the prompt, this many.
    pub truncate: Option<usize>,
    /// Go on past the end-of-turn token.
    pub ignore_eos_token: Option<bool>,
}

/// Adapters to add up.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct MergedAdapters {
    /// Their names.
    pub ids: Vec<String>,
    /// A weight for each.
    pub weights: Vec<f64>,
    /// `linear`, which is what happens.
    pub merge_strategy: Option<String>,
}

/// What is absent when a client sends no `parameters` at all.
impl Default for TgiParameters {
    fn default() -> Self {
        Self {
            adapter_id: None,
            merged_adapters: None,
            max_new_tokens: default_max_new_tokens(),
            do_sample: None,
            temperature: None,
            top_k: None,
            top_p: None,
            seed: None,
            stop: None,
            repetition_penalty: None,
            frequency_penalty: None,
            return_full_text: None,
            details: None,
            decoder_input_details: None,
            top_n_tokens: None,
            truncate: None,
            ignore_eos_token: None,
        }
    }
}

fn default_max_new_tokens() -> Option<u32> {
    Some(100)
}

/// Refuses parameters that are known and have no effect.
///
/// # Errors
/// `NotSupported` naming the first such field.
pub fn refuse_parameters(parameters: &Map<String, Value>) -> Result<(), ApiError> {
    refuse(parameters, REFUSED)
}

impl TgiParameters {
    /// Which adapter or adapters answer.
    ///
    /// # Errors
    /// `InvalidValue` for both ways at once or weights that do not match, `NotSupported` for merges that are not linear.
    pub fn selection(&self) -> Result<Selection, ApiError> {
        let adapter_weights = match &self.merged_adapters {
            None => None,
            Some(_) if self.adapter_id.is_some() => {
                return Err(ApiError::invalid(
                    "merged_adapters",
                    "`merged_adapters` and `adapter_id` exclude each other; send one",
                ));
            }
            Some(merged) => Some(merged.weights()?),
        };
        Ok(Selection {
            model: (self.adapter_id.clone()).filter(|adapter| adapter != BASE_MODEL),
            adapter_weights,
            user: None,
        })
    }

    /// Whether the answer tells about its tokens.
    pub fn wants_details(&self) -> bool {
        self.details == Some(true) || self.decoder_input_details == Some(true)
    }

    /// How to generate; with `told`, tokens come with their log-probabilities.
    ///
    /// # Errors
    /// `InvalidValue` naming the field that is out of its range.
    pub fn generation(&self, tokenizer: &Tokenizer, told: bool) -> Result<Generation, ApiError> {
        if self.max_new_tokens == Some(0) {
            return Err(ApiError::invalid(
                "max_tokens",
                "`max_tokens` is 0; send at least 1",
            ));
        }
        let fields = SamplingFields {
            temperature: Some(self.temperature_in_effect()),
            top_p: self.top_p,
            top_k: self.top_k.map(i64::from),
            stop: self.stop.clone().map(Stop::Many),
            seed: self.seed.map(u64::cast_signed),
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            ignore_eos: self.ignore_eos_token,
            ..SamplingFields::default()
        };
        let max_tokens = self.max_new_tokens.map(i64::from);
        let mut generation = fields.check(max_tokens, tokenizer.vocabulary())?;
        let top = i64::from(self.top_n_tokens.unwrap_or(0));
        let top = alternatives("top_n_tokens", top)?;
        generation.logprobs = told.then_some(top);
        generation.echo = self.decoder_input_details == Some(true);
        Ok(generation)
    }

    /// Tokens are drawn when that is asked for, or when a setting that only matters for drawing is.
    fn temperature_in_effect(&self) -> f64 {
        let temperature = self.temperature.unwrap_or(1.0);
        let warps = temperature != 1.0
            || self.top_k.is_some_and(|top_k| top_k > 0)
            || self.top_p.is_some_and(|top_p| top_p < 1.0);
        match self.do_sample == Some(true) || warps {
            true => temperature,
            false => 0.0,
        }
    }
}

impl MergedAdapters {
    fn weights(&self) -> Result<BTreeMap<String, f64>, ApiError> {
        let strategy = self.merge_strategy.as_deref().unwrap_or("linear");
        if strategy != "linear" {
            return Err(ApiError::not_supported(
                "merged_adapters.merge_strategy",
                "adapters are added up with their weights; send `linear`",
            ));
        }
        if self.ids.is_empty() || self.ids.len() != self.weights.len() {
            return Err(ApiError::invalid(
                "merged_adapters.weights",
                format!(
                    "`merged_adapters` has {} ids and {} weights; send as many of one as of the other",
                    self.ids.len(),
                    self.weights.len()
                ),
            ));
        }
        Ok(self
            .ids
            .iter()
            .cloned()
            .zip(self.weights.iter().copied())
            .collect())
    }
}

/// Where an adapter would be fetched from does not matter for one that is loaded.
fn is_anywhere(value: &Value) -> bool {
    matches!(value.as_str(), Some("local" | "hub"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameters(body: Value) -> TgiParameters {
        crate::body::read(&body).expect("parameters")
    }

    #[test]
    fn tokens_are_drawn_only_when_something_asks_for_it() {
        let temperature = |body| parameters(body).temperature_in_effect();
        assert_eq!(temperature(json!({})), 0.0);
        assert_eq!(
            temperature(json!({"temperature": 1.0, "top_p": 1.0, "top_k": 0})),
            0.0
        );
        assert_eq!(temperature(json!({"do_sample": true})), 1.0);
        assert_eq!(temperature(json!({"temperature": 0.5})), 0.5);
        assert_eq!(temperature(json!({"top_k": 3})), 1.0);
        assert_eq!(
            temperature(json!({"temperature": 0.0, "do_sample": true})),
            0.0
        );
    }

    #[test]
    fn an_absent_length_is_a_hundred_tokens_and_null_no_limit() {
        assert_eq!(parameters(json!({})).max_new_tokens, Some(100));
        assert_eq!(TgiParameters::default().max_new_tokens, Some(100));
        assert_eq!(
            parameters(json!({"max_new_tokens": null})).max_new_tokens,
            None
        );
    }

    #[test]
    fn adapters_to_add_up_need_a_weight_each_and_no_other_strategy() {
        let weights = |body| parameters(json!({ "merged_adapters": body })).selection();
        let selection =
            weights(json!({"ids": ["a", "b"], "weights": [0.25, 0.75], "density": 0.0}))
                .expect("weights");
        let expected = BTreeMap::from([("a".to_owned(), 0.25), ("b".to_owned(), 0.75)]);
        assert_eq!(selection.adapter_weights, Some(expected));
        for body in [
            json!({"ids": ["a", "b"], "weights": [1.0]}),
            json!({"ids": [], "weights": []}),
            json!({"ids": ["a"], "weights": [1.0], "merge_strategy": "ties"}),
        ] {
            assert!(weights(body.clone()).is_err(), "{body}");
        }
    }
}
