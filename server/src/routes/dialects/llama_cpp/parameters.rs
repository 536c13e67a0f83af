//! The fields of llama.cpp's completions and what they mean here, with llama.cpp's defaults.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::adapters::LoraScale;
use crate::body::{RequestBody, read};
use crate::error::ApiError;
use crate::inference::parameters::{Generation, SamplingFields, Stop, alternatives};
use crate::inference::prompts::Prompt;
use crate::inference::unsupported::{Refused, is_empty, is_false, is_one, refuse, refused};

const TEMPERATURE: f64 = 0.8;
const TOP_K: i64 = 40;
const TOP_P: f64 = 0.95;
const MIN_P: f64 = 0.05;
/// A seed that stands for any, beside -1.
const ANY_SEED: i64 = 0xFFFF_FFFF;

const REFUSED: &[Refused] = &[
    refused("grammar", is_empty, "there is no constrained decoding"),
    refused("json_schema", is_empty, "there is no constrained decoding"),
    refused("mirostat", is_off, "use `top_p` or `min_p`"),
    refused("typical_p", is_one, "use `top_p` or `min_p`"),
    refused("tfs_z", is_one, "use `top_p` or `min_p`"),
    refused("top_n_sigma", is_off, "use `top_p` or `min_p`"),
    refused("xtc_probability", is_off, "leave it out"),
    refused("dry_multiplier", is_off, "use `repeat_penalty`"),
    refused("dynatemp_range", is_off, "use `temperature`"),
    refused("min_keep", is_off, "the likeliest token is always kept"),
    refused("samplers", is_usual, "the order of samplers is fixed"),
    refused(
        "post_sampling_probs",
        is_false,
        "probabilities are the model's own",
    ),
    refused("response_fields", is_empty, "answers are whole"),
    refused("n_indent", is_off, "leave it out"),
    refused("t_max_predict_ms", is_off, "use `n_predict`"),
    refused("timings_per_token", is_false, "GET /metrics has times"),
    refused("image_data", is_empty, "only text is read"),
    refused("n_cmpl", is_one, "send the prompt several times"),
];

/// A prompt to continue, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct LlamaCppRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// A model's name; absent means that the adapters' scales decide.
    pub model: Option<String>,
    /// Adapters with their scales for this request; those that are not listed are off.
    pub lora: Option<Vec<LoraScale>>,
    /// Most tokens; as many as the context holds for -1 or unless given.
    pub n_predict: Option<i64>,
    /// Another name of `n_predict`.
    pub max_tokens: Option<i64>,
    /// Softmax temperature, up to 2, 0.8 unless given; 0 and below are greedy.
    pub temperature: Option<f64>,
    /// Only the likeliest tokens, this many, 40 unless given; 0 and below for all.
    pub top_k: Option<i64>,
    /// Nucleus sampling, 0.95 unless given.
    pub top_p: Option<f64>,
    /// Only tokens at least this fraction as likely as the likeliest, 0.05 unless given.
    pub min_p: Option<f64>,
    /// The same seed, request and version give the same text; -1 for any.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Option<Stop>,
    /// Server-sent events.
    pub stream: Option<bool>,
    /// Report each token with this many alternatives.
    pub n_probs: Option<i64>,
    /// Report the tokens' ids.
    pub return_tokens: Option<bool>,
    /// Divides the logits of tokens of the prompt and the answer.
    pub repeat_penalty: Option<f64>,
    /// How far back `repeat_penalty` looks: -1 for everything, 0 for not at all.
    pub repeat_last_n: Option<i64>,
    /// Taken off every token that has occurred in the answer.
    pub presence_penalty: Option<f64>,
    /// Taken off each token per occurrence in the answer.
    pub frequency_penalty: Option<f64>,
    /// Go on past the end-of-turn token.
    pub ignore_eos: Option<bool>,
    /// Added to the logits of tokens: pairs of id and number, `false` for never; or an object.
    #[schema(value_type = Option<Vec<Object>>)]
    pub logit_bias: Option<Biases>,
}

/// Both shapes of `logit_bias`.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an array of pairs of token id and number, or an object"
)]
pub enum Biases {
    /// Pairs.
    Pairs(Vec<(u32, Bias)>),
    /// An object.
    Object(std::collections::BTreeMap<String, f64>),
}

/// A bias; any boolean is `false`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub enum Bias {
    /// Added to the logit.
    Number(f64),
    /// The token is never chosen.
    Never(bool),
}

impl RequestBody for LlamaCppRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        refuse(&object, REFUSED)?;
        read(&Value::Object(object))
    }
}

impl LlamaCppRequest {
    /// How to generate.
    ///
    /// # Errors
    /// `InvalidValue` naming the field that is out of its range.
    pub fn generation(&self, vocabulary: usize) -> Result<Generation, ApiError> {
        let fields = SamplingFields {
            temperature: Some(self.temperature.unwrap_or(TEMPERATURE).max(0.0)),
            top_k: Some(self.top_k.unwrap_or(TOP_K).max(0)),
            top_p: Some(self.top_p.unwrap_or(TOP_P)),
            min_p: Some(self.min_p.unwrap_or(MIN_P)),
            seed: self.seed.filter(|&seed| seed != -1 && seed != ANY_SEED),
            stop: self.stop.clone(),
            repetition_penalty: self.repetition()?,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            ignore_eos: self.ignore_eos,
            logit_bias: self.logit_bias.clone().map(Biases::by_token),
            ..SamplingFields::default()
        };
        let most = self.n_predict.or(self.max_tokens);
        let mut generation = fields.check(most.filter(|&most| most >= 0), vocabulary)?;
        let top = self.n_probs.unwrap_or(0);
        let top = alternatives("n_probs", top)?;
        generation.logprobs = (top > 0).then_some(top);
        Ok(generation)
    }

    fn repetition(&self) -> Result<Option<f64>, ApiError> {
        let penalty = self.repeat_penalty.filter(|&penalty| penalty != 1.0);
        match (penalty, self.repeat_last_n) {
            (None, _) | (_, Some(0)) => Ok(None),
            (penalty, None | Some(-1)) => Ok(penalty),
            (_, Some(_)) => Err(ApiError::not_supported(
                "repeat_last_n",
                "the penalty looks at the prompt and the whole answer; send -1",
            )),
        }
    }
}

impl Biases {
    fn by_token(self) -> std::collections::BTreeMap<String, f64> {
        match self {
            Self::Object(biases) => biases,
            Self::Pairs(pairs) => pairs
                .into_iter()
                .map(|(token, bias)| match bias {
                    Bias::Number(bias) => (token.to_string(), bias),
                    Bias::Never(_) => (token.to_string(), -100.0),
                })
                .collect(),
        }
    }
}

fn is_off(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number <= 0.0)
}

/// The samplers llama.cpp has unless told otherwise; those that are not here are off by other fields.
fn is_usual(value: &Value) -> bool {
    let usual = ["top_k", "top_p", "min_p", "temperature"];
    let Some(samplers) = value.as_array() else {
        return false;
    };
    let known: Vec<&Value> = samplers
        .iter()
        .filter(|sampler| usual.iter().any(|name| **sampler == json!(name)))
        .collect();
    samplers.is_empty() || known == usual
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(body: Value) -> Result<Generation, ApiError> {
        let Value::Object(mut object) = body else {
            return Err(ApiError::invalid("body", "not an object"));
        };
        object.insert("prompt".to_owned(), json!("a"));
        LlamaCppRequest::from_object(object)?.generation(100)
    }

    #[test]
    fn what_is_absent_is_as_in_llama_cpp() {
        let generation = generation(json!({})).expect("defaults");
        let sampling = &generation.sampling;
        assert_eq!(
            (
                sampling.temperature,
                sampling.top_k,
                sampling.top_p,
                sampling.min_p
            ),
            (0.8, 40, 0.95, 0.05)
        );
        assert_eq!(generation.max_tokens, None);
        assert_eq!(generation.logprobs, None);
    }

    #[test]
    fn values_that_switch_something_off_do() {
        let body = json!({"n_predict": -1, "temperature": -1.0, "top_k": -1, "repeat_penalty": 1.2, "repeat_last_n": 0,
            "mirostat": 0, "top_n_sigma": -1.0, "grammar": "", "samplers": ["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]});
        let generation = generation(body).expect("harmless values");
        assert!(generation.sampling.is_greedy());
        assert_eq!(generation.sampling.top_k, 0);
        assert_eq!(generation.sampling.repetition_penalty, 1.0);
        assert_eq!(generation.max_tokens, None);
    }

    #[test]
    fn settings_without_effect_are_refused_by_name() {
        for (field, value) in [
            ("grammar", json!("root ::= \"a\"")),
            ("mirostat", json!(2)),
            ("samplers", json!(["temperature", "top_k"])),
            ("response_fields", json!(["content"])),
        ] {
            let error = generation(json!({ field: value })).expect_err(field);
            assert_eq!(error.param(), Some(field));
        }
        let error = generation(json!({"repeat_penalty": 1.2, "repeat_last_n": 64}));
        assert_eq!(error.expect_err("a window").param(), Some("repeat_last_n"));
    }

    #[test]
    fn biases_are_pairs_or_an_object() {
        let biases =
            |body| generation(json!({ "logit_bias": body })).map(|own| own.sampling.logit_bias);
        let pairs = biases(json!([[7, 1.5], [8, false]])).expect("pairs");
        assert_eq!((pairs[&7], pairs[&8]), (1.5, -100.0));
        assert_eq!(biases(json!({"7": -2.0})).expect("an object")[&7], -2.0);
        assert!(biases(json!([["word", 1.0]])).is_err());
    }
}
