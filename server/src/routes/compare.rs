//! `POST /v1/compare`: two models on the same prompts, in one batch.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::comparison::{Disagreement, divergences};
use crate::inference::generation::{Finished, collect, cost, reason_name, submit_paid};
use crate::inference::parameters::SamplingFields;
use crate::inference::prompts::Prompt;
use crate::inference::target::{AdapterReference, Selection, Target};
use crate::inference::unsupported::refuse_for_completion;
use crate::openapi::InferenceErrors;
use crate::state::State;

const DEFAULT_MAX_TOKENS: i64 = 32;
/// Each position of an answer is read by both models.
const MOST_TOKENS: usize = 256;
const MOST_PROMPTS: usize = 64;

/// A request to compare two models.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CompareRequest {
    /// Fields of comparisons alone.
    #[serde(flatten)]
    pub fields: CompareFields,
    /// Fields shared with completions; `temperature` is 0 unless given, `model`, `n` and `stream` are not used.
    #[serde(flatten)]
    pub sampling: SamplingFields,
}

/// Fields of comparisons alone.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CompareFields {
    /// Two names, as in the `model` of a completion.
    pub models: Vec<String>,
    /// What both continue, up to 64 prompts.
    pub prompts: Vec<String>,
    /// Most tokens of each answer, up to 256; 32 unless given.
    pub max_tokens: Option<i64>,
}

/// The comparison.
#[derive(Debug, Serialize, ToSchema)]
pub struct Comparison {
    /// `comparison`.
    pub object: &'static str,
    /// The models as they were named.
    pub models: Vec<String>,
    /// The adapter versions that answered; null for the base model.
    pub adapters: Vec<Option<AdapterReference>>,
    /// One per prompt, in order.
    pub results: Vec<ComparedPrompt>,
    /// Mean over the prompts of their `disagreement`.
    pub disagreement: f64,
    /// Mean over the prompts of their `kl`.
    pub kl: f64,
}

/// What both models made of one prompt.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComparedPrompt {
    /// Position of the prompt.
    pub index: usize,
    /// The prompt.
    pub prompt: String,
    /// One per model.
    pub outputs: Vec<ComparedOutput>,
    /// Part of the positions, of the longer answer, at which the tokens differ, 0 to 1.
    pub disagreement: f64,
    /// The first such position; null for equal answers.
    pub first_difference: Option<usize>,
    /// Mean Kullback-Leibler divergence of the second model's next-token distribution from the first's, nats, both reading the
    /// prompt and the first one's answer.
    pub kl: f64,
    /// The same at each position of the first one's answer.
    pub kl_by_token: Vec<f64>,
}

/// One model's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComparedOutput {
    /// The model as it was named.
    pub model: String,
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

impl RequestBody for CompareRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        refuse_for_completion(&object)?;
        let object = Value::Object(object);
        let fields: CompareFields = read(&object)?;
        if fields.models.len() != 2 {
            return Err(ApiError::invalid(
                "models",
                format!("`models` has {} names; send two", fields.models.len()),
            ));
        }
        if fields.prompts.is_empty() || fields.prompts.len() > MOST_PROMPTS {
            return Err(ApiError::invalid(
                "prompts",
                format!(
                    "`prompts` has {} entries; send 1 to {MOST_PROMPTS}",
                    fields.prompts.len()
                ),
            ));
        }
        Ok(Self {
            fields,
            sampling: read(&object)?,
        })
    }
}

/// Runs two models on the same prompts and says where they part.
#[utoipa::path(post, path = "/v1/compare", tag = "inference", request_body = CompareRequest,
    responses((status = 200, description = "Both answers to each prompt", body = Comparison), InferenceErrors))]
pub async fn compare(
    _key: InferenceKey,
    state: Data<State>,
    request: HttpRequest,
    body: Json<CompareRequest>,
) -> Result<HttpResponse, ApiError> {
    let (fields, mut sampling) = (body.0.fields, body.0.sampling);
    let [first, second] = [0, 1].map(|at| Selection::of_model(Some(&fields.models[at])));
    let first = Target::of_request(&state, &request, &first).await?;
    let second = Target::of_request(&state, &request, &second).await?;
    sampling.temperature = sampling.temperature.or(Some(0.0));
    // The same draws for both, so that equal models give equal answers.
    sampling.seed = sampling.seed.or(Some(0));
    sampling.n = None;
    let tokenizer = state.engine.tokenizer();
    let max_tokens = fields.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let generation = sampling.check(Some(max_tokens), tokenizer.vocabulary())?;
    if !(1..=MOST_TOKENS).contains(&generation.max_tokens.unwrap_or_default()) {
        return Err(ApiError::invalid(
            "max_tokens",
            format!("`max_tokens` is {max_tokens}; it must be from 1 to {MOST_TOKENS}"),
        ));
    }
    let prompts = Prompt::Texts(fields.prompts).encode(tokenizer)?;
    // Both models, at once: what does not fit is refused before half of it is done.
    first.pay(2 * cost(&state, &prompts, &generation))?;
    // Submitted together, so that they share the engine's steps.
    let ones = submit_paid(&state, &first, &prompts, &generation)?;
    let others = submit_paid(&state, &second, &prompts, &generation)?;
    let (ones, others) = try_join(collect(ones), collect(others)).await?;
    let mut results = Vec::with_capacity(prompts.len());
    for (index, (prompt, (one, other))) in prompts
        .into_iter()
        .zip(ones.into_iter().zip(others))
        .enumerate()
    {
        let kl_by_token = divergences(&state, &prompt.tokens, &one, (&first, &second)).await?;
        let outputs = vec![output(&first, one), output(&second, other)];
        let apart = Disagreement::of(&outputs[0].tokens, &outputs[1].tokens);
        results.push(ComparedPrompt {
            index,
            prompt: prompt.text,
            disagreement: apart.share,
            first_difference: apart.first,
            kl: mean(kl_by_token.iter().copied()),
            kl_by_token,
            outputs,
        });
    }
    Ok(HttpResponse::Ok().json(Comparison {
        object: "comparison",
        models: fields.models,
        adapters: vec![first.reference(), second.reference()],
        disagreement: mean(results.iter().map(|result| result.disagreement)),
        kl: mean(results.iter().map(|result| result.kl)),
        results,
    }))
}

fn output(target: &Target, finished: Finished) -> ComparedOutput {
    ComparedOutput {
        model: target.model.clone(),
        tokens: finished.tokens.iter().map(|(token, _)| *token).collect(),
        text: finished.text,
        finish_reason: reason_name(finished.reason),
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let number = values.len().max(1);
    values.sum::<f64>() / number as f64
}
