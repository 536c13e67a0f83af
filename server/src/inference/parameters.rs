//! The fields that say how to generate, shared by completions and chat: their types, ranges and defaults.

use std::collections::{BTreeMap, HashMap};

use engine::Sampling;
use serde::Deserialize;
use utoipa::ToSchema;

use super::target::Selection;
use crate::error::ApiError;

/// Most choices per prompt.
const MAX_CHOICES: i64 = 128;
/// Most stop strings.
pub const MAX_STOPS: usize = 16;
/// Most alternatives reported per token.
pub const MAX_LOGPROBS: i64 = 20;

/// Fields of completions and chat that have the same meaning in both.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct SamplingFields {
    /// The base model, an adapter, or `<adapter>@<version>`; absent means the base model.
    pub model: Option<String>,
    /// Softmax temperature, 0 to 2; 0 is greedy.
    pub temperature: Option<f64>,
    /// Nucleus sampling: the smallest set of tokens with at least this probability, above 0 and at most 1.
    pub top_p: Option<f64>,
    /// Only the likeliest tokens, this many; 0 or -1 for all.
    pub top_k: Option<i64>,
    /// Only tokens at least this fraction as likely as the likeliest, 0 to 1.
    pub min_p: Option<f64>,
    /// Choices per prompt, 1 to 128.
    pub n: Option<i64>,
    /// Up to 16 texts that end the answer and are not part of it.
    pub stop: Option<Stop>,
    /// The same seed, request and version give the same text.
    pub seed: Option<i64>,
    /// Server-sent events, one chunk per token.
    pub stream: Option<bool>,
    /// Only with `stream`.
    pub stream_options: Option<StreamOptions>,
    /// Taken off every token that has occurred in the answer, -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Taken off each token per occurrence in the answer, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Divides (or multiplies) the logits of tokens seen so far, above 0 and at most 2.
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of tokens: token id to a number from -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Go on past the end-of-turn token.
    pub ignore_eos: Option<bool>,
    /// No end-of-turn token before this many tokens.
    pub min_tokens: Option<i64>,
    /// An identifier of the end user; where an adapter has a canary, the same user always gets the same version.
    pub user: Option<String>,
    /// A blend in the place of one adapter: names, each optionally with `@<version>`, and what each one's change of the base
    /// is multiplied by.
    pub adapter_weights: Option<BTreeMap<String, f64>>,
}

/// One stop string or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// What a stream carries besides tokens.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// A last chunk with empty `choices` and the usage.
    pub include_usage: Option<bool>,
}

/// Checked parameters of a generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// How tokens are chosen; choice `i` of a prompt uses `seed + i`.
    pub sampling: Sampling,
    /// Most tokens per choice; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Tokens before the answer may end.
    pub min_tokens: usize,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Go on past the end-of-turn token.
    pub ignore_eos: bool,
    /// Choices per prompt.
    pub choices: usize,
    /// Alternatives reported per generated token.
    pub logprobs: Option<usize>,
    /// Answer with the prompt in front, and its log-probabilities when those are asked for.
    pub echo: bool,
}

impl SamplingFields {
    /// What it says about the model.
    pub fn selection(&self) -> Selection {
        Selection {
            model: self.model.clone(),
            adapter_weights: self.adapter_weights.clone(),
            user: self.user.clone(),
        }
    }

    /// Whether the answer is streamed, and whether usage closes the stream.
    ///
    /// # Errors
    /// `InvalidValue` for stream options without a stream.
    pub fn streaming(&self) -> Result<Streaming, ApiError> {
        let stream = self.stream.unwrap_or(false);
        match (&self.stream_options, stream) {
            (Some(_), false) => Err(ApiError::invalid(
                "stream_options",
                "`stream_options` only goes with `stream: true`",
            )),
            (options, _) => Ok(Streaming {
                stream,
                include_usage: options
                    .as_ref()
                    .and_then(|options| options.include_usage)
                    .unwrap_or(false),
            }),
        }
    }

    /// Checks every range and fills in the defaults.
    ///
    /// # Errors
    /// `InvalidValue` naming the first field out of its range.
    pub fn check(
        &self,
        max_tokens: Option<i64>,
        vocabulary: usize,
    ) -> Result<Generation, ApiError> {
        let max_tokens = max_tokens
            .map(|value| count("max_tokens", value))
            .transpose()?;
        let min_tokens = count("min_tokens", self.min_tokens.unwrap_or(0))?;
        if max_tokens.is_some_and(|most| min_tokens > most) {
            return Err(ApiError::invalid(
                "min_tokens",
                format!("`min_tokens` is {min_tokens}; it may not exceed `max_tokens`"),
            ));
        }
        let choices = self.n.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&choices) {
            return Err(ApiError::invalid(
                "n",
                format!("`n` is {choices}; it must be from 1 to {MAX_CHOICES}"),
            ));
        }
        Ok(Generation {
            sampling: self.sampling(vocabulary)?,
            max_tokens,
            min_tokens,
            stop: self.stops()?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            choices: usize::try_from(choices).unwrap_or(1),
            logprobs: None,
            echo: false,
        })
    }

    fn sampling(&self, vocabulary: usize) -> Result<Sampling, ApiError> {
        let top_k = self.top_k.unwrap_or(0);
        if top_k < -1 {
            return Err(ApiError::invalid(
                "top_k",
                format!("`top_k` is {top_k}; it must be positive, or 0 or -1 for all tokens"),
            ));
        }
        let temperature = within("temperature", self.temperature.unwrap_or(1.0), 0.0, 2.0)?;
        let top_p = self.top_p.unwrap_or(1.0);
        let repetition = self.repetition_penalty.unwrap_or(1.0);
        Ok(Sampling {
            temperature,
            top_p: above_zero("top_p", top_p, 1.0)?,
            top_k: usize::try_from(top_k).unwrap_or(0),
            min_p: within("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?,
            presence_penalty: within(
                "presence_penalty",
                self.presence_penalty.unwrap_or(0.0),
                -2.0,
                2.0,
            )?,
            frequency_penalty: within(
                "frequency_penalty",
                self.frequency_penalty.unwrap_or(0.0),
                -2.0,
                2.0,
            )?,
            repetition_penalty: above_zero("repetition_penalty", repetition, 2.0)?,
            logit_bias: self.biases(vocabulary)?,
            // Any 64 bits are a seed; a negative one keeps its bits. One that is drawn has 53, so that a receipt comes back whole
            // from clients that read numbers as doubles.
            seed: (self.seed).map_or_else(|| rand::random::<u64>() >> 11, i64::cast_unsigned),
        })
    }

    fn stops(&self) -> Result<Vec<String>, ApiError> {
        let stops = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop.clone()],
            Some(Stop::Many(stops)) => stops.clone(),
        };
        if stops.len() > MAX_STOPS {
            return Err(ApiError::invalid(
                "stop",
                format!(
                    "`stop` has {} strings; at most {MAX_STOPS} are allowed",
                    stops.len()
                ),
            ));
        }
        if stops.iter().any(String::is_empty) {
            return Err(ApiError::invalid(
                "stop",
                "`stop` has an empty string; leave it out",
            ));
        }
        Ok(stops)
    }

    fn biases(&self, vocabulary: usize) -> Result<HashMap<u32, f32>, ApiError> {
        let mut biases = HashMap::new();
        for (token, &bias) in self.logit_bias.iter().flatten() {
            let param = || format!("logit_bias.{token}");
            let id = token
                .parse::<u32>()
                .ok()
                .filter(|&id| (id as usize) < vocabulary)
                .ok_or_else(|| {
                    ApiError::invalid(
                        param(),
                        format!("`logit_bias` key `{token}` is not a token id below {vocabulary}"),
                    )
                })?;
            biases.insert(id, within(&param(), bias, -100.0, 100.0)?);
        }
        Ok(biases)
    }
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streaming {
    /// As server-sent events.
    pub stream: bool,
    /// With the usage in a last chunk.
    pub include_usage: bool,
}

/// Checks a count of alternatives.
///
/// # Errors
/// `InvalidValue` when negative, `NotSupported` above [`MAX_LOGPROBS`].
pub fn alternatives(param: &str, value: i64) -> Result<usize, ApiError> {
    if value > MAX_LOGPROBS {
        return Err(ApiError::not_supported(
            param,
            format!("{value} alternatives were asked for and at most {MAX_LOGPROBS} are reported"),
        ));
    }
    count(param, value)
}

fn count(param: &str, value: i64) -> Result<usize, ApiError> {
    usize::try_from(value).map_err(|_| {
        ApiError::invalid(
            param,
            format!("`{param}` is {value}; it may not be negative"),
        )
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the value has been checked to lie in a small range"
)]
fn within(param: &str, value: f64, low: f64, high: f64) -> Result<f32, ApiError> {
    if (low..=high).contains(&value) {
        return Ok(value as f32);
    }
    Err(ApiError::invalid(
        param,
        format!("`{param}` is {value}; it must be from {low} to {high}"),
    ))
}

fn above_zero(param: &str, value: f64, high: f64) -> Result<f32, ApiError> {
    if value > 0.0 {
        return within(param, value, 0.0, high);
    }
    Err(ApiError::invalid(
        param,
        format!("`{param}` is {value}; it must be above 0 and at most {high}"),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: serde_json::Value) -> Result<Generation, ApiError> {
        let fields: SamplingFields = crate::body::read(&body)?;
        fields.streaming()?;
        fields.check(Some(16), 100)
    }

    #[test]
    fn each_value_out_of_range_names_its_field() {
        for (field, value) in [
            ("temperature", json!(-0.1)),
            ("temperature", json!(2.5)),
            ("top_p", json!(0.0)),
            ("top_p", json!(1.5)),
            ("top_k", json!(-2)),
            ("min_p", json!(1.1)),
            ("n", json!(0)),
            ("n", json!(129)),
            ("presence_penalty", json!(2.1)),
            ("frequency_penalty", json!(-3)),
            ("repetition_penalty", json!(0)),
            ("min_tokens", json!(17)),
            ("min_tokens", json!(-1)),
            ("stop", json!([""])),
            ("stop", json!(vec!["x"; 17])),
            ("stop", json!(3)),
            ("stream_options", json!({"include_usage": true})),
            ("seed", json!("one")),
        ] {
            let error = check(json!({ field: value })).expect_err(field);
            assert_eq!(error.param(), Some(field), "{error}");
        }
        let error = check(json!({"logit_bias": {"100": 1.0}})).expect_err("outside the vocabulary");
        assert_eq!(error.param(), Some("logit_bias.100"));
    }

    #[test]
    fn values_and_defaults_arrive() {
        let generation = check(json!({"temperature": 0, "top_k": -1, "seed": 7, "stop": "x", "logit_bias": {"5": -3.5}}))
            .expect("valid fields");
        assert_eq!(generation.sampling.temperature, 0.0);
        assert_eq!(generation.sampling.top_k, 0);
        assert_eq!(generation.sampling.top_p, 1.0);
        assert_eq!(generation.sampling.repetition_penalty, 1.0);
        assert_eq!(generation.sampling.seed, 7);
        assert_eq!(generation.sampling.logit_bias.get(&5), Some(&-3.5));
        assert_eq!(generation.stop, ["x"]);
        assert_eq!(generation.choices, 1);
    }

    #[test]
    fn too_many_alternatives_are_not_supported() {
        assert!(matches!(alternatives("logprobs", 20), Ok(20)));
        assert!(matches!(
            alternatives("logprobs", 21),
            Err(ApiError::NotSupported { .. })
        ));
        assert!(matches!(
            alternatives("logprobs", -1),
            Err(ApiError::InvalidValue { .. })
        ));
    }
}
